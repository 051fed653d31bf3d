//! Installs what the commands need beside a compiler: Rust's targets, Debian's packages, and
//! kernels for virtual machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xtask::cargo::has_target;
use xtask::platforms::{BootedBy, Platform, platforms};
use xtask::project::{debian_mirror, output, root, run, say};

use crate::build::make_executable;

/// A list of scripts/packages.toml.
pub fn list(name: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("scripts/packages.toml"))?;
    let mut lists: BTreeMap<String, Vec<String>> =
        toml::from_str(&text).context("scripts/packages.toml")?;
    lists.remove(name).with_context(|| format!("scripts/packages.toml has no list '{name}'"))
}

/// Installs the packages of some lists that are missing.
pub fn install_lists(names: &[&str]) -> Result<()> {
    let lists: Vec<_> = names.iter().map(|name| list(name)).collect::<Result<_>>()?;
    install(&lists.concat())
}

/// Installs the packages of commands that are missing.
pub fn install(commands: &[impl AsRef<str>]) -> Result<()> {
    let commands = commands.iter().map(AsRef::as_ref);
    run(Command::new(root().join("scripts/setup")).args(commands))
}

fn debian_std(platform: &Platform) -> Option<String> {
    let packages = platform.std.as_ref()?;
    Some(format!("/usr/lib/rustlib/{}/lib={packages}", platform.target))
}

/// Has rustup add a target to the toolchain of the project, or to the one that options name.
pub fn rustup_add(target: &str, options: &[&str]) -> Result<()> {
    let mut rustup = Command::new("rustup");
    output(rustup.args(["target", "add"]).args(options).arg(target).current_dir(root())).map(drop)
}

/// Adds Rust's targets for some platforms, as far as they are missing: by rustup or, where that
/// fails, by Debian's packages.
pub fn targets(platforms: &[&Platform]) -> Result<()> {
    for platform in platforms {
        if has_target(&platform.target)? {
            continue;
        }
        let name = &platform.architecture;
        say(format!("adding Rust's target for {name}"));
        let Err(error) = rustup_add(&platform.target, &[]) else { continue };
        let Some(std) = debian_std(platform) else {
            bail!("{error}; to go on without {name}, give the others to --only");
        };
        say("rustup cannot; using Debian's compiler");
        install(&[list("rust")?, vec![std]].concat())?;
    }
    Ok(())
}

/// Installs all that scripts/test needs.
pub fn for_tests() -> Result<()> {
    let lists = ["pod", "bench", "test", "lives", "rust"].map(list);
    let mut wanted = lists.into_iter().collect::<Result<Vec<_>>>()?.concat();
    for platform in platforms() {
        wanted.extend(debian_std(platform));
        // One package has qemu-user for all platforms.
        let emulator = format!("qemu-{}", platform.qemu_user);
        wanted.push(format!("{emulator}-static|{emulator}=qemu-user-static|qemu-user"));
    }
    // The Docker of Debian 12 builds without.
    if !fs::read_to_string("/etc/os-release")?.contains("VERSION_ID=\"12\"") {
        let plugins = ["/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins"];
        let [one, other] = plugins.map(|folder| format!("{folder}/docker-buildx"));
        wanted.push(format!("{one}|{other}=docker-buildx"));
    }
    install(&wanted)?;
    machines(BootedBy::Test)
}

/// Installs the emulators, and unpacks Debian's kernels and a busybox for each of the machines that
/// `scripts/test` or `scripts/e2e kernels` boots:
///
///   target/machine/NAME/vmlinuz
///   target/machine/ARCHITECTURE/busybox
pub fn machines(by: BootedBy) -> Result<()> {
    let has_others = |one: &Platform| by == BootedBy::E2e && !one.other_kernels.is_empty();
    let mut booted = platforms();
    booted.retain(|platform| platform.booted_by == by || has_others(platform));
    let cpio = "cpio=cpio".to_string();
    let commands = booted.iter().flat_map(|one| &one.boots_with).chain([&cpio]);
    install(&commands.collect::<Vec<_>>())?;
    for platform in booted {
        if platform.booted_by == by {
            machine(platform, "", &platform.kernel, &platform.suite)?;
        }
        for kernel in platform.other_kernels.iter().filter(|_| has_others(platform)) {
            let package = kernel.package.as_ref().unwrap_or(&platform.kernel);
            machine(platform, &format!("-{}", kernel.name), package, &kernel.suite)?;
        }
    }
    Ok(())
}

