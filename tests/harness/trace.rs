//! The system calls of a program, by ptrace(2).

use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::LIMIT;
use crate::fork::checked;
use crate::launch::Launch;
use crate::measure::orphans;
use crate::running::QUIET;

/// The numbers of the system calls that a program makes as PID 1, until its end or, if `signals` is empty, until it
/// sleeps. `signals` has pairs: a signal is sent when the program makes the call with that number, counted from 1. By
/// then some orphans have ended.
pub fn system_calls(launch: Launch, signals: &[(usize, i32)], to_the_end: bool) -> Vec<i64> {
    let running = launch.start_traced();
    let pid = Pid::from_raw(running.pid());
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).expect("options");
    let (mut calls, mut deliver) = (Vec::new(), None::<Signal>);
    for _ in 0..1000 {
        ptrace::syscall(pid, deliver.take()).expect("go on to the next stop");
        let start = Instant::now();
        let stop = loop {
            let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("its next stop");
            if status != WaitStatus::StillAlive {
                break status;
            }
            let asleep = running.stat().state == 'S';
            if !to_the_end && asleep && start.elapsed() > QUIET {
                return calls;
            }
            assert!(start.elapsed() < *LIMIT, "it does not go on: {calls:?}");
            std::thread::sleep(Duration::from_micros(100));
        };
        match stop {
            WaitStatus::PtraceSyscall(_) => {
                let info = syscall_info(running.pid());
                if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    // SAFETY: the member of the union that `op` names.
                    calls.push(unsafe { info.u.entry.nr } as i64);
                    for (_, signal) in signals.iter().filter(|(n, _)| *n == calls.len()) {
                        orphans(&running, 10);
                        running.signal(*signal);
                    }
                }
            }
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return calls,
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not end: {calls:?}")
}

/// PTRACE_GET_SYSCALL_INFO (Linux 5.3). The function of nix 0.30 returns a wrong struct.
fn syscall_info(pid: i32) -> libc::ptrace_syscall_info {
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: all zeros are a valid value, and the struct lives.
    unsafe {
        let mut info = std::mem::zeroed();
        let request = libc::PTRACE_GET_SYSCALL_INFO;
        checked(libc::ptrace(request, pid, size, &raw mut info)).expect("a traced process");
        info
    }
}
