//! Builds the parts of a Kubernetes node into target/e2e/bin, and the disk of a virtual machine that is
//! a node. What was built before takes seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use xtask::cargo::{linker_variable, rustup_has};
use xtask::platforms::Platform;
use xtask::project::{debian_mirror, output, root, say};

use crate::setup::has;
use crate::test::build_program;

/// A program of tests/e2e/programs.toml, which explains the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    groups: Vec<String>,
    #[serde(default)]
    module: String,
    package: String,
    name: Option<String>,
    #[serde(default = "build_command")]
    command: Vec<String>,
    #[serde(default)]
    cgo: bool,
    #[serde(default)]
    experiment: String,
}

fn build_command() -> Vec<String> {
    vec!["build".into()]
}

/// The folder of the programs for this machine.
pub fn bin() -> PathBuf {
    root().join("target/e2e/bin")
}

/// Runs go on a module of tests/e2e.
fn go(module: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Result<String> {
    if !has("go") {
        bail!(
            "go is missing, to build the parts of a node: install Go 1.26 or later as https://go.dev/doc/install says"
        );
    }
    let mut go = Command::new("go");
    go.args(arguments).current_dir(root().join("tests/e2e").join(module));
    let done = output(go.envs(variables.iter().copied()));
    done.map_err(|error| anyhow!("{error}; is there a network, or a proxy in GOPROXY?"))
}

/// A field of what go knows of a module, such as its version or the folder with its source.
fn module(folder: &str, name: &str, field: &str) -> Result<String> {
    go(folder, &[], &["list", "-m", "-f", &format!("{{{{.{field}}}}}"), name])
}

/// What the linker sets in programs of Kubernetes and gVisor, as their own builds do; kubeadm compares
/// the versions.
fn versions() -> Result<String> {
    let kubernetes = module("", "k8s.io/kubernetes", "Version")?;
    let mut numbers = kubernetes.trim_start_matches('v').split('.');
    let mut number = || numbers.next().context("a version of Kubernetes");
    let (major, minor) = (number()?, number()?);
    let git = "-X k8s.io/component-base/version.git";
    let gvisor = module("gvisor", "gvisor.dev/gvisor", "Version")?;
    Ok(format!(
        "-s -w {git}Version={kubernetes} {git}Major={major} {git}Minor={minor} \
         -X gvisor.dev/gvisor/runsc/version.version={gvisor}"
    ))
}

/// Builds the programs of some groups. What is installed may be of any version, so it is used only to
/// speak to a runtime that runs already.
fn build_programs(groups: &[&str], bin: &Path, machine: Option<&Platform>) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        program: Vec<Program>,
    }
    let file = fs::read_to_string(root().join("tests/e2e/programs.toml"))?;
    let file: File = toml::from_str(&file).context("tests/e2e/programs.toml")?;
    fs::create_dir_all(bin)?;
    let versions = versions()?;
    for program in &file.program {
        let name = program.package.rsplit('/').next().unwrap_or_default();
        let name = program.name.as_deref().unwrap_or(name);
        let wanted = program.groups.iter().any(|group| groups.contains(&group.as_str()));
        if !wanted || (groups == ["client"] && has(name)) {
            continue;
        }
        if !fs::exists(bin.join(name))? {
            say(format!("building {name}"));
        }
        let path = bin.join(name).display().to_string();
        let mut arguments: Vec<_> = program.command.iter().map(String::as_str).collect();
        arguments.extend(["-buildvcs=false", "-ldflags", &versions, "-o", &path, &program.package]);
        let mut variables = vec![("CGO_ENABLED", if program.cgo { "1" } else { "0" })];
        variables.push(("GOEXPERIMENT", program.experiment.as_str()));
        variables.extend(machine.map(|machine| ("GOARCH", machine.architecture.as_str())));
        go(&program.module, &variables, &arguments)?;
    }
    Ok(())
}

/// Builds some groups of programs for this machine.
pub fn build(groups: &[&str]) -> Result<()> {
    let bin = bin();
    build_programs(groups, &bin, None)?;
    if groups.contains(&"node") && !bin.join("pinns").exists() {
        let source = module("crio", "github.com/cri-o/cri-o", "Dir")?;
        let line = "gcc -O2 -static -o \"$1\" \"$2\"/pinns/src/*.c";
        let mut gcc = Command::new("sh");
        output(gcc.args(["-c", line, "sh"]).arg(bin.join("pinns")).arg(source)).context("pinns")?;
    }
    if groups.contains(&"runtimes") && !bin.join("youki").exists() {
        say("building youki");
        let new = tempfile::tempdir_in(&bin)?;
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--quiet", "--locked", "--no-default-features"]);
        output(cargo.args(["--features", "v1,v2", "youki@0.7.0", "--root"]).arg(new.path()))?;
        fs::rename(new.path().join("bin/youki"), bin.join("youki"))?;
    }
    Ok(())
}

