//! Rows 8 and 9: every signal; stopping, tracing and freezing pause.

use libc::{SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use harness::cgroup::Cgroup;
use harness::programs::Pause;
use harness::programs::pause;
use harness::running::Running;
use harness::until;

const LAST: i32 = 64;

/// Asserts that pause still pauses, and that SIGTERM still ends it.
pub fn pauses(running: Running) {
    let running = running.ready();
    assert!(running.is_alive());
    assert_eq!(running.terminate().how, Ok(0));
}

fn init() -> Running {
    pause().init().start().ready()
}

pub fn goes_on_after_a_stop(pause: Pause) {
    let mut running = pause.launch().init().start().ready();
    for _ in 0..3 {
        running.signal(SIGSTOP);
        running.stopped();
        running.signal(SIGCONT);
        running = running.ready();
    }
    pauses(running);
}

pub fn sigterm_while_stopped_ends_it_once_continued(pause: Pause) {
    let running = pause.launch().init().start().ready();
    running.signal(SIGSTOP);
    running.stopped();
    running.signal(SIGTERM);
    running.signal(SIGCONT);
    assert_eq!(running.end().how, Ok(0));
}

/// signal(7) and the kernel's sig_task_ignored: PID 1 of a namespace gets only signals that it handles, and SIGKILL and
/// SIGSTOP from an outer namespace.
pub fn every_signal_from_outside_as_the_first_process() {
    for signal in 1..=LAST {
        let running = init();
        running.signal(signal);
        match signal {
            SIGINT | SIGTERM => assert_eq!(running.end().how, Ok(0), "signal {signal}"),
            SIGKILL => assert_eq!(running.end().how, Err(SIGKILL)),
            SIGSTOP => {
                running.stopped();
                running.signal(SIGCONT);
                pauses(running);
            }
            _ => pauses(running),
        }
    }
}

/// From inside the namespace not even SIGKILL and SIGSTOP.
pub fn every_signal_from_inside_as_the_first_process() {
    for signal in 1..=LAST {
        let running = init();
        running.signal_from_inside(signal);
        match signal {
            SIGINT | SIGTERM => assert_eq!(running.end().how, Ok(0), "signal {signal}"),
            _ => pauses(running),
        }
    }
}

/// Outside of a PID namespace the default actions of signal(7) apply.
pub fn every_signal_elsewhere() {
    for signal in 1..=LAST {
        let running = pause().start().ready();
        running.signal(signal);
        match signal {
            SIGINT | SIGTERM => assert_eq!(running.end().how, Ok(0), "signal {signal}"),
            SIGCHLD | SIGCONT | SIGURG | SIGWINCH => pauses(running),
            SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => {
                running.stopped();
                running.signal(SIGCONT);
                pauses(running);
            }
            _ => assert_eq!(running.killed_by(), signal),
        }
    }
}

pub fn no_signal_but_those_that_it_waits_for_wakes_it() {
    let running = init();
    let before = running.settle();
    for signal in 1..=LAST {
        if ![SIGINT, SIGTERM, SIGKILL, SIGSTOP, SIGCHLD].contains(&signal) {
            running.signal(signal);
        }
    }
    assert_eq!(running.settle(), before);
}

/// Row 6a: nothing follows, in particular no busy loop.
pub fn a_sigchld_that_somebody_sends_wakes_it_once() {
    let running = init();
    for _ in 0..3 {
        let before = running.settle();
        let sleeps = running.sleeps();
        running.signal(SIGCHLD);
        until("woken", || (running.sleeps() > sleeps).then_some(()));
        assert_ne!(running.settle(), before);
        assert_eq!(running.sleeps(), sleeps + 1);
    }
    pauses(running);
}

pub fn goes_on_after_a_debugger() {
    let running = init();
    let pid = Pid::from_raw(running.pid());
    for _ in 0..3 {
        ptrace::attach(pid).expect("attach");
        waitpid(pid, None).expect("its stop");
        ptrace::detach(pid, None).expect("detach");
    }
    pauses(running);
}

pub fn goes_on_after_the_freezer() {
    let group = Cgroup::new("freezer"); // removed after what is in it
    let running = init();
    group.add(running.pid());
    for _ in 0..3 {
        group.freeze(true);
        group.freeze(false);
    }
    pauses(running);
}
