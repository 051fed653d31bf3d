//! pause as PID 1 of a virtual machine with a kernel of Debian, under qemu-system.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::programs::{dist, program_for, root};
use harness::{Folder, VERSION};

/// Boots the kernel of `machine` in `target/machine`, and returns the text of its console. The
/// name of a machine begins with its architecture.
fn boot(machine: &str, emulator: &str, options: &[&str], console: &str) -> String {
    let architecture = machine.split('-').next().expect("its name");
    let machines = root().join("target/machine");
    let folder = Folder::new(machine);
    for name in ["root/bin", "root/proc", "root/dev"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let tree = folder.join("root");
    let copy = |from: &Path, to: &str| {
        fs::copy(from, tree.join(to))
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/setup", from.display()));
    };
    copy(&machines.join(architecture).join("busybox"), "bin/busybox");
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

    // The limit is long, as machines are emulated, perhaps on a busy host.
    let output = Command::new("timeout")
        .args(["--kill-after=5", "800", emulator])
        .args(["-m", "512", "-no-reboot", "-nographic"])
        .args(options)
        .arg("-kernel")
        .arg(machines.join(machine).join("vmlinuz"))
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

/// Checks the text of the console.
#[track_caller]
fn holds(console: &str) {
    let version = format!("version: pause {VERSION} 0");
    for line in [
        version.as_str(),
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
    // PID 1 prints its last line after everything but the kernel, and prints no warning.
    assert!(
        console.contains("woken: 0\r\nShutting down, got signal: Terminated"),
        "{console}"
    );
}

const ARM: [&str; 4] = ["-machine", "virt", "-cpu", "max,pauth-impdef=on"];

limited! {
    #[ignore = "needs scripts/test"]
    fn amd64_as_the_init_of_a_machine() {
        holds(&boot("amd64", "qemu-system-x86_64", &[], "ttyS0"));
    }

    /// The oldest kernel on which pause is tested.
    #[ignore = "needs scripts/test"]
    fn amd64_as_the_init_of_a_machine_with_linux_5_10() {
        let console = boot("amd64-5.10", "qemu-system-x86_64", &[], "ttyS0");
        assert!(console.contains("Linux 5.10."), "{console}");
        holds(&console);
    }

    /// An ARMv8.0 processor, with pages of 4 KiB.
    #[ignore = "needs scripts/test"]
    fn arm64_as_the_init_of_a_machine() {
        let options = ["-machine", "virt", "-cpu", "cortex-a53"];
        let console = boot("arm64", "qemu-system-aarch64", &options, "ttyAMA0");
        assert!(console.contains("pages: 4 kB"), "{console}");
        holds(&console);
    }

    /// Pages of 16 KiB. Debian has no kernel with pages of 64 KiB for arm64.
    #[ignore = "needs scripts/test"]
    fn arm64_as_the_init_of_a_machine_with_16_kib_pages() {
        let console = boot("arm64-16k", "qemu-system-aarch64", &ARM, "ttyAMA0");
        assert!(console.contains("pages: 16 kB"), "{console}");
        holds(&console);
    }
}
