//! Rows 10 and 11, and every other system call that a seccomp filter can refuse.

use libc::{EINTR, EINVAL, ENOSYS, EPERM, SIGCHLD, SIGINT, SIGTERM};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use harness::fork::checked;
use harness::launch::{Launch, UNWRITABLE, Unwritable};
use harness::programs::pause;
use harness::running::SYS_PAUSE;
use harness::{ERROR, TERMINATED, WARNING};

/// A launch of pause as PID 1 with one system call refused.
fn without(call: i64) -> Launch {
    pause().init().without(call)
}

/// A launch of pause as PID 1 that may sleep in no way.
fn sleepless() -> Launch {
    without(libc::SYS_rt_sigtimedwait).without(SYS_PAUSE)
}

/// Asserts that pause still pauses, and what it writes until SIGTERM ends it.
fn pauses(launch: Launch, stderr: &str) {
    let running = launch.start().ready();
    let ended = running.terminate();
    assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(0), stderr));
}

/// A way to make `ppoll` fail.
type WithoutPpoll = fn(Launch) -> Launch;

/// Each way to make `ppoll` fail, with each standard error: an ordinary pipe, where a line would be seen, and the
/// streams that take nothing.
fn without_ppoll_and_unwritable() -> impl Iterator<Item = (WithoutPpoll, Unwritable)> {
    let refused: WithoutPpoll = |launch| launch.without(libc::SYS_ppoll);
    // poll(2): EINVAL if there are more descriptors than RLIMIT_NOFILE.
    // SAFETY: a system call only.
    let limited: WithoutPpoll = |launch| unsafe { launch.before(no_descriptors) };
    let ordinary: Unwritable = |launch, _| launch;
    let unwritable = move || UNWRITABLE.into_iter().chain([ordinary]);
    [refused, limited]
        .into_iter()
        .flat_map(move |without_ppoll| unwritable().map(move |unwritable| (without_ppoll, unwritable)))
}

/// Sets RLIMIT_NOFILE to 0 in the child. Open descriptors stay open.
fn no_descriptors() -> std::io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a system call on a struct that lives.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) })
}

pub fn ends_with_1_2_or_3_without_a_handler() {
    for (signal, status) in [(SIGINT, 1), (SIGTERM, 2), (SIGCHLD, 3)] {
        let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        let condition = SeccompCondition::new(0, length, equal, signal as u64);
        let rule = SeccompRule::new(vec![condition.expect("a condition")]).expect("a rule");
        let refusal = SeccompAction::Errno(EINVAL as u32);
        let calls = vec![(libc::SYS_rt_sigaction, vec![rule])];
        let ended = pause().init().seccomp(refusal, calls).start().end();
        assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(status), ""));
    }
}

pub fn ends_with_1_without_any_handler() {
    assert_eq!(without(libc::SYS_rt_sigaction).start().end().how, Ok(1));
}

pub fn ends_with_42_when_it_may_not_sleep() {
    for errno in [EPERM, ENOSYS] {
        let launch = pause().init().failing(libc::SYS_rt_sigtimedwait, errno);
        let ended = launch.failing(SYS_PAUSE, errno).start().end();
        assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(42), ERROR));
    }
}

/// Every other row is tested so too: see `every_form` in harness/suite.rs.
pub fn sleeps_in_pause_where_rt_sigtimedwait_is_refused() {
    for errno in [EPERM, ENOSYS] {
        let running = pause().init().failing(libc::SYS_rt_sigtimedwait, errno).start();
        running.await_call(&[SYS_PAUSE]);
        let ended = running.terminate();
        assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(0), TERMINATED));
    }
}

pub fn does_not_miss_pause_where_it_is_refused() {
    for errno in [EPERM, ENOSYS] {
        pauses(pause().init().failing(SYS_PAUSE, errno), if cfg!(target_arch = "x86_64") { TERMINATED } else { "" });
    }
}

/// Row 9: to a filter that answers so each time, no answer of pause would be right.
pub fn takes_eintr_for_again_however_often_it_comes() {
    let running = pause().init().failing(libc::SYS_rt_sigtimedwait, EINTR).start();
    harness::until("many rounds", || (running.cost().cpu > 50_000_000).then_some(()));
    let ended = running.terminate();
    assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(0), TERMINATED));
}

pub fn pauses_without_any_one_of_the_other_system_calls() {
    pauses(without(libc::SYS_wait4), TERMINATED);
    pauses(without(libc::SYS_rt_sigprocmask), TERMINATED);
    // With an error in place of a PID pause cannot know whether it is PID 1.
    pauses(without(libc::SYS_getpid), &format!("{WARNING}\n{TERMINATED}"));
    pauses(without(libc::SYS_write), "");
    pauses(without(libc::SYS_ppoll), "");
}

// Rows 1, 3, 4 and 11 where `ppoll` fails: pause writes nothing to any stream, and never waits for a reader.

pub fn prints_no_version_without_ppoll() {
    for (without_ppoll, unwritable) in without_ppoll_and_unwritable() {
        let ended = without_ppoll(unwritable(pause().init().argument("-v"), 1)).start().end();
        assert_eq!((ended.how, ended.stdout.as_str()), (Ok(0), ""));
    }
}

pub fn goes_on_after_no_warning_without_ppoll() {
    for (without_ppoll, unwritable) in without_ppoll_and_unwritable() {
        pauses(without_ppoll(unwritable(pause(), 2)), "");
    }
}

pub fn a_signal_ends_it_without_ppoll() {
    for (without_ppoll, unwritable) in without_ppoll_and_unwritable() {
        for signal in [SIGINT, SIGTERM] {
            let running = without_ppoll(unwritable(pause().init(), 2)).start().ready();
            running.signal(signal);
            let ended = running.end();
            assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(0), ""));
        }
    }
}

pub fn ends_with_42_without_ppoll() {
    for (without_ppoll, unwritable) in without_ppoll_and_unwritable() {
        let ended = without_ppoll(unwritable(sleepless(), 2)).start().end();
        assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(42), ""));
    }
}

/// After the call that may not return there is an instruction that nobody may run.
pub fn a_fault_ends_it_without_exit_group() {
    let fault = if cfg!(target_arch = "x86_64") { libc::SIGILL } else { libc::SIGTRAP };
    let ended = without(libc::SYS_exit_group).start().ready().terminate();
    assert_eq!((ended.how, ended.stderr.trim_end()), (Err(fault), TERMINATED));
}
