//! `scripts/e2e` and `scripts/soak`: what prepares the checks. What was built before takes seconds.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use xtask::cargo::{add_target, build_program, program_of_tests};
use xtask::options::{DEFAULT, E2e};
use xtask::platforms::{Platform, find, host};
use xtask::project::{output, root, run, say};

use crate::{build, image, setup};

/// The programs of a Kubernetes node, and those of a cluster, in the versions of the Go module tests/e2e.
const NODE: &str = "sigs.k8s.io/cri-tools/cmd/crictl k8s.io/kubernetes/cmd/kubelet
    github.com/containerd/containerd/v2/cmd/ctr github.com/containerd/containerd/v2/cmd/containerd
    github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2";
const CLUSTER: &str = "k8s.io/kubernetes/cmd/kubeadm k8s.io/kubernetes/cmd/kubectl
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
    k8s.io/kubernetes/cmd/kube-scheduler k8s.io/kubernetes/cmd/kube-proxy go.etcd.io/etcd/server/v3";

/// Prepares the suites and runs them. The program of the checks gets the options.
pub fn check(mut options: E2e) -> Result<()> {
    setup::packages()?;
    if options.suites.is_empty() {
        options.suites = DEFAULT.map(String::from).into();
    }
    if let Some(folder) = &mut options.report {
        fs::create_dir_all(&*folder).with_context(|| folder.display().to_string())?;
        *folder = fs::canonicalize(&*folder)?;
    }
    build::all()?;
    image::pack(&image::Options::default())?;
    let bin = root().join("target/e2e/bin");
    go(&bin, "", NODE, "", None)?;
    go(&bin, "", "github.com/opencontainers/runc", "seccomp", None)?;
    for suite in &options.suites {
        match suite.as_str() {
            "crio" | "switch" => crio(&bin)?,
            "signed" => go(&bin, "cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "", None)?,
            "kernels" => setup::machines(false)?,
            "runtimes" => go(&bin, "gvisor", "gvisor.dev/gvisor/runsc", "", None)?,
            "cluster" => go(&bin, "", CLUSTER, "", None)?,
            "machine" => machine(host())?,
            "machine-arm64" => machine(find("arm64")?)?,
            _ => (),
        }
    }
    say("running the checks");
    let e2e = build_program("e2e", &["--test", "e2e"], None, &[])?;
    let switch = build::switch(host(), None, &[])?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    run(program_of_tests(&e2e)?.arg(serde_json::to_string(&options)?).env("PAUSE_SWITCH", switch).env("PATH", path))
}

/// Builds programs of a Go module of tests/e2e into a folder. With tags they have C in them.
fn go(bin: &Path, module: &str, packages: &str, tags: &str, machine: Option<&Platform>) -> Result<()> {
    let folder = root().join("tests/e2e").join(module);
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.args(arguments).current_dir(&folder).env("CGO_ENABLED", if tags.is_empty() { "0" } else { "1" });
        go.envs(machine.map(|machine| ("GOARCH", machine.architecture)));
        let done = output(&mut go);
        done.map_err(|error| anyhow!("{error:#}: is Go 1.26 installed, and is there a network, or a proxy in GOPROXY?"))
    };
    let names: Vec<_> = packages.split_whitespace().map(|one| one.rsplit('/').next().unwrap_or(one)).collect();
    say(format!("building {} with Go", names.join(", ")));
    // As their own builds do; kubeadm compares the versions.
    let mut flags = "-s -w".to_string();
    if module.is_empty() {
        let version = go(&["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"])?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let set = "-X k8s.io/component-base/version.git";
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        flags += &format!(" {set}Version={version} {set}Major={major} {set}Minor={minor}");
    }
    fs::create_dir_all(bin)?;
    let to = format!("{}/", bin.display());
    let options = ["build", "-buildvcs=false", "-tags", tags, "-ldflags", &flags, "-o", &to];
    go(&[&options[..], &packages.split_whitespace().collect::<Vec<_>>()].concat()).map(drop)
}

/// Builds CRI-O, and pinns, which is a part of it in C.
fn crio(bin: &Path) -> Result<()> {
    let tags = "seccomp,containers_image_openpgp,exclude_graphdriver_btrfs";
    go(bin, "crio", "github.com/cri-o/cri-o/cmd/crio", tags, None)?;
    let line = "gcc -O2 -static -o $0/pinns $(go list -m -f '{{.Dir}}' github.com/cri-o/cri-o)/pinns/src/*.c";
    let mut gcc = Command::new("sh");
    output(gcc.args(["-ec", line]).arg(bin).current_dir(root().join("tests/e2e/crio"))).map(drop)
}

/// What the disk of a node has of Debian 13.
const PACKAGES: &str = "initramfs-tools,zstd,systemd-sysv,dbus,udev,kmod,mount,apparmor,\
    iproute2,iptables,nftables,procps,curl,ca-certificates,jq,util-linux-extra,\
    containerd,runc,crun,podman,netavark,passt,containernetworking-plugins,criu,\
    umoci,busybox-static,nginx-light,gcc,libc6-dev"; // for the images of the pods

/// Builds the programs that a virtual machine runs, and makes its disk: Debian 13 with systemd, control groups of
/// version 2, AppArmor, and the parts of a node that Debian has.
///
///   target/e2e/machine/ARCHITECTURE/PROGRAM
///   target/machine/node-ARCHITECTURE/{disk,vmlinuz,initrd.img}
///
/// The disk mounts two folders of the host by 9p, with the tags "project" and "work", at the paths that the kernel's
/// command line gives, and runs /work/start as a unit of systemd. Its output goes to the virtio console.
fn machine(platform: &Platform) -> Result<()> {
    let bin = root().join("target/e2e/machine").join(platform.architecture);
    go(&bin, "", NODE, "", Some(platform))?;
    let musl = platform.switch.context("a static target")?;
    add_target(musl)?;
    fs::copy(build_program("e2e", &["--test", "e2e"], Some(musl), &[])?, bin.join("e2e"))?;
    fs::copy(build::switch(platform, Some(musl), &[])?, bin.join("pause-switch"))?;
    let folder = root().join("target/machine").join(format!("node-{}", platform.architecture));
    if folder.join("disk").exists() {
        return Ok(());
    }
    say("making the disk with mmdebstrap: two minutes, or a quarter of an hour for another architecture");
    fs::create_dir_all(&folder)?;
    let new = tempfile::tempdir_in(&folder)?;
    let tree = new.path().join("root");
    let packages = format!("linux-image-{},{PACKAGES}", platform.debian);
    // Programs of another architecture are run by qemu-user, while its packages are configured.
    let line = "[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        arch-test $1 >/dev/null || cat /usr/lib/binfmt.d/qemu-$2.conf >/proc/sys/fs/binfmt_misc/register";
    if !platform.is_host() {
        output(Command::new("sh").args(["-ec", line, "sh", platform.debian, platform.qemu.user]))?;
    }
    setup::mmdebstrap(&["--variant=apt", &format!("--architectures={}", platform.debian)], "trixie", &packages, &tree)?;
    output(Command::new(root().join("tests/e2e/machine/make-disk")).arg(&tree).arg(&folder)).map(drop)
}
