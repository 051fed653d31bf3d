//! A program that was started: its state, and what a test does to it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use procfs_core::FromRead;
use procfs_core::process::{Stat, Status};

use crate::fork::{checked, fork, pid_namespace};
use crate::{LIMIT, until, until_at_most};

/// A program that sleeps for this time has finished its start.
pub const QUIET: Duration = Duration::from_millis(50);

/// The system call in which pause sleeps where rt_sigtimedwait is refused. Newer architectures have no pause(2), so
/// rustix calls ppoll there.
#[cfg(target_arch = "x86_64")]
pub const SYS_PAUSE: i64 = libc::SYS_pause;
#[cfg(not(target_arch = "x86_64"))]
pub const SYS_PAUSE: i64 = libc::SYS_ppoll;

/// A child of the test, killed and reaped when it goes out of scope.
pub struct Running {
    pid: i32,
    streams: [Option<File>; 2],
    ended: bool,
}

/// How a program ended and what it wrote.
#[derive(Debug, PartialEq)]
pub struct Ended {
    /// The exit status, or as an error the number of the signal that killed it.
    pub how: Result<i32, i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What pause costs while it runs, in counts that do not depend on the speed of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Voluntary and involuntary context switches.
    pub switches: u64,
    /// CPU time in nanoseconds.
    pub cpu: u64,
}

impl Cost {
    /// Reads the cost of a process from its folder in /proc.
    pub fn of(process: &Path) -> Self {
        let status = Status::from_file(process.join("status")).expect("its status");
        let schedstat = fs::read_to_string(process.join("schedstat"));
        let schedstat = schedstat.expect("CONFIG_SCHED_INFO");
        let cpu = schedstat.split(' ').next().and_then(|word| word.parse().ok());
        Self {
            switches: status.voluntary_ctxt_switches.expect("Linux 2.6.23")
                + status.nonvoluntary_ctxt_switches.expect("Linux 2.6.23"),
            cpu: cpu.expect("nanoseconds"),
        }
    }
}

/// The exit status of a helper that could not enter the namespace.
const NOT_ENTERED: i32 = 126;

impl Running {
    pub fn new(pid: i32, streams: [Option<File>; 2]) -> Self {
        Self { pid, streams, ended: false }
    }

    /// The PID in the namespace of the test.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn status(&self) -> Status {
        Status::from_file(format!("/proc/{}/status", self.pid)).expect("its status")
    }

    pub fn stat(&self) -> Stat {
        Stat::from_file(format!("/proc/{}/stat", self.pid)).expect("its stat")
    }

    /// How often it has gone to sleep. A program that sleeps was woken once less.
    pub fn sleeps(&self) -> u64 {
        let switches = self.status().voluntary_ctxt_switches;
        switches.expect("Linux 2.6.23")
    }

    pub fn cost(&self) -> Cost {
        Cost::of(Path::new(&format!("/proc/{}", self.pid)))
    }

    /// Waits until pause sleeps.
    pub fn ready(self) -> Self {
        self.await_call(&SLEEPS);
        self
    }

    /// Waits until the program has slept for some time. For programs whose last system call is not known.
    pub fn settled(self) -> Self {
        self.settle();
        self
    }

    /// The same, and returns the cost. By then every effect of a signal or an ended child is included.
    pub fn settle(&self) -> Cost {
        let mut since = (self.cost(), Instant::now());
        until("settled", || {
            let cost = self.cost();
            if cost != since.0 || self.stat().state != 'S' {
                since = (cost, Instant::now());
            }
            (since.1.elapsed() > QUIET).then_some(cost)
        })
    }

    /// Waits until the program sleeps in one of `calls`.
    pub fn await_call(&self, calls: &[i64]) {
        until("asleep in the system call", || {
            assert!(self.is_alive(), "it ended, and was to sleep");
            calls.contains(&call_of(self.pid)?).then_some(())
        });
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that was not reaped yet.
        checked(unsafe { libc::kill(self.pid, signal) }).expect("send a signal");
    }

    /// Sends SIGTERM, and waits for the end of the program.
    pub fn terminate(self) -> Ended {
        self.signal(libc::SIGTERM);
        self.end()
    }

    /// Waits until the program is stopped.
    pub fn stopped(&self) {
        until("stopped", || {
            assert!(self.is_alive(), "it ended, and was to be stopped");
            (self.status().state.starts_with('T')).then_some(())
        });
    }

    fn child_stats(&self) -> Vec<Stat> {
        fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| Stat::from_file(entry.ok()?.path().join("stat")).ok())
            .filter(|stat| stat.ppid == self.pid)
            .collect()
    }

    /// The PIDs of its children in the namespace of the test.
    pub fn child_pids(&self) -> Vec<i32> {
        self.child_stats().iter().map(|stat| stat.pid).collect()
    }

    /// The number of its children, and how many of them are zombies.
    pub fn children(&self) -> (usize, usize) {
        let stats = self.child_stats();
        let zombies = stats.iter().filter(|stat| stat.state == 'Z').count();
        (stats.len(), zombies)
    }

    /// Waits until the program has no child.
    pub fn childless(&self) {
        until("no child, living or dead", || (self.children().0 == 0).then_some(()));
    }

    /// Waits for the end of the program.
    pub fn end(mut self) -> Ended {
        let pid = Pid::from_raw(self.pid);
        let status = until("ended", || match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(status) => Some(status),
            Err(error) => panic!("waitpid: {error}"),
        });
        self.ended = true;
        let [stdout, stderr] = self.streams.each_mut().map(|stream| {
            let mut text = String::new();
            if let Some(file) = stream {
                file.read_to_string(&mut text).expect("what it wrote");
            }
            text
        });
        let how = match status {
            WaitStatus::Exited(_, status) => Ok(status),
            WaitStatus::Signaled(_, signal, _) => Err(signal as i32),
            other => panic!("not an end: {other:?}"),
        };
        Ended { how, stdout, stderr }
    }

    /// The number of the signal that kills the program. nix does not know the real-time signals.
    pub fn killed_by(mut self) -> i32 {
        let mut status = 0;
        until("killed", || {
            // SAFETY: a child that was not reaped yet, and an integer that lives.
            let pid = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
            (pid == self.pid).then_some(())
        });
        self.ended = true;
        assert!(libc::WIFSIGNALED(status), "not killed by a signal: {status:#x}");
        libc::WTERMSIG(status)
    }

    /// Whether the program runs, that is, has not ended and is no zombie.
    pub fn is_alive(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = Id::Pid(Pid::from_raw(self.pid));
        matches!(waitid(pid, flags), Ok(WaitStatus::StillAlive))
    }

    /// Runs `work` in a process inside the PID namespace of the program, and waits for it. `work` must return 0, the
    /// exit status of the process.
    ///
    /// # Safety
    ///
    /// The process is a fork of one with threads, so `work` may make system calls only.
    pub unsafe fn inside(&self, work: impl Fn() -> i32) {
        // SAFETY: the caller's promise.
        let status = unsafe { self.status_of(work) };
        assert_eq!(status, 0, "the work inside failed ({NOT_ENTERED}: could not enter)");
    }

    /// Sends a signal to PID 1 from inside of its PID namespace. If that ends PID 1, the kernel kills every process of
    /// the namespace, the one that sent the signal included.
    pub fn signal_from_inside(&self, signal: i32) {
        // SAFETY: a system call. The C library refuses two signals that it uses itself.
        let status = unsafe { self.status_of(|| libc::syscall(libc::SYS_kill, 1, signal) as i32) };
        assert!([0, 128 + libc::SIGKILL].contains(&status), "kill failed: {status}");
    }

    /// The exit status of `work`, or 128 + signal as in a shell.
    ///
    /// # Safety
    ///
    /// As for [`Running::inside`].
    unsafe fn status_of(&self, work: impl Fn() -> i32) -> i32 {
        // SAFETY: the children make system calls only.
        let helper = unsafe { fork() };
        checked(helper).expect("fork");
        if helper == 0 {
            // SAFETY: as above.
            unsafe { libc::_exit(enter(self.pid).map_or(NOT_ENTERED, |()| in_child(&work))) }
        }
        let mut status = 0;
        until_at_most(*LIMIT * 4, "the work inside is done", || {
            // SAFETY: a child, and an integer that lives.
            let pid = unsafe { libc::waitpid(helper, &mut status, libc::WNOHANG) };
            (pid == helper).then_some(())
        });
        libc::WEXITSTATUS(status)
    }
}

