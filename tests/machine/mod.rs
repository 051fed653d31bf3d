//! A real machine of each architecture: Debian's kernel under qemu-system, with
//! pause as PID 1 of all of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::programs::{dist, program_for, root};

/// Boots `architecture` and returns what its console showed.
fn boot(architecture: &str, emulator: &str, options: &[&str], console: &str) -> String {
    let machine = root().join("target/machine").join(architecture);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("machine")
        .join(architecture);
    let _ = fs::remove_dir_all(&folder);
    for name in ["root/bin", "root/proc", "root/dev"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let tree = folder.join("root");
    let copy = |from: &Path, to: &str| {
        fs::copy(from, tree.join(to))
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/setup", from.display()));
    };
    copy(&machine.join("busybox"), "bin/busybox");
    copy(&dist(architecture), "pause");
    copy(&program_for(architecture, "exec0"), "exec0");
    copy(&root().join("tests/machine/init"), "init");
    let initramfs = folder.join("initramfs");
    let pack = "chmod 755 init bin/busybox && find . | cpio --quiet -o -H newc";
    let packed = Command::new("sh")
        .args(["-c", pack])
        .current_dir(&tree)
        .stdout(File::create(&initramfs).expect("the archive"))
        .status();
    assert!(packed.expect("sh").success(), "cpio: run scripts/setup");

    // The limit is that of the machine, at 20 times what it takes.
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "200",
            emulator,
            "-m",
            "512",
            "-no-reboot",
            "-nographic",
        ])
        .args(options)
        .arg("-kernel")
        .arg(machine.join("vmlinuz"))
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", &format!("console={console} panic=-1 quiet")])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{emulator}: {error}: run scripts/setup"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    std::io::stderr().write_all(&output.stderr).expect("stderr");
    text
}

/// Checks what the console showed.
#[track_caller]
fn holds(console: &str) {
    let version = concat!("version: pause ", env!("CARGO_PKG_VERSION"), " 0");
    for line in [
        version,
        "version, deaf: 0 0 0",
        "not the first: 0 Warning: pause should be the first process;Shutting down, got signal: Terminated;",
        "ignored: 0 Shutting down, got signal: Terminated",
        "deaf: 0 0 0",
        "argc 0: 0 Shutting down, got signal: Terminated",
        "signals: all 64",
        "orphans: 200",
        "woken: 0",
        "Attempted to kill init! exitcode=0x00000000",
    ] {
        assert!(console.contains(line), "no '{line}' in:\n{console}");
    }
    // The very last line but the kernel's is that of PID 1, which has no warning.
    assert!(
        console.contains("woken: 0\r\nShutting down, got signal: Terminated"),
        "{console}"
    );
}

#[test]
#[ntest::timeout(240_000)]
#[ignore = "needs scripts/test"]
fn amd64_as_the_init_of_a_machine() {
    holds(&boot("amd64", "qemu-system-x86_64", &[], "ttyS0"));
}

#[test]
#[ntest::timeout(240_000)]
#[ignore = "needs scripts/test"]
fn arm64_as_the_init_of_a_machine() {
    let options = ["-machine", "virt", "-cpu", "cortex-a53"];
    holds(&boot("arm64", "qemu-system-aarch64", &options, "ttyAMA0"));
}
