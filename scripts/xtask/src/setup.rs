//! What the commands need beside a compiler: Debian's packages, other tools, and kernels for virtual machines.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xtask::platforms::{Platform, platforms};
use xtask::project::{debian_mirror, output, root, run, say};

/// Installs Debian's packages. It fails unless root runs this.
pub fn packages() -> Result<()> {
    // SAFETY: a system call.
    match unsafe { libc::geteuid() } {
        0 => run(&mut Command::new(root().join("scripts/setup"))),
        _ => bail!("it must be run as root, for namespaces and control groups: run it with sudo"),
    }
}

/// Builds a command of cargo, given as NAME@VERSION, if it is missing.
pub fn install_crate(name: &str) -> Result<()> {
    let (command, version) = name.split_once('@').context("a version")?;
    let shown = Command::new("cargo").args([command.trim_start_matches("cargo-"), "--version"]).output()?;
    if String::from_utf8_lossy(&shown.stdout).contains(version) {
        return Ok(());
    }
    say(format!("building {command}"));
    run(Command::new("cargo").args(["install", "--locked", "--quiet", name]))
}

/// Puts a kernel of Debian and a busybox to the place where the tests look for them, for each machine that
/// `scripts/test` or `scripts/e2e kernels` boots:
///
///   target/machine/NAME/vmlinuz
///   target/machine/ARCHITECTURE/busybox
pub fn machines(by_test: bool) -> Result<()> {
    for platform in platforms() {
        for kernel in platform.booted(by_test) {
            let package = match kernel.package.contains(':') {
                true => kernel.package.to_string(),
                false => format!("{}:{}", kernel.package, platform.debian),
            };
            // On some architectures the file is not compressed. Newer releases have it in the folder of its modules.
            let kernel = (kernel.name, "vmlinuz", "boot/vmlinu[xz]-* usr/lib/modules/*/vmlinuz", kernel.suite);
            extract(platform, &package, kernel)?;
            let busybox = (platform.architecture, "busybox", "bin/busybox usr/bin/busybox", platform.kernels[0].suite);
            extract(platform, &format!("busybox-static:{}", platform.debian), busybox)?;
        }
    }
    Ok(())
}

/// Copies a file from a package of a release of Debian, which mmdebstrap extracts to a folder: the name of the machine,
/// that of the file, where the package has it, and the release.
fn extract(platform: &Platform, package: &str, (machine, file, places, suite): (&str, &str, &str, &str)) -> Result<()> {
    let folder = root().join("target/machine").join(machine);
    if folder.join(file).exists() {
        return Ok(());
    }
    say(format!("extracting {file} of {package} ({suite})"));
    fs::create_dir_all(&folder)?;
    let tree = tempfile::tempdir_in(&folder)?;
    let (name, architecture) = package.split_once(':').unwrap_or((package, platform.debian));
    let line = "cp $(ls -d $places 2>/dev/null | head -n 1) ../new && chmod 755 ../new && mv ../new ../$file";
    mmdebstrap(&["--variant=extract", &format!("--architectures={architecture}")], suite, name, tree.path())?;
    let mut copy = Command::new("sh");
    output(copy.args(["-ec", line]).current_dir(tree.path()).env("places", places).env("file", file)).map(drop)
}

/// Makes a root file system, or extracts packages, of a release of Debian in a folder.
pub fn mmdebstrap(options: &[&str], suite: &str, packages: &str, folder: &Path) -> Result<()> {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", &format!("--include={packages}")]).args(options);
    // The Release file of an old release has expired.
    let source = format!("deb [check-valid-until=no] {} {suite} main", debian_mirror()?);
    output(mmdebstrap.arg(suite).arg(folder).arg(source).stderr(Stdio::piped())).map(drop)
}
