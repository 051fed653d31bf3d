//! A virtual machine that is a node as most people have it: Debian 13 with its own kernel, systemd, control groups of
//! version 2, AppArmor, and all capabilities. This program runs in it, with suites of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use xtask::options::E2e;

use crate::report::Report;
use crate::work::Work;
use harness::fork::checked;
use harness::programs::{HOST, Platform, platform, program_for, root};

pub fn check_host(work: &Work, report: &mut Report) {
    // The last suite leaves a node that runs a pod when it comes up again.
    let suites = ["criu", "node", "air-gapped", "before-reboot"];
    check(platform(&HOST), &suites, work, report);
}

/// An emulated machine is slow, so this suite is the one that depends on the architecture. CRIU does not come to an end
/// on its emulated processor.
pub fn check_arm64(work: &Work, report: &mut Report) {
    check(platform("arm64"), &["node"], work, report);
}

fn check(platform: &Platform, suites: &[&str], work: &Work, report: &mut Report) {
    let folder = work.folder.join(format!("machine-{}", platform.architecture));
    fs::create_dir(&folder).expect("a folder");
    program_for(platform.architecture, "orphans"); // which the machine cannot build
    let reboots = suites.contains(&"before-reboot");
    let printed = boot(platform, suites, reboots, &folder);
    let logs = work.logs.join(format!("machine-{}", platform.architecture));
    harness::run("cp", &["-rT", harness::text(&folder), harness::text(&logs)]);
    let console = fs::read_to_string(folder.join("console.log")).unwrap_or_default();
    let last = console.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    let ends = printed.iter().filter(|line| line.contains(" passed, ") && line.ends_with(" failed"));
    let ends: Vec<_> = ends.map(String::as_str).collect();
    report.check("the checks in the machine run to their end", || {
        assert_eq!(ends.len(), 1 + usize::from(reboots), "it ended early; the last line of its console: {last}");
        assert!(ends.iter().all(|end| end.ends_with(" 0 failed")), "{ends:?}");
        ends.join("; after a reboot ")
    });
}

/// Whether the kernel's KVM can run a machine. Where it is nested in another, the device may be there and yet no machine
/// comes up: a kernel without a root, which panics, must end in time.
fn has_kvm(platform: &Platform, kernel: &str) -> bool {
    let tried = Path::new("/dev/kvm").exists().then(|| {
        Command::new("timeout")
            .args(["20", &format!("qemu-system-{}", platform.qemu.system), "-machine", platform.qemu.machine])
            .args(["-accel", "kvm", "-cpu", "host", "-display", "none", "-no-reboot"])
            .args(["-kernel", kernel, "-append", "panic=-1"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    tried.is_some_and(|status| status.is_ok_and(|status| status.success()))
}

/// Boots the machine, prints what this program prints there, and returns it.
fn boot(platform: &Platform, suites: &[&str], reboots: bool, folder: &Path) -> Vec<String> {
    let (project, work, qemu) = (root().display(), folder.display(), &platform.qemu);
    let program = root().join("target/e2e/machine").join(platform.architecture).join("e2e");
    let run = |suites: &[&str]| {
        let suites = suites.iter().map(|suite| suite.to_string()).collect();
        let options = E2e { suites, report: Some(folder.into()), ..E2e::default() };
        format!("{} '{}'", program.display(), serde_json::to_string(&options).expect("JSON"))
    };
    // The limits of single states are longer: an emulated machine is some ten times slower.
    let mut start = "export PAUSE_ON_MACHINE=1 PAUSE_XTASK=1 PAUSE_LIMIT=600 PATH=$PATH:/usr/sbin\n".to_string();
    if reboots {
        let after = run(&["after-reboot"]);
        start += &format!("[ ! -e {work}/rebooted ] || exec {after}\n{}\n", run(suites));
        start += &format!("touch {work}/rebooted; sync; systemctl reboot; sleep infinity");
    } else {
        start += &run(suites);
    }
    fs::write(folder.join("start"), start).expect("a file");
    let machine = root().join("target/machine").join(format!("node-{}", platform.architecture));
    let file = |name: &str| machine.join(name).display().to_string();
    let native = platform.is_host() && has_kvm(platform, &file("vmlinuz"));
    let processor = match (native, platform.architecture) {
        (true, _) => "host",
        // What a processor need not have is slow to emulate: a kind of pointer authentication, AVX.
        (_, "arm64") => "max,pauth-impdef=on",
        _ => qemu.cpu,
    };
    let share = |tag: &str, path: &dyn std::fmt::Display, more: &str| {
        format!("local,path={path},mount_tag={tag},security_model=none{more}")
    };
    let append = format!("root=/dev/vda rw {} quiet project={project} work={work}", qemu.append);
    // An hour for all that an emulated machine does.
    let mut command = Command::new("timeout");
    command
        .args(["3600", &format!("qemu-system-{}", qemu.system), "-machine", qemu.machine, "-cpu", processor])
        .args(["-accel", if native { "kvm" } else { "tcg" }])
        .args(["-smp", "2", "-m", "4096", "-display", "none"])
        .args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd.img"), "-append", &append])
        .args(["-drive", &format!("file={},format=raw,if=virtio,snapshot=on", file("disk"))])
        .args(["-serial", &format!("file:{work}/console.log")])
        .args(["-device", "virtio-serial", "-device", "virtconsole,chardev=out"])
        .args(["-chardev", "stdio,id=out,signal=off"])
        .args(["-virtfs", &share("project", &project, ",readonly=on"), "-virtfs", &share("work", &work, "")])
        .args(["-nic", "user,model=virtio-net-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // SAFETY: a system call between fork and execve. The machine ends when this program does.
    unsafe { command.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))) };
    let mut running = command.spawn().expect("timeout");
    let lines = BufReader::new(running.stdout.take().expect("a pipe")).split(b'\n').map_while(Result::ok);
    let printed = lines.map(|line| {
        let line = String::from_utf8_lossy(&line).trim_end().to_string();
        println!("  | {line}");
        line
    });
    let printed = printed.collect();
    running.wait().expect("its status");
    printed
}
