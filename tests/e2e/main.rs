//! What `scripts/e2e` runs: checks of pause with the container runtimes and the kubelet of a Kubernetes node.
//!
//! Three words: a *node* is a container runtime with a CRI endpoint, and what Kubernetes adds to it. A *container
//! environment* is a set of namespaces and control groups in which a node runs beside others. A *machine* is a virtual
//! machine that is booted for a node; this program runs in it, too.
//!
//! A suite has many checks. A check is a closure that panics if it fails, and returns its evidence.

mod bundle;
mod cluster;
mod cri;
mod hundred;
mod images;
mod kernels;
mod kubelet;
mod machine;
mod node;
mod pod;
mod report;
mod runtimes;
mod signed;
mod soak;
mod switch;
mod work;

use std::process::ExitCode;
use std::sync::Mutex;

use xtask::options::E2e;

use harness::Folder;
use harness::programs::root;
use images::Images;
use node::{Node, Runtime};
use report::Report;
use work::{PAUSE, Work};

/// A title, and what checks.
type Suite = (String, Box<dyn Fn(&Work, &Images, &mut Report)>);

fn main() -> ExitCode {
    harness::sweep::sweep();
    let options = std::env::args().nth(1).expect("scripts/e2e gives the options");
    let options: E2e = serde_json::from_str(&options).expect("the options");
    let logs = options.report.clone().unwrap_or(root().join("target/e2e/logs"));
    std::fs::create_dir_all(&logs).expect("a folder for logs");
    let work = Work { folder: Folder::for_all("e2e"), logs, soak: options.soak, kernels: Mutex::default() };
    if options.suites.iter().any(|suite| suite == "kernels") {
        *work.kernels.lock().expect("the machines") = Some(kernels::boot());
    }
    println!("the images of the pods, and a C pause beside ours; logs in {}", work.logs.display());
    let images = Images::new(&work);
    let before = kernel_settings();
    let mut report = Report::new(options.report.as_deref());
    for (title, check) in options.suites.iter().flat_map(|name| of(name)) {
        report.suite(&title, |report| check(&work, &images, report));
    }
    // A machine that was booted for the node keeps them to its end.
    if !work::on_machine() {
        report.suite("afterwards", |report| {
            report.check("the kernel's settings that a kubelet makes are as before", || {
                assert_eq!(kernel_settings(), before);
            });
        });
    }
    println!("logs: {}", work.logs.display());
    report.end()
}

/// The kernel settings that a kubelet changes, which are those of the whole machine.
fn kernel_settings() -> String {
    let line = "cd /proc/sys && cat kernel/panic kernel/panic_on_oops kernel/keys/root_max* vm/overcommit_memory vm/panic_on_oom";
    harness::run("sh", &["-ec", line])
}

fn titled(title: &str, check: impl Fn(&Work, &Images, &mut Report) + 'static) -> Suite {
    (title.into(), Box::new(check))
}

/// The checks of a node that is made for them.
fn on(title: &str, runtime: Runtime, check: fn(&Node, &mut Report)) -> Suite {
    titled(title, move |work, images, report| {
        let node = images.node(runtime, PAUSE, work);
        report.versions(&node.programs);
        check(&node, report);
    })
}

/// pause-switch on a node with this runtime.
fn pause_switch(name: &str, runtime: Runtime) -> Suite {
    titled(&format!("pause-switch on {name}"), move |work, images, report| switch::check(runtime, work, images, report))
}

/// What a suite of `scripts/e2e`, or of a machine that it boots, consists of.
fn of(suite: &str) -> Vec<Suite> {
    use Runtime::{Containerd1, Containerd2, Crio};
    match suite {
        "cri" => vec![on("containerd 2.x", Containerd2, cri::check), on("containerd 1.x", Containerd1, cri::check)],
        "kubelet" => vec![on("a kubelet on containerd", Containerd2, kubelet::check)],
        "crio" => vec![on("CRI-O", Crio, cri::check), on("a kubelet on CRI-O", Crio, kubelet::check)],
        "switch" => vec![
            pause_switch("containerd 2.x", Containerd2),
            pause_switch("containerd 1.x", Containerd1),
            pause_switch("CRI-O", Crio),
            titled("pause-switch on a stand-in for k3s", switch::on_k3s),
        ],
        "signed" => vec![titled("a signed release", signed::check)],
        "hundred" => vec![titled("a hundred pods on a node", hundred::check)],
        "kernels" => vec![titled("virtual machines with other kernels", |work, _, report| {
            kernels::check(work.kernels.lock().expect("the machines").take(), report)
        })],
        "runtimes" => runtimes::NAMES
            .map(|name| {
                titled(&format!("OCI runtime {name}"), move |work, _, report| runtimes::check(name, work, report))
            })
            .into(),
        "cluster" => vec![titled("a cluster by kubeadm", cluster::check)],
        "machine" => vec![titled("a machine with systemd", |work, _, report| machine::check_host(work, report))],
        "machine-arm64" => {
            vec![titled("a machine with systemd, arm64", |work, _, report| machine::check_arm64(work, report))]
        }
        "soak" => vec![titled("a soak", soak::check)],
        // The suites of a machine.
        "node" => vec![on("containerd 2.x, and a kubelet", Containerd2, |node, report| {
            cri::check(node, report);
            kubelet::check(node, report);
        })],
        "criu" => vec![titled("CRIU", |work, _, report| runtimes::criu(work, report))],
        "air-gapped" => vec![pause_switch("containerd 1.x, without a registry", Containerd1)],
        "before-reboot" => vec![titled("a node before its reboot", switch::before_reboot)],
        "after-reboot" => vec![titled("a node after its reboot", switch::after_reboot)],
        _ => panic!("scripts/e2e knows the suites"),
    }
}
