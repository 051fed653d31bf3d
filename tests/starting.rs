//! Rows 3, 5 and 7: signal mask, dispositions, pending signals and children at the start.

use libc::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};

use harness::launch::{DEAF, Launch, leave_sleeper, leave_zombie};

const WARNING: &str = "Warning: pause should be the first process\n";

everywhere! {
    fn warns_when_it_is_not_the_first_process(pause) {
        let running = pause().start().ready();
        running.signal(SIGTERM);
        let ended = running.end();
        assert_eq!(ended.stderr, format!("{WARNING}Shutting down, got signal: Terminated\n"));
    }

    fn is_silent_as_the_first_process(pause) {
        let running = pause().init().start().ready();
        running.signal(libc::SIGKILL);
        let ended = running.end();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    }

    fn goes_on_after_the_warning_whatever_standard_error_is(pause) {
        for deaf in DEAF {
            let running = deaf(pause(), 2).start().ready();
            running.signal(SIGTERM);
            assert_eq!(running.end().how, Ok(0));
        }
    }

    fn sigterm_ends_it_when_the_starter_blocked_it(pause) {
        for signal in [SIGTERM, SIGINT] {
            let running = pause().init().blocked().start().ready();
            running.signal(signal);
            assert_eq!(running.end().how, Ok(0));
        }
    }

    fn sigterm_ends_it_when_the_starter_ignored_it(pause) {
        for signal in [SIGTERM, SIGINT] {
            let running = pause().init().ignoring(signal).start().ready();
            running.signal(signal);
            assert_eq!(running.end().how, Ok(0));
        }
    }

    fn sigterm_that_was_pending_ends_it_at_once(pause) {
        for (signal, name) in [(SIGTERM, "Terminated"), (SIGINT, "Interrupt")] {
            let launch = pause().init().blocked().pending(signal);
            let ended = launch.start().end();
            let line = format!("Shutting down, got signal: {name}\n");
            assert_eq!((ended.how, ended.stderr), (Ok(0), line));
        }
    }

    /// While one handler runs, the other signal is blocked.
    fn two_pending_signals_make_one_line(pause) {
        let launch = pause().init().blocked();
        let ended = launch.pending(SIGTERM).pending(SIGINT).start().end();
        assert_eq!((ended.how, ended.stderr.lines().count()), (Ok(0), 1));
    }

    fn reaps_when_the_starter_blocked_or_ignored_sigchld(pause) {
        for launch in [
            pause().init().blocked(),
            pause().init().ignoring(SIGCHLD),
        ] {
            let running = launch.start().ready();
            harness::measure::orphans(&running, 10);
            running.childless();
        }
    }

    fn reaps_a_zombie_from_before_the_start(pause) {
        let running = pause().init().with_zombies(1).start().ready();
        assert_eq!(running.children(), (0, 0));
    }

    fn reaps_200_zombies_from_before_the_start(pause) {
        assert_eq!(pause().with_zombies(200).start().ready().children(), (0, 0));
    }

    /// clone(2) with another exit signal than SIGCHLD makes a child that only `__WALL` finds. One
    /// of SIGCHLD stands before and behind each of the others.
    fn reaps_zombies_whatever_their_exit_signal(pause) {
        let zombies = || {
            let mut signals = [SIGCHLD, 0, SIGCHLD, SIGUSR1, SIGCHLD].into_iter();
            signals.try_for_each(leave_zombie)
        };
        // SAFETY: system calls only.
        let launch = unsafe { pause().init().before(zombies) };
        assert_eq!(launch.start().ready().children(), (0, 0));
    }

    /// The child lives before and after: `wait4` must not wait for its end.
    fn sleeps_beside_a_child_from_before_the_start(pause) {
        let running = with_sleeper(pause().with_zombies(1), SIGCHLD).start().ready();
        assert_eq!(running.children(), (1, 0));
    }

    /// The exit signal of a child counts no more once its parent has called execve: it is SIGCHLD
    /// then (do_notify_parent).
    fn reaps_children_from_before_the_start_that_end_later(pause) {
        for exit_signal in [SIGCHLD, 0, SIGUSR1] {
            let running = with_sleeper(pause().init(), exit_signal).start().ready();
            let [pid] = running.child_pids()[..] else { panic!("not one child") };
            // SAFETY: a child of pause that only sleeps.
            unsafe { libc::kill(pid, SIGTERM) };
            running.childless();
        }
    }
}

/// Gives the program a child that sleeps.
fn with_sleeper(launch: Launch, exit_signal: i32) -> Launch {
    // SAFETY: system calls only.
    unsafe { launch.before(move || leave_sleeper(exit_signal).map(drop)) }
}
