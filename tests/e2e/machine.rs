//! A virtual machine that is a node as most people have it: Debian 13 with its own kernel, systemd,
//! control groups of version 2, AppArmor, and all capabilities. The checks are those of the other
//! parts: this program runs in the machine, and the report is read from there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crate::Work;
use crate::images::Images;
use crate::report::Report;
use harness::launch::checked;
use harness::programs::{HOST, Platform, platform, program_for, root};

/// The time limit for all that an emulated machine does.
const LIMIT: Duration = Duration::from_secs(3600);

/// Whether a cell in the machine would not see this clone: it covers these folders, with the mount
/// of the clone below them.
fn hidden_in_cells() -> bool {
    let covered = ["/etc", "/opt", "/var", "/run"];
    covered.iter().any(|folder| root().starts_with(folder))
}

pub fn check_host(work: &Work, _: &Images, report: &mut Report) {
    let mut parts = "podman criu node endpoint air-gapped cri-dockerd".to_string();
    match hidden_in_cells() {
        true => report
            .left_out("a cell in the machine: move this clone out of /etc, /opt, /run and /var"),
        false => parts += " cell",
    }
    // The last: it leaves a node that runs a pod when it comes up again.
    check(&HOST, &(parts + " before-reboot"), work, report);
}

/// An emulated machine is slow, so that these parts are those that depend on the architecture; CRIU
/// does not come to an end on its emulated processor.
pub fn check_arm64(work: &Work, _: &Images, report: &mut Report) {
    check("arm64", "podman node", work, report);
}

fn check(architecture: &str, parts: &str, work: &Work, report: &mut Report) {
    let folder = work.folder.join(format!("machine-{architecture}"));
    let logs = work.logs.join(format!("machine-{architecture}"));
    report.check("it boots, and the checks run in it to their end", || {
        fs::create_dir_all(folder.join("logs")).expect("a folder");
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).expect("a folder");
        program_for(architecture, "orphans"); // which the machine cannot build
        boot(platform(architecture), parts, &folder, &logs);
        let copied = format!("cp -r {}/logs/. {}", folder.display(), logs.display());
        harness::run("sh", &["-c", &copied]);
    });
    let title = format!("on a machine of {architecture} with systemd");
    let after = (folder.join("rebooted"), format!("{title}, after a reboot"));
    for (folder, title) in [(folder, title), after] {
        if folder.join("junit.xml").exists() {
            report.add_from(&folder, &title);
        }
    }
}

/// Whether the kernel's KVM can run a machine. Where it is nested in another, the device may be
/// there and yet no machine comes up: a kernel without a root, which panics, must end in time.
fn has_kvm(system: &str, machine: &str, kernel: &str) -> bool {
    let tried = Path::new("/dev/kvm").exists().then(|| {
        Command::new("timeout")
            .args(["20", &format!("qemu-system-{system}"), "-machine", machine])
            .args(["-accel", "kvm", "-cpu", "host", "-display", "none", "-no-reboot"])
            .args(["-kernel", kernel, "-append", "panic=-1"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    tried.is_some_and(|status| status.is_ok_and(|status| status.success()))
}

/// Boots the machine, and prints what this program prints there.
fn boot(platform: &Platform, parts: &str, folder: &Path, logs: &Path) {
    let architecture = &platform.architecture;
    let (project, work) = (root().display(), folder.display());
    let program = root().join("target/e2e/machine").join(architecture).join("e2e");
    // The limits of single states are longer: an emulated machine is some ten times slower.
    let e2e = format!("{} --machine", program.display());
    let variables = "export PAUSE_DIST=1 PAUSE_LIMIT=600 PATH=$PATH:/usr/sbin";
    let again = format!("{work}/rebooted");
    let start = match parts.ends_with("before-reboot") {
        true => format!(
            "{variables}
             [ ! -e {again} ] || exec {e2e} after-reboot e2e --logs {work}/logs --report {again}
             {e2e} '{parts}' e2e --logs {work}/logs --report {work}
             mkdir {again}; sync; systemctl reboot; sleep infinity"
        ),
        false => format!("{variables}\n{e2e} '{parts}' e2e --logs {work}/logs --report {work}"),
    };
    fs::write(folder.join("start"), start).expect("a file");
    let machine = root().join("target/machine").join(format!("node-{architecture}"));
    let file = |name: &str| machine.join(name).display().to_string();
    let native =
        platform.is_host() && has_kvm(&platform.qemu_system, &platform.machine, &file("vmlinuz"));
    let processor = match (native, architecture.as_str()) {
        (true, _) => "host",
        // What a processor need not have is slow to emulate: a kind of pointer authentication, AVX.
        (_, "arm64") => "max,pauth-impdef=on",
        _ => &platform.processor,
    };
    let share = |tag: &str, path: &dyn std::fmt::Display, more: &str| {
        format!("local,path={path},mount_tag={tag},security_model=none{more}")
    };
    let mut qemu = Command::new(format!("qemu-system-{}", platform.qemu_system));
    qemu.args(["-machine", &platform.machine, "-cpu", processor])
        .args(["-accel", if native { "kvm" } else { "tcg" }])
        .args(["-smp", "2", "-m", "4096", "-display", "none"])
        .args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd.img")])
        .arg("-append")
        .arg(format!(
            "root=/dev/vda rw console={} quiet project={project} work={work}",
            platform.console
        ))
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,snapshot=on", file("disk")))
        .args(["-serial", &format!("file:{}/console.log", logs.display())])
        .args(["-device", "virtio-serial", "-device", "virtconsole,chardev=out"])
        .args(["-chardev", "stdio,id=out,signal=off"])
        .args(["-virtfs", &share("project", &project, ",readonly=on")])
        .args(["-virtfs", &share("work", &work, "")])
        .args(["-nic", "user,model=virtio-net-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // SAFETY: a system call between fork and execve. The machine ends when this program does.
    unsafe { qemu.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))) };
    let mut running =
        qemu.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", qemu.get_program()));
    let pid = running.id() as i32;
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: a system call; the process was not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let out = running.stdout.take().expect("a pipe");
    let mut lines = 0;
    for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
        println!("  | {}", String::from_utf8_lossy(&line).trim_end());
        lines += 1;
    }
    drop(end);
    let status = running.wait().expect("its status");
    let console = fs::read(logs.join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    let last = console.lines().rfind(|line| !line.trim().is_empty());
    let last = last.unwrap_or("nothing");
    assert!(lines > 0, "it did not boot; the last line of its console: {last}");
    let last_report =
        if parts.ends_with("before-reboot") { "rebooted/junit.xml" } else { "junit.xml" };
    assert!(
        folder.join(last_report).exists(),
        "the checks did not end ({status}); the last line of its console: {last}"
    );
}
