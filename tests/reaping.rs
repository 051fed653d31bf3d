//! Row 6: children and orphans that end leave no zombie, and pause is not woken.

use harness::cgroup::Cgroup;
use harness::launch::{Launch, leave_zombie};
use harness::measure::{in_orphan, orphans, orphans_that, thousands_of_orphans};
use harness::programs::Pause;
use harness::programs::pause;
use harness::running::Running;

pub fn reaps_one_orphan(pause: Pause) {
    let running = pause.launch().init().start().ready();
    orphans(&running, 1);
    running.childless();
}

/// All orphans exist before the first of them ends.
pub fn reaps_200_orphans_at_once(pause: Pause) {
    let running = pause.launch().init().start().ready();
    // SAFETY: system calls only.
    unsafe { orphans_that(&running, 200, sleep) };
    let orphans = running.child_pids();
    assert_eq!(orphans.len(), 200);
    for pid in orphans {
        // SAFETY: a child of pause that only sleeps.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    running.childless();
}

/// The child of an orphan becomes an orphan when its parent ends.
pub fn reaps_grandchildren(pause: Pause) {
    let running = pause.launch().init().start().ready();
    // SAFETY: system calls only.
    unsafe { orphans_that(&running, 1, || in_orphan(|| in_orphan(|| ()))) };
    running.childless();
}

/// The children are zombies of another parent when that parent ends.
pub fn reaps_orphans_that_arrive_dead(pause: Pause) {
    let running = pause.launch().init().start().ready();
    zombies(&running, 200);
    running.childless();
}

pub fn leaves_no_zombie_while_it_is_stopped(pause: Pause) {
    let running = pause.launch().init().start().ready();
    running.signal(libc::SIGSTOP);
    running.stopped();
    orphans(&running, 100);
    zombies(&running, 100);
    running.childless();
    assert_eq!(running.status().state.chars().next(), Some('T'));
}

pub fn reaps_20000_orphans_in_a_row_without_waking() {
    let running = pause().init().start().ready();
    let before = running.settle();
    thousands_of_orphans(&running, 20, false);
    running.childless();
    assert_eq!(running.settle(), before);
}

/// The control: a program that does not ignore SIGCHLD leaves zombies, and these tests see them.
pub fn a_stopped_parent_with_a_handler_leaves_zombies() {
    let shell = std::path::Path::new("/bin/sh");
    let launch = Launch::new(shell);
    // A shell replaces itself by its last command, so one more command keeps it alive.
    let script = "trap : CHLD; while :; do read x; done; :";
    let running = launch.argv(&["sh", "-c", script]).endless_input().init().start();
    running.await_call(&[libc::SYS_read]);
    running.signal(libc::SIGSTOP);
    running.stopped();
    orphans(&running, 10);
    harness::until("10 zombies", || (running.children() == (10, 10)).then_some(()));
}

pub fn leaves_no_zombie_while_it_is_frozen() {
    let group = Cgroup::new("freezer"); // removed after what is in it
    let running = pause().init().start().ready();
    group.add(running.pid());
    group.freeze(true);
    let before = running.cost();
    orphans(&running, 1000);
    running.childless();
    assert_eq!(running.cost(), before);
    group.freeze(false);
}

pub fn leaves_no_zombie_with_the_least_cpu_there_is() {
    let group = Cgroup::new("cpu"); // removed after what is in it
    let running = pause().init().start().ready();
    group.limit_cpu();
    group.add(running.pid());
    let before = running.settle();
    orphans(&running, 1000);
    running.childless();
    assert_eq!(running.settle(), before);
}

/// Makes zombies of another parent, which then ends: they are dead when PID 1 becomes their parent.
fn zombies(running: &Running, count: usize) {
    // SAFETY: system calls only.
    unsafe {
        running.inside(|| {
            let made = (0..count).try_for_each(|_| leave_zombie(libc::SIGCHLD));
            made.is_err() as i32
        });
    }
}

// The functions below run in forks of the test inside of the namespace, so they make system calls only.

fn sleep() {
    // SAFETY: system calls only. A signal ends the process.
    unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0) };
}
