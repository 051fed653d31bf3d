//! What `scripts/e2e` runs: checks of pause with the container runtimes and the kubelet of a
//! Kubernetes node.
//!
//! Three words: a *node* is a container runtime with a CRI endpoint, and what Kubernetes adds to it. A
//! *cell* is a set of namespaces and control groups in which a node runs beside others. A *machine* is
//! a virtual machine that is booted for a node; this program runs in it, with `--machine`.
//!
//! Each part is a test of libtest-mimic, and has many checks. A check is a closure that panics if it
//! fails, and returns its evidence.

mod bundle;
mod cluster;
mod command;
mod conformance;
mod cri;
mod critest;
mod hundred;
mod images;
mod kernels;
mod kind;
mod kubelet;
mod machine;
mod node;
mod pod;
mod podman;
mod report;
mod runtimes;
mod scanners;
mod signed;
mod soak;
mod switch;
mod workflows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{Parser, Subcommand};
use libtest_mimic::Trial;
use xtask::options::{DEFAULT, E2e, Soak};

use harness::Folder;
use harness::cell::left_behind;
use harness::programs::root;
use harness::supervise::supervise;
use images::{Images, PAUSE};
use node::{Node, Runtime};
use report::Report;

/// What scripts/e2e or scripts/soak was asked for.
#[derive(Parser)]
struct Arguments {
    /// This is a machine that was booted for the node: daemons are units of its systemd, and the parts
    /// are its own.
    #[arg(long)]
    machine: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    E2e(E2e),
    Soak(Soak),
}

/// What all parts share: a folder, which is removed at the end, the folder for logs, and how long and
/// from which random number a soak begins.
pub struct Work {
    pub folder: Folder,
    pub logs: PathBuf,
    pub hours: u64,
    pub seed: Option<u64>,
}

/// What checks a part.
type Check = Box<dyn Fn(&Work, &Images, &mut Report) + Send + Sync>;

fn main() -> ExitCode {
    let Arguments { machine, command } = Arguments::parse();
    let (mut options, hours, seed) = match command {
        Command::E2e(options) => (options, 0, None),
        Command::Soak(Soak { hours, seed, output }) => {
            (E2e { output, parts: vec!["soak".into()], ..E2e::default() }, hours, seed)
        }
    };
    if let Some(parts) = &machine {
        node::on_machine();
        options.parts = parts.split_whitespace().map(String::from).collect();
    } else if options.parts.is_empty() && options.endpoint.is_none() {
        options.parts = DEFAULT.iter().map(|part| part.to_string()).collect();
    }
    let logs = options.output.logs.take().unwrap_or(root().join("target/e2e/logs"));
    let logs = std::path::absolute(logs).expect("a path");
    std::fs::create_dir_all(&logs).expect("a folder for logs");
    let endpoint = options.endpoint.clone();
    // Cells end with this program. The pods of another's node do not.
    supervise(
        || run(options, machine.is_some(), |folder| Work { folder, logs, hours, seed }),
        || endpoint.iter().for_each(|endpoint| node::clean(endpoint)),
    )
}