/// Unpacks what one machine needs.
fn machine(platform: &Platform, suffix: &str, kernel: &str, suite: &str) -> Result<()> {
    let Platform { architecture, debian, .. } = platform;
    let folder = root().join("target/machine");
    let busybox = folder.join(architecture).join("busybox");
    let package = format!("busybox-static:{debian}");
    unpack(&package, "./*bin/busybox", &busybox, &platform.suite)?;
    let package = match kernel.contains(':') {
        true => kernel.to_string(),
        false => format!("{kernel}:{debian}"),
    };
    // Kernels are in /boot, and in newer releases in the folder of their modules. On some
    // architectures the file is not compressed (vmlinux).
    let vmlinuz = folder.join(format!("{architecture}{suffix}")).join("vmlinuz");
    unpack(&package, "./*/vmlinu[xz]*", &vmlinuz, suite)
}

/// Copies one file from a package of a release of Debian without installing the package. The
/// package lists are kept below target/apt, apart from the machine's own.
fn unpack(package: &str, pattern: &str, file: &Path, suite: &str) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let (name, architecture) = package.split_once(':').context("a package with an architecture")?;
    let config = package_lists(suite, architecture)
        .with_context(|| format!("cannot unpack {package} to {}", file.display()))?;
    let apt = |program: &str, arguments: &[&str]| {
        output(Command::new(program).env("APT_CONFIG", &config).args(arguments))
    };
    apt("apt-get", &["update"])?;
    // The package linux-image-cloud-amd64 and its like depends on the kernel of today, and in newer
    // releases that one on the package with the file (linux-binary-*).
    let mut package = package.to_string();
    if name.starts_with("linux-image-") {
        let is_kernel = |name: &str| {
            let version = name.strip_prefix("linux-image-").or(name.strip_prefix("linux-binary-"));
            version.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        loop {
            let list = apt("apt-cache", &["depends", &package])?;
            let mut depends = list.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            let Some(kernel) = depends.find(|name| is_kernel(name)) else { break };
            package = format!("{}:{architecture}", kernel.split(':').next().unwrap_or(kernel));
        }
        if !is_kernel(&package) {
            bail!("{suite} has no kernel by the name {name}");
        }
    }
    let shown = file.file_name().unwrap_or_default().display();
    say(format!("unpacking {shown} of {package} ({suite})"));
    let folder = file.parent().context("a folder")?;
    fs::create_dir_all(folder)?;
    let new = tempfile::tempdir_in(folder)?;
    let line = "cd \"$1\" && apt-get download -q \"$2\" && dpkg-deb --fsys-tarfile ./*.deb >tar &&
        tar -x --wildcards --to-stdout -f tar \"$3\" >file";
    let mut shell = Command::new("sh");
    shell.args(["-c", line, "sh"]).arg(new.path()).args([&package, pattern]);
    output(shell.env("APT_CONFIG", &config)).with_context(|| package.clone())?;
    let unpacked = new.path().join("file");
    make_executable(&unpacked)?;
    Ok(fs::rename(unpacked, file)?)
}

/// The configuration with which apt reads a release of Debian, for one architecture.
fn package_lists(suite: &str, architecture: &str) -> Result<PathBuf> {
    let apt = root().join("target/apt").join(suite);
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    // An old release's file has expired.
    let options = "check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    let source = format!("deb [{options}] {} {suite} main\n", debian_mirror()?);
    fs::write(apt.join("sources"), source)?;
    let (folder, config) = (apt.display(), apt.join(format!("conf-{architecture}")));
    let text = format!(
        "Dir::State \"{folder}/state\"; Dir::State::status \"/dev/null\"; Dir::Cache \"{folder}/cache\";
         Dir::Etc::sourcelist \"{folder}/sources\"; Dir::Etc::sourceparts \"-\"; APT::Architectures {{\"{architecture}\";}};\n"
    );
    fs::write(&config, text)?;
    Ok(config)
}

/// Builds a command of cargo, given as NAME@VERSION, if it is missing.
pub fn install_crate(name: &str) -> Result<()> {
    let command = name.split('@').next().unwrap_or(name);
    if has(command) {
        return Ok(());
    }
    say(format!("building {command}"));
    run(Command::new("cargo").args(["install", "--locked", "--quiet", name]))
}

/// Whether a command is in the PATH.
pub fn has(command: &str) -> bool {
    let mut which = Command::new("sh");
    which.args(["-c", "command -v \"$1\"", "sh", command]).stdout(Stdio::null());
    which.status().is_ok_and(|status| status.success())
}

/// Ends with one line unless root runs this.
pub fn want_root(reason: &str) -> Result<()> {
    // SAFETY: a system call.
    match unsafe { libc::geteuid() } {
        0 => Ok(()),
        _ => bail!("this wants root, {reason}"),
    }
}
