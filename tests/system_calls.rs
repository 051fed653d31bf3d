//! The exact system calls of pause from start to end, and that it needs no others.

use libc::{
    SIGINT, SIGTERM, SIGWINCH, SYS_exit_group, SYS_getpid, SYS_ppoll, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigtimedwait, SYS_wait4, SYS_write,
};

use harness::TERMINATED;
use harness::launch::Launch;
use harness::measure::orphans;
use harness::programs::{Platform, dist, pause, qemu_user};
use harness::running::{Ended, SYS_PAUSE};
use harness::trace::system_calls;

/// From the start until it sleeps, as PID 1 without a child.
const ACTION: i64 = SYS_rt_sigaction;
const START: [i64; 7] = [ACTION, ACTION, ACTION, SYS_rt_sigprocmask, SYS_getpid, SYS_wait4, SYS_rt_sigtimedwait];
/// The position of the last of them, counted from 1.
const ASLEEP: usize = START.len();
/// The calls of the signal handler.
const END: [i64; 3] = [SYS_ppoll, SYS_write, SYS_exit_group];

/// All system calls from start to end.
fn calls(launch: Launch, signals: &[(usize, i32)]) -> Vec<i64> {
    system_calls(launch, signals, true)
}

pub fn makes_just_these_system_calls_in_a_whole_life() {
    assert_eq!(calls(pause().init(), &[(ASLEEP, SIGTERM)]), [&START[..], &END].concat());
}

/// qemu-user names the system calls of the other platforms.
pub fn makes_just_these_system_calls_on_other_platforms(platform: &'static Platform) {
    let start =
        ["rt_sigaction", "rt_sigaction", "rt_sigaction", "rt_sigprocmask", "getpid", "wait4", "rt_sigtimedwait"];
    let end = ["ppoll", "write", "exit_group"];
    let launch = Launch::new(&dist(platform.architecture));
    let running = launch.under(&[&qemu_user(platform), "-strace"]).init().start().ready();
    let ended = running.terminate();
    assert_eq!(ended.how, Ok(0));
    let lines = ended.stderr.lines().filter_map(|line| line.strip_prefix("1 "));
    let calls: Vec<_> = lines.filter_map(|line| Some(line.split_once('(')?.0)).collect();
    assert_eq!(calls, [&start[..], &end].concat());
}

pub fn makes_just_these_system_calls_for_its_version() {
    let launch = pause().argument("-v").init();
    assert_eq!(calls(launch, &[]), [SYS_ppoll, SYS_write, SYS_exit_group]);
}

/// The second signal arrives while the handler of the first writes its line.
pub fn a_second_signal_makes_no_second_line() {
    let signals = [(ASLEEP, SIGTERM), (ASLEEP + 2, SIGINT)];
    assert_eq!(calls(pause().init(), &signals), [&START[..], &END].concat());
}

/// Row 9: the tracer keeps SIGWINCH from pause, but rt_sigtimedwait returns EINTR.
pub fn sleeps_again_when_a_tracer_interrupts_it_three_times() {
    let again = [SYS_wait4, SYS_rt_sigtimedwait];
    let signals = [(ASLEEP, SIGWINCH), (ASLEEP + 2, SIGWINCH), (ASLEEP + 4, SIGWINCH), (ASLEEP + 6, SIGTERM)];
    let wanted = [&START[..], &again, &again, &again, &END].concat();
    assert_eq!(calls(pause().init(), &signals), wanted);
}

/// A second call of either would be the beginning of a busy loop.
pub fn tries_each_way_to_sleep_once_when_it_may_not() {
    let launch = pause().init().without(SYS_rt_sigtimedwait).without(SYS_PAUSE);
    assert_eq!(calls(launch, &[]), [&START[..], &[SYS_PAUSE], &END].concat());
}

pub fn needs_no_other_system_call() {
    let running = pause().init().only(&[&START[..], &END].concat()).start().ready();
    orphans(&running, 100);
    running.childless();
    running.signal(SIGTERM);
    let stderr = format!("{TERMINATED}\n");
    assert_eq!(running.end(), Ended { how: Ok(0), stdout: String::new(), stderr });
}

/// The control: the filter of the test above does kill.
pub fn one_system_call_less_kills_it() {
    let calls = [&START[..], &END[..2]].concat();
    let running = pause().init().only(&calls).start().ready();
    assert_eq!(running.terminate().how, Err(libc::SIGSYS));
}