fn run(options: E2e, machine: bool, work: impl FnOnce(Folder) -> Work) -> ExitCode {
    let before = kernel_settings();
    let work = work(Folder::for_all("e2e"));
    println!("the images of the pods, and a C pause beside ours; logs in {}", work.logs.display());
    let images = Images::new(&work);
    let mut parts: Vec<(String, Check)> = options.parts.iter().flat_map(|name| of(name)).collect();
    if let Some(endpoint) = options.endpoint {
        parts.push((format!("the node at {endpoint}"), at(endpoint)));
    } else {
        parts.push(("afterwards".into(), afterwards(machine, before)));
    }
    let shared = Arc::new((work, images, Mutex::new(Vec::new())));
    let trial = |(title, check): (String, Check)| {
        let shared = Arc::clone(&shared);
        Trial::test(title.clone(), move || {
            let (work, images, all) = &*shared;
            let suites = Report::of(&title, |report| check(work, images, report));
            let [_, failed, _] = report::totals(&suites);
            all.lock().expect("the results").extend(suites);
            if failed > 0 { Err(format!("{failed} checks failed").into()) } else { Ok(()) }
        })
    };
    // One after another: each of them keeps the machine busy.
    let arguments =
        libtest_mimic::Arguments { test_threads: Some(1), ..libtest_mimic::Arguments::default() };
    let trials = parts.into_iter().map(trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let suites = std::mem::take(&mut *shared.2.lock().expect("the results"));
    let [passed, failed, left_out] = report::totals(&suites);
    if let Some(folder) = options.output.report {
        report::write(&folder, &suites);
    }
    println!("logs: {}", shared.0.logs.display());
    report::left_out(&suites);
    println!("{passed} passed, {failed} failed, {left_out} left out");
    match conclusion.has_failed() || (options.all && left_out > 0) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// The checks of a node whose runtime runs already.
fn at(endpoint: String) -> Check {
    Box::new(move |work, images, report| {
        let node = Node::at(&endpoint, work, images);
        report.versions(&node.programs);
        cri::check(&node, report);
    })
}

/// What must be as it was.
fn afterwards(machine: bool, before: String) -> Check {
    Box::new(move |_, _, report| {
        report.check("no mount, control group or file has the name of a cell", || {
            let left = left_behind(&format!("pause-{}-cell", std::process::id()));
            assert!(left.is_empty(), "{left:?}");
        });
        // A machine that was booted for the node goes on with them to its end.
        if !machine {
            report.check("the kernel's settings that a kubelet makes are as before", || {
                assert_eq!(kernel_settings(), before);
            });
        }
    })
}

/// The kernel settings that a kubelet changes, which are those of the whole machine.
fn kernel_settings() -> String {
    let line = "cd /proc/sys && cat kernel/panic kernel/panic_on_oops kernel/keys/root_max* vm/overcommit_memory vm/panic_on_oom";
    harness::run("sh", &["-ec", line])
}

/// Whether the containerd of this machine has version 1: Debian 12 has 1.6, another machine may
/// have 2.x.
fn has_containerd1() -> bool {
    harness::run("containerd", &["--version"]).contains(" 1.")
}

/// A part with a title.
fn titled<F>(title: &str, check: F) -> (String, Check)
where
    F: Fn(&Work, &Images, &mut Report) + Send + Sync + 'static,
{
    (title.into(), Box::new(check))
}

/// The checks of a node that is made for them.
fn on(title: &str, runtime: Runtime, check: fn(&Node, &mut Report)) -> (String, Check) {
    titled(title, move |work, images, report| {
        if runtime == Runtime::Containerd1 && !has_containerd1() {
            return report.left_out("containerd 1.x: another version is installed");
        }
        let node = Node::new(runtime, PAUSE, work, images);
        report.versions(&node.programs);
        check(&node, report);
    })
}

/// pause-switch on a node with this runtime.
fn pause_switch(name: &str, runtime: Runtime) -> (String, Check) {
    titled(&format!("pause-switch on {name}"), move |work, images, report| {
        if runtime == Runtime::Containerd1 && !has_containerd1() {
            return report.left_out("containerd 1.x: another version is installed");
        }
        switch::check(runtime, work, images, report);
    })
}

/// What a part of `scripts/e2e`, or of a machine that it boots, consists of.
fn of(part: &str) -> Vec<(String, Check)> {
    use Runtime::{Containerd1, Containerd2, Crio};
    match part {
        "cri" => vec![
            on("containerd 2.x", Containerd2, cri::check),
            on("containerd 1.x", Containerd1, cri::check),
        ],
        "kubelet" => vec![on("a kubelet on containerd", Containerd2, kubelet::check)],
        "crio" => {
            vec![on("CRI-O", Crio, cri::check), on("a kubelet on CRI-O", Crio, kubelet::check)]
        }
        "existing" => vec![
            on("--endpoint of containerd", Containerd2, command::endpoint),
            on("--endpoint of CRI-O", Crio, command::endpoint),
        ],
        "switch" => vec![
            pause_switch("containerd 2.x", Containerd2),
            pause_switch("containerd 1.x", Containerd1),
            pause_switch("CRI-O", Crio),
            titled("pause-switch on a stand-in for k3s", switch::on_k3s),
            titled("pause-switch on a stand-in for k0s", switch::on_k0s),
        ],
        "signed" => vec![titled("a signed release", signed::check)],
        "scanners" => vec![titled("scanners and validators", scanners::check)],
        "kernels" => vec![titled("virtual machines with other kernels", kernels::check)],
        "machine" => vec![titled("a machine with systemd", machine::check_host)],
        "machine-arm64" => vec![titled("a machine with systemd, arm64", machine::check_arm64)],
        "cluster" => vec![titled("a cluster by kubeadm", cluster::check)],
        "kind" => vec![titled("a cluster of kind", kind::check)],
        "node-conformance" => {
            vec![titled("upstream's node conformance tests", conformance::check_node)]
        }
        "conformance" => vec![titled("upstream's conformance tests", conformance::check_all)],
        "runtimes" => runtimes::NAMES
            .map(|name| {
                titled(&format!("OCI runtime {name}"), move |work, _, report| {
                    runtimes::check(name, work, report);
                })
            })
            .into(),
        "soak" => vec![titled("a soak", soak::check)],
        "workflows" => vec![titled("the workflows in .github", workflows::check)],
        "refusals" => vec![titled("bad input", command::refusals)],
        "critest" => vec![titled("critest", critest::check)],
        "hundred" => vec![titled("a node's worth of pods", hundred::check)],
        "thousand" => vec![titled("a thousand pods on a node", hundred::check_thousand)],
        // The parts of a machine.
        "podman" => vec![titled("podman", podman::check)],
        "criu" => vec![titled("CRIU", |work, _, report| runtimes::criu(work, report))],
        "node" => vec![on("containerd 2.x, and a kubelet", Containerd2, |node, report| {
            cri::check(node, report);
            kubelet::check(node, report);
        })],
        "endpoint" => vec![on("--endpoint of Debian's containerd", Containerd1, command::endpoint)],
        "air-gapped" => vec![pause_switch("containerd 1.x, without a registry", Containerd1)],
        "cri-dockerd" => vec![titled(
            "pause-switch on a stand-in for cri-dockerd, with systemd",
            switch::on_cri_dockerd,
        )],
        "before-reboot" => vec![titled("a node before its reboot", switch::before_reboot)],
        "after-reboot" => vec![titled("a node after its reboot", switch::after_reboot)],
        "cell" => vec![titled("containerd 2.x in a cell", |work, images, report| {
            let node = Node::in_cell(Containerd2, PAUSE, work, images);
            report.versions(&node.programs);
            cri::check(&node, report);
        })],
        _ => panic!("scripts/e2e knows the parts"),
    }
}
