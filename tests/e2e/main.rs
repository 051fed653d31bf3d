//! What `scripts/e2e` runs: pause on the real parts of a node, each runtime in a cell
//! of its own, or on a node that is there already. A check is a closure that asserts,
//! as a test does; what it returns is its evidence.
//!
//! Arguments: a folder with the root of the images in it, the folder for logs, the
//! endpoint or nothing, the file for the report or nothing, and the parts in order.

mod cri;
mod critest;
mod existing;
mod hundred;
mod images;
mod kubelet;
mod node;
mod pod;
mod refusals;
mod report;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use harness::cell::left_behind;
use images::Images;
use node::{Node, Runtime};
use report::Report;

/// Where this run keeps what it makes, to its end, and what it logs.
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
        for part in parts {
            run(part, &work, &images, &mut report);
        }
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
            report.check(
                "the kernel's settings that a kubelet makes are as before",
                || {
                    assert_eq!(kernel_settings(), before);
                    String::new()
                },
            );
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
    println!("logs: {logs}");
    report.end()
}

/// The settings of the kernel that a kubelet makes for the whole machine.
fn kernel_settings() -> String {
    let line = "cd /proc/sys && cat kernel/panic kernel/panic_on_oops kernel/keys/root_max* vm/overcommit_memory vm/panic_on_oom";
    harness::run("sh", &["-ec", line])
}

/// What does not hold is said in one line; all of it goes to a file.
fn log_panics(file: PathBuf) {
    let _ = std::fs::remove_file(&file);
    std::panic::set_hook(Box::new(move |panic| {
        let log = File::options().create(true).append(true).open(&file);
        let _ = writeln!(log.expect("a log"), "{panic}\n");
    }));
}

/// On SIGINT and SIGTERM the cells end, and with them all that is being done.
fn interruptible() {
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("handlers");
    std::thread::spawn(move || {
        for signal in signals.forever() {
            report::stop(signal);
            node::end_cells();
        }
    });
}

/// Runs one part, in cells of its own.
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
            // Debian's, unless the machine had another before.
            if harness::run("containerd", &["--version"]).contains(" 1.") {
                on("containerd 1.x", Runtime::Containerd1, cri::check);
            } else {
                println!("containerd 1.x: this machine has another");
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
        "refusals" => report.part("bad input", |report| refusals::check(work, report)),
        "critest" => report.part("critest", |report| critest::check(work, images, report)),
        "hundred" => report.part("a node's worth of pods", |report| {
            hundred::check(work, images, report)
        }),
        _ => panic!("scripts/e2e knows the parts"),
    }
}
