//! The exact system calls of a whole life, and that it needs no other.

use libc::{
    SIGINT, SIGTERM, SYS_exit_group, SYS_getpid, SYS_ppoll, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_wait4, SYS_write,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::harness::launch::{Launch, checked};
use crate::harness::programs::{SYS_SLEEP, pause};
use crate::harness::running::Ended;
use crate::harness::until;
use crate::reaping::orphans;

/// From the start to the sleep, without a child and as PID 1.
const START: [i64; 7] = [
    SYS_rt_sigaction,
    SYS_rt_sigaction,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_wait4,
    SYS_getpid,
    SYS_SLEEP,
];
/// The number of the last of them.
const ASLEEP: usize = START.len();
/// What the handler adds.
const END: [i64; 3] = [SYS_ppoll, SYS_write, SYS_exit_group];

/// Traces it from the start to its end. Each of `signals` is sent when it makes the
/// system call of that number, counted from 1; it has seen some orphans by then.
#[track_caller]
fn calls(launch: Launch, signals: &[(usize, i32)]) -> Vec<i64> {
    let running = launch.start_traced();
    let pid = Pid::from_raw(running.pid());
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL,
    )
    .expect("options");
    let (mut calls, mut deliver) = (Vec::new(), None::<Signal>);
    for _ in 0..100 {
        ptrace::syscall(pid, deliver.take()).expect("go on to the next stop");
        let stop = until("its next stop", || {
            let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("its next stop");
            (status != WaitStatus::StillAlive).then_some(status)
        });
        match stop {
            WaitStatus::PtraceSyscall(_) => {
                let info = syscall_info(running.pid());
                if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    // SAFETY: the member that goes with the op.
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

/// PTRACE_GET_SYSCALL_INFO, of Linux 5.3; that of nix 0.30 returns garbage.
fn syscall_info(pid: i32) -> libc::ptrace_syscall_info {
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: all zeros are one, and it lives.
    unsafe {
        let mut info = std::mem::zeroed();
        let request = libc::PTRACE_GET_SYSCALL_INFO;
        checked(libc::ptrace(request, pid, size, &raw mut info)).expect("a traced process");
        info
    }
}

limited! {
    fn makes_just_these_system_calls_in_a_whole_life() {
        assert_eq!(calls(pause().init(), &[(ASLEEP, SIGTERM)]), [&START[..], &END].concat());
    }

    fn makes_just_these_system_calls_for_its_version() {
        let launch = pause().argument("-v").init();
        assert_eq!(calls(launch, &[]), [SYS_ppoll, SYS_write, SYS_exit_group]);
    }

    /// It comes while the line of the first is being written.
    fn a_second_signal_makes_no_second_line() {
        let signals = [(ASLEEP, SIGTERM), (ASLEEP + 2, SIGINT)];
        assert_eq!(calls(pause().init(), &signals), [&START[..], &END].concat());
    }

    /// Not twice, which would be the beginning of a busy loop.
    fn tries_once_to_sleep_when_it_may_not() {
        assert_eq!(calls(pause().init().without(SYS_SLEEP), &[]), [&START[..], &END].concat());
    }

    fn needs_no_other_system_call() {
        let running = pause().init().only(&[&START[..], &END].concat()).start().ready();
        orphans(&running, 100);
        running.childless();
        running.signal(SIGTERM);
        let stderr = "Shutting down, got signal: Terminated\n".to_string();
        assert_eq!(running.end(), Ended { how: Ok(0), stdout: String::new(), stderr });
    }

    /// The negative control: the filter of the test above does kill.
    fn one_system_call_less_kills_it() {
        let calls = [&START[..], &END[..2]].concat();
        let running = pause().init().only(&calls).start().ready();
        running.signal(SIGTERM);
        assert_eq!(running.end().how, Err(libc::SIGSYS));
    }
}
