//! What is left when a test program ends early: control groups, mounts and folders. Each has the PID
//! of the program in its name (see [`crate::unique`]), so that its parent finds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use xtask::signals;

use crate::cgroup;
use crate::programs::root;

/// Runs `work` in a child. Passes the signals on that end a command; then, and after any other end of
/// the child, removes what is left of it, and calls `more` unless it ended by itself.
pub fn supervise(work: impl FnOnce() -> ExitCode, more: impl FnOnce()) -> ExitCode {
    // SAFETY: this process has one thread, so that the child may do what it likes.
    let child = unsafe { libc::fork() };
    assert_ne!(child, -1, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: system calls. In a group of its own is all that the child starts and that makes none.
        unsafe {
            libc::setpgid(0, 0);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
        }
        return work();
    }
    signals::pass_on().expect("handlers");
    let status = signals::wait(child, || {
        // SAFETY: a system call. The group is the child's as long as the child is a zombie.
        unsafe { libc::kill(-child, libc::SIGKILL) };
        clean(&format!("pause-{child}-"));
    });
    if status > 128 {
        more();
    }
    ExitCode::from(status)
}

/// Removes everything whose name begins so: the processes of control groups, these groups, mounts
/// and folders.
fn clean(start: &str) {
    let named = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
        ours.map(|entry| entry.path()).collect()
    };
    for group in cgroup::mounts().iter().flat_map(|mount| named(mount)) {
        cgroup::kill(&group);
        cgroup::remove(&group);
    }
    let mut folders = vec![root().join("target/tests"), std::env::temp_dir()];
    // Where OCI runtimes keep the state of containers.
    folders.extend(["runc", "crun", "youki", "runsc"].map(|name| Path::new("/run").join(name)));
    for folder in folders.iter().flat_map(|folder| named(folder)) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut inside: Vec<_> =
            points.filter(|point| Path::new(point).starts_with(&folder)).collect();
        inside.reverse(); // what is mounted last is above the others
        for point in inside {
            let _ = Command::new("umount").args(["--lazy", point]).status();
        }
        let _ = fs::remove_dir_all(&folder).or_else(|_| fs::remove_file(&folder));
    }
}
