//! Rows 3, 5 and 7: signal mask, dispositions, pending signals and children at the start.

use libc::{SIGCHLD, SIGINT, SIGTERM};

use harness::launch::{DEAF, block_all_signals, checked, fork, ignore, leave_zombie};

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
            let running = pause().init().before(block_all_signals).start().ready();
            running.signal(signal);
            assert_eq!(running.end().how, Ok(0));
        }
    }

    fn sigterm_ends_it_when_the_starter_ignored_it(pause) {
        for signal in [SIGTERM, SIGINT] {
            let running = pause().init().before(ignore(signal)).start().ready();
            running.signal(signal);
            assert_eq!(running.end().how, Ok(0));
        }
    }

    fn sigterm_that_was_pending_ends_it_at_once(pause) {
        for (signal, name) in [(SIGTERM, "Terminated"), (SIGINT, "Interrupt")] {
            let launch = pause().init().before(block_all_signals).before(pending(signal));
            let ended = launch.start().end();
            let line = format!("Shutting down, got signal: {name}\n");
            assert_eq!((ended.how, ended.stderr), (Ok(0), line));
        }
    }

    /// While one handler runs, the other signal is blocked.
    fn two_pending_signals_make_one_line(pause) {
        let launch = pause().init().before(block_all_signals);
        let ended = launch.before(pending(SIGTERM)).before(pending(SIGINT)).start().end();
        assert_eq!((ended.how, ended.stderr.lines().count()), (Ok(0), 1));
    }

    fn reaps_when_the_starter_blocked_or_ignored_sigchld(pause) {
        for launch in [
            pause().init().before(block_all_signals),
            pause().init().before(ignore(SIGCHLD)),
        ] {
            let running = launch.start().ready();
            harness::measure::orphans(&running, 10);
            running.childless();
        }
    }

    fn reaps_a_zombie_from_before_the_start(pause) {
        let running = pause().init().before(leave_zombie).start().ready();
        assert_eq!(running.children(), (0, 0));
    }

    fn reaps_200_zombies_from_before_the_start(pause) {
        let launch = pause().before(|| (0..200).try_for_each(|_| leave_zombie()));
        assert_eq!(launch.start().ready().children(), (0, 0));
    }

    /// The child lives before and after: `wait4` must not wait for its end.
    fn sleeps_beside_a_child_from_before_the_start(pause) {
        let running = pause().before(leave_zombie).before(leave_sleeper).start().ready();
        assert_eq!(running.children(), (1, 0));
    }
}

/// Makes `signal` pending in the child process, where it is blocked.
fn pending(signal: i32) -> impl Fn() -> std::io::Result<()> {
    // SAFETY: a system call.
    move || checked(unsafe { libc::kill(libc::getpid(), signal) })
}

/// Makes a child that lives as long as the program does.
fn leave_sleeper() -> std::io::Result<()> {
    // SAFETY: system calls only.
    unsafe {
        let pid = fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // execve closes the pipe that reports errors to the test; this process makes no execve.
            libc::close_range(3, u32::MAX, 0);
            libc::pause();
        }
        checked(pid)
    }
}