/// Builds containerd, a kubelet and the program of the checks for a machine, into
/// target/e2e/machine/ARCHITECTURE.
pub fn build_for_machine(platform: &Platform) -> Result<()> {
    let bin = root().join("target/e2e/machine").join(&platform.architecture);
    build_programs(&["machine"], &bin, Some(platform))?;
    say("building the checks");
    // Static, so that the C library of the machine does not matter.
    let mut variables = vec![("RUSTFLAGS".to_string(), "-Ctarget-feature=+crt-static".to_string())];
    if !rustup_has(platform)? {
        variables.push(("RUSTC".into(), "/usr/bin/rustc".into()));
    }
    if !platform.is_host() {
        let cpu = platform.target.split('-').next().unwrap_or_default();
        variables.push((linker_variable(&platform.target), format!("{cpu}-linux-gnu-gcc")));
    }
    let options = ["--target", &platform.target, "--test", "e2e"];
    fs::copy(build_program("e2e", &options, &variables)?, bin.join("e2e"))?;
    let target = platform.switch.as_deref().context("a target for pause-switch")?;
    fs::copy(crate::switch::build_static(platform, target)?, bin.join("pause-switch"))?;
    Ok(())
}

/// What the disk of a node has of Debian 13.
const PACKAGES: &str = "initramfs-tools,zstd,systemd-sysv,dbus,udev,kmod,mount,apparmor,\
    iproute2,iptables,nftables,procps,curl,ca-certificates,jq,util-linux-extra,\
    containerd,runc,crun,podman,netavark,passt,containernetworking-plugins,criu,\
    umoci,busybox-static,nginx-light,gcc,libc6-dev"; // for the images of the pods

/// Makes the disk of a virtual machine that is a node: Debian 13 with systemd, control groups of
/// version 2, AppArmor, and the parts of a node that Debian has. Nothing is done if it is there.
///
///   target/machine/node-ARCHITECTURE/{disk,vmlinuz,initrd.img}
///
/// The disk mounts two folders of the host by 9p, with the tags "project" and "work", at the paths
/// that the kernel's command line gives, and runs /work/start as a unit of systemd. Its output goes
/// to the virtio console.
pub fn disk(platform: &Platform) -> Result<()> {
    let Platform { architecture, debian, .. } = platform;
    let folder = root().join("target/machine").join(format!("node-{architecture}"));
    if folder.join("disk").exists() {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    let new = tempfile::tempdir_in(&folder)?;
    let tree = new.path().join("root");
    say(format!(
        "making the disk of the node {architecture} with mmdebstrap; two minutes, or a quarter of an hour for another architecture"
    ));
    let _binfmt = Binfmt::register(platform)?;
    // The Release file of an old copy of the mirror may have expired.
    let source = format!("deb [check-valid-until=no] {} trixie main", debian_mirror()?);
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=apt", &format!("--architectures={debian}")]);
    mmdebstrap.arg(format!("--include=linux-image-{debian},{PACKAGES}")).arg("trixie");
    output(mmdebstrap.arg(&tree).arg(source))?;
    let make = root().join("tests/e2e/machine/make-disk");
    output(Command::new(make).arg(&tree).arg(&folder)).map(drop)
}

/// Has the kernel run programs of another architecture by qemu-user, while the packages of a disk
/// are configured.
struct Binfmt {
    entry: Option<PathBuf>,
    mounted: bool,
}

impl Binfmt {
    fn register(platform: &Platform) -> Result<Self> {
        if output(Command::new("arch-test").arg(&platform.debian)).is_ok() {
            return Ok(Self { entry: None, mounted: false });
        }
        let folder = Path::new("/proc/sys/fs/binfmt_misc");
        let mut binfmt = Self { entry: None, mounted: !folder.join("register").exists() };
        if binfmt.mounted {
            output(Command::new("mount").args(["-t", "binfmt_misc", "none"]).arg(folder))?;
        }
        let name = format!("qemu-{}", platform.qemu_user);
        let line = fs::read(Path::new("/usr/lib/binfmt.d").join(format!("{name}.conf")))?;
        fs::write(folder.join("register"), line)?;
        binfmt.entry = Some(folder.join(name));
        Ok(binfmt)
    }
}

impl Drop for Binfmt {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            let _ = fs::write(entry, "-1");
        }
        if self.mounted {
            let _ = output(Command::new("umount").arg("/proc/sys/fs/binfmt_misc"));
        }
    }
}
