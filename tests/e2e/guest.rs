//! What `scripts/e2e machine` adds to the other checks inside the machine that it boots: podman
//! with crun, and CRIU, under systemd.

use crate::Work;
use crate::images::{Images, PAUSE};
use crate::node::{Node, Runtime, surroundings};
use crate::report::Report;
use crate::{cri, existing, kubelet, runtimes, switch};
use harness::programs::root;
use harness::until;

/// Whether this program runs in such a machine, of which everything is its own.
pub fn here() -> bool {
    std::env::var_os("PAUSE_MACHINE").is_some()
}

/// Runs one of the parts that such a machine has.
pub fn run(part: &str, work: &Work, images: &Images, report: &mut Report) {
    match part {
        "podman" => report.part("podman", |report| podman(images, report)),
        "criu" => report.part("CRIU", |report| criu(work, report)),
        "node" => report.part("containerd 2.x, and a kubelet", |report| {
            let node = Node::new(Runtime::Containerd2, PAUSE, work, images);
            report.versions(&node.parts);
            cri::check(&node, report);
            kubelet::check(&node, report);
        }),
        "existing" => report.part("Debian's containerd as a node that exists", |report| {
            let node = Node::new(Runtime::Containerd1, PAUSE, work, images);
            report.versions(&node.parts);
            existing::check(&node, report);
        }),
        "switch" => switch::part("containerd 1.x", Runtime::Containerd1, work, images, report),
        "cell" => report.part("containerd 2.x in a cell, on version 2 alone", |report| {
            let node = Node::in_cell(Runtime::Containerd2, PAUSE, work, images);
            report.versions(&node.parts);
            cri::check(&node, report);
        }),
        _ => panic!("machine.rs knows the parts"),
    }
}

/// The command line of this program for a runtime that runs already, as scripts/e2e would start
/// it: a shell command, as the machine has no cargo.
pub fn program(endpoint: &str, logs: &str) -> String {
    let program = std::env::current_exe().expect("this program");
    format!(
        "mkdir -p {logs}; folder=$(mktemp -d); {} $folder {logs} {endpoint} ''",
        program.display()
    )
}

fn sh(line: &str) -> String {
    harness::run("sh", &["-ec", line]).trim().to_string()
}

/// The first line of what a program says of its version.
fn version(program: &str) -> String {
    sh(&format!("{program} --version | head -n1")).replace(" version", "")
}

/// A pod of podman with our infra image, on control groups of systemd.
pub fn podman(images: &Images, report: &mut Report) {
    let mut versions = vec![version("podman"), version("crun")];
    versions.extend(surroundings("systemd"));
    report.versions(&versions);
    let archive = root().join("dist/pause.oci.tar");
    let podman = "podman --cgroup-manager systemd --runtime crun";
    sh(&format!(
        "{podman} load --quiet --input {}",
        archive.display()
    ));
    images.load(podman, &["web", "app-1"]);
    report.check("a pod of nginx and an application, on a published port", || {
        sh(&format!(
            "{podman} pod create --name web --infra-image {PAUSE} --infra-name infra --share pid,net,ipc,uts -p 8080:80
             {podman} run --detach --pod web localhost/e2e:web
             {podman} run --detach --pod web --name app localhost/e2e:app-1"
        ));
        until("nginx answers", || {
            let page = std::process::Command::new("curl").args(["--silent", "http://127.0.0.1:8080/"]).output();
            (page.expect("curl").stdout == b"application 1\n").then_some(())
        });
        assert_eq!(sh(&format!("{podman} exec app cat /proc/1/comm")), "pause");
        let group = sh(&format!("{podman} inspect --format '{{{{.State.CgroupPath}}}}' infra"));
        assert!(group.contains(".slice") && group.contains(".scope"), "{group}");
        let pid = sh(&format!("{podman} inspect --format '{{{{.State.Pid}}}}' infra"));
        let label = sh(&format!("cat /proc/{pid}/attr/apparmor/current"));
        format!("{group}, AppArmor: {label}")
    });
    report.check("a stop ends pause with 0", || {
        sh(&format!("{podman} pod stop web"));
        let code = sh(&format!(
            "{podman} inspect --format '{{{{.State.ExitCode}}}}' infra"
        ));
        assert_eq!(code, "0");
        let said = sh(&format!("{podman} logs infra 2>&1"));
        sh(&format!("{podman} pod rm --force web"));
        said
    });
}

/// pause is dumped to files, killed, and restored from them by CRIU.
pub fn criu(work: &Work, report: &mut Report) {
    let runtimes = runtimes::all();
    let runc = runtimes
        .iter()
        .find(|one| one.name == "runc")
        .expect("runc");
    let mut versions = vec![
        sh("criu --version | sed 's/Version: /CRIU /'"),
        runc.version(),
    ];
    versions.extend(surroundings("cgroupfs"));
    report.versions(&versions);
    report.check(
        "CRIU dumps and restores it, with an orphan, and SIGTERM after it",
        || runtimes::restored(work, runc),
    );
}
