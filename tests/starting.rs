//! Rows 3, 5 and 7: signal mask, dispositions, pending signals and children at the start.

use libc::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};

use harness::launch::{Launch, UNWRITABLE, leave_sleeper, leave_zombie};
use harness::programs::Pause;
use harness::{INTERRUPT, TERMINATED, WARNING};

pub fn warns_when_it_is_not_the_first_process(pause: Pause) {
    let running = pause.launch().start().ready();
    let ended = running.terminate();
    assert_eq!(ended.stderr, format!("{WARNING}\n{TERMINATED}\n"));
}

pub fn is_silent_as_the_first_process(pause: Pause) {
    let running = pause.launch().init().start().ready();
    running.signal(libc::SIGKILL);
    let ended = running.end();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

pub fn goes_on_after_the_warning_whatever_standard_error_is(pause: Pause) {
    for unwritable in UNWRITABLE {
        let running = unwritable(pause.launch(), 2).start().ready();
        assert_eq!(running.terminate().how, Ok(0));
    }
}

pub fn sigterm_ends_it_when_the_starter_blocked_it(pause: Pause) {
    for signal in [SIGTERM, SIGINT] {
        let running = pause.launch().init().blocked().start().ready();
        running.signal(signal);
        assert_eq!(running.end().how, Ok(0));
    }
}

pub fn sigterm_ends_it_when_the_starter_ignored_it(pause: Pause) {
    for signal in [SIGTERM, SIGINT] {
        let running = pause.launch().init().ignoring(signal).start().ready();
        running.signal(signal);
        assert_eq!(running.end().how, Ok(0));
    }
}

pub fn a_signal_that_was_pending_ends_it_at_once(pause: Pause) {
    for (signal, line) in [(SIGTERM, TERMINATED), (SIGINT, INTERRUPT)] {
        let launch = pause.launch().init().blocked().pending(signal);
        let ended = launch.start().end();
        assert_eq!((ended.how, ended.stderr), (Ok(0), format!("{line}\n")));
    }
}

/// While one handler runs, the other signal is blocked.
pub fn two_pending_signals_make_one_line(pause: Pause) {
    let launch = pause.launch().init().blocked();
    let ended = launch.pending(SIGTERM).pending(SIGINT).start().end();
    assert_eq!((ended.how, ended.stderr.lines().count()), (Ok(0), 1));
}

pub fn reaps_when_the_starter_blocked_or_ignored_sigchld(pause: Pause) {
    for launch in [pause.launch().init().blocked(), pause.launch().init().ignoring(SIGCHLD)] {
        let running = launch.start().ready();
        harness::measure::orphans(&running, 10);
        running.childless();
    }
}

pub fn reaps_a_zombie_from_before_the_start(pause: Pause) {
    let running = pause.launch().init().with_zombies(1).start().ready();
    assert_eq!(running.children(), (0, 0));
}

pub fn reaps_200_zombies_from_before_the_start(pause: Pause) {
    assert_eq!(pause.launch().with_zombies(200).start().ready().children(), (0, 0));
}

/// clone(2) with another exit signal than SIGCHLD makes a child that only `__WALL` finds. One of SIGCHLD stands before
/// and behind each of the others.
pub fn reaps_zombies_whatever_their_exit_signal(pause: Pause) {
    let zombies = || {
        let mut signals = [SIGCHLD, 0, SIGCHLD, SIGUSR1, SIGCHLD].into_iter();
        signals.try_for_each(leave_zombie)
    };
    // SAFETY: system calls only.
    let launch = unsafe { pause.launch().init().before(zombies) };
    assert_eq!(launch.start().ready().children(), (0, 0));
}

/// The child lives before and after: `wait4` must not wait for its end.
pub fn sleeps_beside_a_child_from_before_the_start(pause: Pause) {
    let running = with_sleeper(pause.launch().with_zombies(1), SIGCHLD).start().ready();
    assert_eq!(running.children(), (1, 0));
}

/// The exit signal of a child counts no more once its parent has called execve: it is SIGCHLD then (do_notify_parent).
pub fn reaps_children_from_before_the_start_that_end_later(pause: Pause) {
    for exit_signal in [SIGCHLD, 0, SIGUSR1] {
        let running = with_sleeper(pause.launch().init(), exit_signal).start().ready();
        let [pid] = running.child_pids()[..] else { panic!("not one child") };
        // SAFETY: a child of pause that only sleeps.
        unsafe { libc::kill(pid, SIGTERM) };
        running.childless();
    }
}

/// Gives the program a child that sleeps.
fn with_sleeper(launch: Launch, exit_signal: i32) -> Launch {
    // SAFETY: system calls only.
    unsafe { launch.before(move || leave_sleeper(exit_signal).map(drop)) }
}