/// The system calls in which pause sleeps: rt_sigtimedwait or, where that is refused, pause(2). In place of the latter
/// newer architectures have ppoll, and qemu-user calls rt_sigsuspend.
const SLEEPS: [i64; 4] = [libc::SYS_rt_sigtimedwait, SYS_PAUSE, libc::SYS_ppoll, libc::SYS_rt_sigsuspend];

/// Whether a program sleeps as pause does, or as a program does that only calls pause(2).
pub fn sleeps(pid: i32) -> bool {
    sleeps_by(Path::new(&format!("/proc/{pid}/syscall")))
}

/// The same by the process's file in /proc, such as one that a cell shows.
pub fn sleeps_by(file: &Path) -> bool {
    call_in(file).is_some_and(|call| SLEEPS.contains(&call))
}

/// The number of the system call in which a process sleeps.
fn call_of(pid: i32) -> Option<i64> {
    call_in(Path::new(&format!("/proc/{pid}/syscall")))
}

/// The same by the process's file in /proc: "running", or the number and six arguments. After the end it cannot be
/// read.
pub fn call_in(file: &Path) -> Option<i64> {
    let text = fs::read_to_string(file).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let pid = Pid::from_raw(self.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            // A traced or stopped child reports more than its end.
            while let Ok(status) = waitpid(pid, None) {
                if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                    break;
                }
            }
        }
    }
}

/// Makes the next children of the caller members of the PID namespace of `pid`, and without root of its user namespace.
/// It closes the caller's descriptors: those are copies of the pipes of other tests, which wait until all copies are
/// closed.
fn enter(pid: i32) -> io::Result<()> {
    // SAFETY: system calls only.
    unsafe {
        checked(libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0))?;
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        checked(fd)?;
        checked(libc::setns(fd, pid_namespace()))
    }
}

/// Runs `work` in a child, and returns its exit status, or 128 + signal as in a shell.
///
/// # Safety
///
/// As for [`Running::inside`].
unsafe fn in_child(work: &impl Fn() -> i32) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        let pid = fork();
        if pid == 0 {
            libc::_exit(work());
        }
        let mut status = 0;
        if libc::waitpid(pid, &mut status, 0) != pid {
            return 125;
        }
        match libc::WIFEXITED(status) {
            true => libc::WEXITSTATUS(status),
            false => 128 + libc::WTERMSIG(status),
        }
    }
}
