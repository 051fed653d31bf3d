//! Row 6: children and orphans that end leave no zombie, and pause is not woken.

use crate::signals::freeze;
use harness::cgroup::Cgroup;
use harness::launch::{Launch, endless_input, leave_zombie};
use harness::measure::{in_child, in_orphan, orphans};
use harness::programs::pause;

everywhere! {
    fn reaps_one_orphan(pause) {
        let running = pause().init().start().ready();
        orphans(&running, 1);
        running.childless();
    }

    /// All orphans exist before the first of them ends.
    fn reaps_200_orphans_at_once(pause) {
        let running = pause().init().start().ready();
        running.inside(|| {
            (0..200).for_each(|_| in_child(|| in_orphan(sleep)));
            0
        });
        let orphans = running.child_pids();
        assert_eq!(orphans.len(), 200);
        for pid in orphans {
            // SAFETY: a child of pause that only sleeps.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        running.childless();
    }

    fn reaps_a_child_that_a_signal_killed(pause) {
        let running = pause().init().start().ready();
        running.inside(|| {
            in_child(|| in_orphan(kill_self));
            0
        });
        running.childless();
    }

    /// The child of an orphan becomes an orphan when its parent ends.
    fn reaps_grandchildren(pause) {
        let running = pause().init().start().ready();
        running.inside(|| {
            in_child(|| in_orphan(|| in_orphan(|| in_orphan(|| ()))));
            0
        });
        running.childless();
    }

    /// The children are zombies of another parent when that parent ends.
    fn reaps_orphans_that_arrive_dead(pause) {
        let running = pause().init().start().ready();
        running.inside(|| {
            in_child(|| (0..200).for_each(|_| zombie()));
            0
        });
        running.childless();
    }

    fn leaves_no_zombie_while_it_is_stopped(pause) {
        let running = pause().init().start().ready();
        running.signal(libc::SIGSTOP);
        running.stopped();
        orphans(&running, 100);
        running.inside(|| {
            in_child(|| (0..100).for_each(|_| zombie()));
            0
        });
        running.childless();
        assert_eq!(running.status().state.chars().next(), Some('T'));
    }
}

limited! {
    fn reaps_10000_orphans_in_a_row_without_waking() {
        let running = pause().init().start().ready();
        let before = running.settle();
        orphans(&running, 10_000);
        running.childless();
        assert_eq!(running.settle(), before);
    }

    /// The control: a program that does not ignore SIGCHLD leaves zombies, and these tests see
    /// them.
    fn a_stopped_parent_with_a_handler_leaves_zombies() {
        let shell = std::path::Path::new("/bin/sh");
        let launch = Launch::new(shell);
        // A shell replaces itself by its last command, so one more command keeps it alive.
        let script = "trap : CHLD; while :; do read x; done; :";
        let running = launch.argv(&["sh", "-c", script]).before(endless_input).init().start();
        running.await_call(&[libc::SYS_read]);
        running.signal(libc::SIGSTOP);
        running.stopped();
        orphans(&running, 10);
        harness::until("10 zombies", || (running.children() == (10, 10)).then_some(()));
    }

    #[ignore = "needs scripts/test"]
    fn leaves_no_zombie_while_it_is_frozen() {
        let group = Cgroup::new("freezer"); // removed after what is in it
        let running = pause().init().start().ready();
        group.add(running.pid());
        freeze(&group, true);
        let before = running.cost();
        orphans(&running, 1000);
        running.childless();
        assert_eq!(running.cost(), before);
        freeze(&group, false);
    }

    #[ignore = "needs scripts/test"]
    fn leaves_no_zombie_with_the_least_cpu_there_is() {
        let group = Cgroup::new("cpu"); // removed after what is in it
        let running = pause().init().start().ready();
        // 1 ms of CPU time in each second, in microseconds: the smallest quota that the kernel takes.
        match group.unified {
            true => group.set("cpu.max", "1000 1000000"),
            false => {
                group.set("cpu.cfs_period_us", "1000000");
                group.set("cpu.cfs_quota_us", "1000");
            }
        }
        group.add(running.pid());
        let before = running.settle();
        orphans(&running, 1000);
        running.childless();
        assert_eq!(running.settle(), before);
    }
}

// The functions below run in forks of the test inside of the namespace, so they make system
// calls only.

/// Makes a child that ends and stays a zombie.
fn zombie() {
    if leave_zombie().is_err() {
        // SAFETY: system calls only. The test sees the exit status.
        unsafe { libc::_exit(1) }
    }
}

fn kill_self() {
    // SAFETY: a system call.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn sleep() {
    // SAFETY: system calls only. A signal ends the process.
    unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0) };
}
