//! What a program costs, for tests and benchmark: memory, and the wake-ups that orphans cause. All of it is counted.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::unistd::Pid;
use procfs_core::FromRead;
use procfs_core::process::SmapsRollup;

use crate::fork::fork;
use crate::launch::Launch;
use crate::programs::program;
use crate::running::Running;

/// The memory of a sleeping process, and the page faults until then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Private anonymous memory, in bytes.
    pub anonymous: u64,
    /// Page tables, in kB.
    pub page_tables: u64,
    /// Minor page faults since execve.
    pub faults: u64,
}

/// Measures a program as PID 1, without address space layout randomisation, so that the result is the same each time.
pub fn memory(launch: Launch) -> Memory {
    let fixed = || personality::set(Persona::ADDR_NO_RANDOMIZE).map(drop).map_err(std::io::Error::from);
    // SAFETY: a system call only.
    let running = unsafe { launch.init().before(fixed) }.start_traced();
    let pid = Pid::from_raw(running.pid());
    let before = running.stat().minflt;
    ptrace::detach(pid, None).expect("detach");
    let running = running.settled();
    let maps = SmapsRollup::from_file(format!("/proc/{pid}/smaps_rollup")).expect("Linux 4.14");
    let map = &maps.memory_map_rollup.0[0].extension.map;
    Memory {
        resident: map["Rss"],
        anonymous: map["Anonymous"],
        page_tables: running.status().vmpte.expect("VmPTE"),
        faults: running.stat().minflt - before,
    }
}

/// Makes `count` orphans that are alive when the program becomes their parent, and then end.
pub fn orphans(running: &Running, count: usize) {
    // SAFETY: system calls only.
    unsafe { orphans_that(running, count, || ()) }
}

/// Makes some thousands of orphans by `tests/programs/orphans.rs`, which costs less than forks of the test; the program
/// traces one in ten of them if `traced`.
pub fn thousands_of_orphans(running: &Running, thousands: usize, traced: bool) {
    let name = CString::new(program("orphans").into_os_string().into_vec()).expect("no NUL");
    let argument = if traced { c"traced".as_ptr() } else { ptr::null() };
    let argv = [name.as_ptr(), argument, ptr::null()];
    for _ in 0..thousands {
        // SAFETY: system calls, on strings that live and null pointers at the ends of the lists.
        unsafe {
            running.inside(|| {
                libc::execve(name.as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr());
                127
            });
        }
    }
}

/// Makes `count` orphans that call PTRACE_TRACEME, which makes the program their tracer, and that then end. One whose
/// call fails does not end, which a test notices.
pub fn traced_orphans(running: &Running, count: usize) {
    // SAFETY: system calls only.
    unsafe { orphans_that(running, count, be_traced) }
}

/// Makes the parent of the calling process its tracer.
pub fn be_traced() {
    // SAFETY: system calls.
    unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0 {
            libc::pause();
        }
    }
}

/// Makes `count` orphans that do `work` when the program has become their parent, and then end.
///
/// # Safety
///
/// Each is a fork of a process with threads, so `work` may make system calls only.
pub unsafe fn orphans_that(running: &Running, count: usize, work: fn()) {
    // SAFETY: the caller's promise.
    unsafe {
        running.inside(move || {
            (0..count).for_each(|_| in_child(|| in_orphan(work)));
            0
        });
    }
}

// The functions below run in forks of the test inside of a namespace.

/// Runs `work` in a child and waits for it.
///
/// # Safety
///
/// As for [`orphans_that`].
pub unsafe fn in_child(work: impl FnOnce()) {
    // SAFETY: the caller's promise.
    unsafe {
        let pid = fork();
        if pid == 0 {
            work();
            libc::_exit(0);
        }
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// Runs `work` in a child that is not waited for, after PID 1 has become its parent.
///
/// # Safety
///
/// As for [`orphans_that`].
pub unsafe fn in_orphan(work: impl FnOnce()) {
    // SAFETY: the caller's promise.
    unsafe {
        let parent = libc::getpid();
        if fork() == 0 {
            // Sleeping leaves the CPU to the parent, which must end first.
            let moment = libc::timespec { tv_sec: 0, tv_nsec: 10_000 };
            while libc::getppid() == parent {
                libc::nanosleep(&moment, std::ptr::null_mut());
            }
            work();
            libc::_exit(0);
        }
    }
}
