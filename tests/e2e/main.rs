//! What `scripts/e2e` runs: checks of pause with the container runtimes and the kubelet of a
//! Kubernetes node. Each runtime runs in a cell of its own, or is one that this machine runs
//! already. A check is a closure that panics if it fails, and returns its evidence.
//!
//! Arguments: a folder with the root filesystem of the images, the folder for logs, the CRI
//! endpoint or an empty string, the file for the report or an empty string, and the parts.

mod bundle;
mod cluster;
mod conformance;
mod cri;
mod critest;
mod existing;
mod guest;
mod hundred;
mod images;
mod kernels;
mod kubelet;
mod machine;
mod node;
mod pod;
mod refusals;
mod report;
mod runtimes;
mod signed;
mod soak;
mod switch;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use harness::cell::left_behind;
use harness::programs::HOST;
use images::Images;
use node::{Node, Runtime};
use report::Report;

/// The folders of this run: one for its own files, which is removed at the end, and one for
/// logs.
pub struct Work {
    pub folder: PathBuf,
    pub logs: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, logs, endpoint, page, parts @ ..] = &arguments[..] else {
        panic!("scripts/e2e runs this");
    };
    let work = Work {
        folder: folder.into(),
        logs: logs.into(),
    };
    let mut report = Report::new();
    log_panics(work.logs.join("failures.log"));
    interruptible();
    println!("the images of the pods, and a C pause beside ours");
    let images = Images::new(&work);
    if endpoint.is_empty() {
        let before = kernel_settings();
        let run = if guest::here() { guest::run } else { run };
        for part in parts {
            report.runs(part);
            run(part, &work, &images, &mut report);
        }
        report.runs("");
        report.part("afterwards", |report| {
            report.check(
                "no mount, control group or file has the name of a cell",
                || {
                    let names = node::names_of_cells();
                    let left: Vec<_> = names.iter().flat_map(|name| left_behind(name)).collect();
                    assert!(left.is_empty(), "{left:?}");
                    format!("{} cells", names.len())
                },
            );
            // A machine that was booted for the node goes on with them to its end.
            if !guest::here() {
                report.check(
                    "the kernel's settings that a kubelet makes are as before",
                    || {
                        assert_eq!(kernel_settings(), before);
                        String::new()
                    },
                );
            }
        });
    } else {
        report.part(&format!("the node at {endpoint}"), |report| {
            let node = Node::here(endpoint, &work, &images);
            report.versions(&node.parts);
            cri::check(&node, report);
        });
    }
    if !page.is_empty() {
        report.write(page);
        println!("the report: {page}");
    }
    if std::env::var_os("PAUSE_PAGE").is_some() {
        report.publish();
    }
    println!("logs: {logs}");
    report.end()
}

/// The kernel settings that a kubelet changes, which are those of the whole machine.
fn kernel_settings() -> String {
    let line = "cd /proc/sys && cat kernel/panic kernel/panic_on_oops kernel/keys/root_max* vm/overcommit_memory vm/panic_on_oom";
    harness::run("sh", &["-ec", line])
}

/// Writes each panic to a file. The report shows its first line only.
fn log_panics(file: PathBuf) {
    let _ = std::fs::remove_file(&file);
    std::panic::set_hook(Box::new(move |panic| {
        let log = File::options().create(true).append(true).open(&file);
        let _ = writeln!(log.expect("a log"), "{panic}\n");
    }));
}

/// SIGINT and SIGTERM end all cells and machines; a check that is running then fails, and the run ends.
fn interruptible() {
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("handlers");
    std::thread::spawn(move || {
        for signal in signals.forever() {
            report::stop(signal);
            node::end_all();
        }
    });
}

/// Whether the containerd of this machine has version 1: Debian 12 has 1.6, another machine may
/// have 2.x.
fn has_containerd1() -> bool {
    harness::run("containerd", &["--version"]).contains(" 1.")
}

/// Runs one part, each runtime in a new cell.
fn run(part: &str, work: &Work, images: &Images, report: &mut Report) {
    let mut on = |title: &str, runtime, check: fn(&Node, &mut Report)| {
        report.part(title, |report| {
            let node = Node::new(runtime, images::PAUSE, work, images);
            report.versions(&node.parts);
            check(&node, report);
        });
    };
    match part {
        "cri" => {
            on("containerd 2.x", Runtime::Containerd2, cri::check);
            if has_containerd1() {
                on("containerd 1.x", Runtime::Containerd1, cri::check);
            } else {
                report.left_out("containerd 1.x: another version is installed");
            }
        }
        "kubelet" => on(
            "a kubelet on containerd",
            Runtime::Containerd2,
            kubelet::check,
        ),
        "crio" => {
            on("CRI-O", Runtime::Crio, cri::check);
            on("a kubelet on CRI-O", Runtime::Crio, kubelet::check);
        }
        "existing" => {
            on(
                "a node of containerd",
                Runtime::Containerd2,
                existing::check,
            );
            on("a node of CRI-O", Runtime::Crio, existing::check);
        }
        "switch" => {
            switch::part("containerd 2.x", Runtime::Containerd2, work, images, report);
            if has_containerd1() {
                switch::part("containerd 1.x", Runtime::Containerd1, work, images, report);
            } else {
                report.left_out("README's recipe for containerd 1.x: another version is installed");
            }
            switch::part("CRI-O", Runtime::Crio, work, images, report);
        }
        "signed" => report.part("signatures on CRI-O", |report| {
            signed::check(work, images, report)
        }),
        "kernels" => report.part("virtual machines with other kernels", kernels::check),
        "machine" => machine::check(&HOST, work, report),
        "machine-arm64" => machine::check("arm64", work, report),
        "cluster" => report.part("a cluster by kubeadm", |report| {
            cluster::check(work, images, report)
        }),
        "node-conformance" => report.part("upstream's node conformance tests", |report| {
            conformance::check(conformance::NODE, work, images, report)
        }),
        "conformance" => report.part("upstream's conformance tests", |report| {
            conformance::check(conformance::ALL, work, images, report)
        }),
        "runtimes" => runtimes::check(work, report),
        "soak" => report.part("a soak", |report| soak::check(work, images, report)),
        "refusals" => report.part("bad input", |report| refusals::check(work, report)),
        "critest" => report.part("critest", |report| critest::check(work, images, report)),
        "hundred" => report.part("a node's worth of pods", |report| {
            hundred::check(work, images, report)
        }),
        _ => panic!("scripts/e2e knows the parts"),
    }
}
