//! Every execution of the files in `dist/`, proven by `scripts/prove`; and that it refuses files that depart from the
//! contract.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use harness::checkout::Checkout;
use harness::programs::{Platform, dist, root};
use harness::{Folder, run, text};

fn prove(arguments: &[&str]) -> Output {
    Command::new(root().join("scripts/prove")).args(arguments).output().expect("scripts/prove")
}

pub fn is_proven(platform: &'static Platform) {
    let output = prove(&[platform.architecture]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("proven in "), "{output:?}");
    eprint!("{stdout}");
}

/// Asserts that a file for amd64 is not proven, and why.
fn departs(file: &Path, why: &str) {
    let output = prove(&[&format!("amd64={}", text(file))]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && stdout.contains(why), "{why}: {output:?}");
}

pub fn nothing_that_departs_is_proven() {
    let (checkout, folder) = (Checkout::new("departs"), Folder::new("departs"));
    let main = checkout.path().join("src/main.rs");
    let ours = fs::read_to_string(&main).expect("src/main.rs");
    for (from, to, why) in [
        ("exit(42)", "exit(43)", "exit_group(43), and not exit_group(42)"),
        ("KernelSigSet::all()", "KernelSigSet::empty()", "rt_sigaction(with other"),
        (" | WaitOptions::from_bits_retain(__WALL)", "", "wait4(with other"),
        ("Some(&child))", "Some(&KernelSigSet::empty()))", "rt_sigprocmask(with other"),
        ("Ok(_) | Err(Errno::INTR) => {}", "Ok(_) => {}", "pause(), and not wait4()"),
    ] {
        assert_eq!(ours.matches(from).count(), 1, "{from}");
        fs::write(&main, ours.replace(from, to)).expect("src/main.rs");
        checkout.run("scripts/build --only amd64");
        departs(&checkout.path().join("dist/pause-linux-amd64"), why);
    }
    // `is_proven` says that each byte of each line is compared; here one of each line is another.
    let ours = fs::read(dist("amd64")).expect("pause");
    for line in ["pause 0", "Warning", "Error: inf", "Interrupt", "Terminated"] {
        let mut other = ours.clone();
        other[ours.windows(line.len()).position(|bytes| bytes == line.as_bytes()).expect(line)] ^= 1;
        fs::write(folder.join("letter"), other).expect("a file");
        departs(&folder.join("letter"), "write(");
    }
    // That of 0.2.0, of commit 14ab589: it does not block SIGCHLD.
    departs(&root().join("tests/proof/pause-0.2.0-amd64"), "not proven");
    let c = folder.join("pause-c");
    run("gcc", &["-Os", "-static", "-s", "-o", text(&c), text(&root().join("tests/bench/pause.c"))]);
    departs(&c, "segments to load");
    // The control of the controls: the same call proves ours.
    assert!(prove(&[&format!("amd64={}", text(&dist("amd64")))]).status.success());
}
