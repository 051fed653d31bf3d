//! Row 6a: the kernel does not reap a child that is traced by its parent. Each such child wakes pause once, and is
//! reaped.

use std::path::Path;

use libc::SIGKILL;

use crate::signals::pauses;
use harness::fork::checked;
use harness::launch::{Launch, become_user, leave_sleeper};
use harness::measure::{be_traced, in_child, in_orphan, orphans, orphans_that, traced_orphans};
use harness::programs::Pause;
use harness::programs::pause;
use harness::until;

/// The number of traced orphans in most tests.
const MANY: usize = 50;

pub fn reaps_orphans_that_it_traces(pause: Pause) {
    let running = pause.launch().init().start().ready();
    traced_orphans(&running, MANY);
    running.childless();
    pauses(running);
}

/// They are stopped by SIGTRAP at execve, and only SIGKILL ends them.
pub fn reaps_orphans_that_it_traces_and_that_are_killed(pause: Pause) {
    let running = pause.launch().init().start().ready();
    // SAFETY: system calls only.
    unsafe { orphans_that(&running, 3, traced_sleep) };
    let pids = until("stopped at execve", || {
        let pids = running.child_pids();
        (pids.len() == 3 && pids.iter().all(|pid| state(*pid) == Some('t'))).then_some(pids)
    });
    for pid in pids {
        // SAFETY: a child of pause that is stopped.
        unsafe { libc::kill(pid, SIGKILL) };
    }
    running.childless();
    pauses(running);
}

pub fn reaps_a_child_that_its_starter_had_seized(pause: Pause) {
    let running = with_seized(pause.launch().init()).start().ready();
    let [pid] = running.child_pids()[..] else { panic!("not one child") };
    // SAFETY: a child of pause that only sleeps.
    unsafe { libc::kill(pid, SIGKILL) };
    running.childless();
    pauses(running);
}

pub fn reaps_orphans_that_it_traces_when_it_is_continued(pause: Pause) {
    let running = pause.launch().init().start().ready();
    running.signal(libc::SIGSTOP);
    running.stopped();
    traced_orphans(&running, MANY);
    until("zombies", || (running.children() == (MANY, MANY)).then_some(()));
    running.signal(libc::SIGCONT);
    running.childless();
    pauses(running);
}

/// As PID 1 has all rights that they have, the kernel lets it be their tracer.
pub fn reaps_orphans_of_another_user_that_it_traces() {
    let running = pause().init().start().ready();
    // SAFETY: system calls only.
    unsafe { orphans_that(&running, MANY, traced_as_nobody) };
    running.childless();
    pauses(running);
}

/// 2,000 ordinary orphans beside them wake nobody.
pub fn is_woken_by_no_other_orphan() {
    let running = pause().init().start().ready();
    running.settle();
    let before = running.sleeps();
    // SAFETY: system calls only.
    unsafe {
        running.inside(|| {
            // Of 2,050, each 41st: 50.
            for n in 0..2_000 + MANY {
                in_child(|| in_orphan(if n % 41 == 0 { be_traced } else { || () }));
            }
            0
        });
    }
    running.childless();
    running.settle();
    let woken = running.sleeps() - before;
    // On a busy machine the kernel may let pause wait for a lock while it reaps, which counts as well.
    assert!((1..=2 * MANY as u64).contains(&woken), "woken {woken} times");
}

/// The control: a program that only ignores SIGCHLD leaves zombies of them, and of no other.
pub fn a_parent_that_only_ignores_sigchld_leaves_zombies() {
    let sleep = Launch::new(Path::new("/bin/sleep")).argument("infinity");
    let running = sleep.ignoring(libc::SIGCHLD).init().start().settled();
    orphans(&running, MANY);
    running.childless();
    traced_orphans(&running, MANY);
    until("zombies", || (running.children() == (MANY, MANY)).then_some(()));
}

/// Row 11: this is what is lost where `rt_sigtimedwait` is refused.
pub fn leaves_zombies_of_them_where_rt_sigtimedwait_is_refused() {
    let running = pause().init().without(libc::SYS_rt_sigtimedwait).start().ready();
    traced_orphans(&running, MANY);
    until("zombies", || (running.children() == (MANY, MANY)).then_some(()));
    pauses(running);
}

/// The state of a process, as `Z`.
fn state(pid: i32) -> Option<char> {
    use procfs_core::{FromRead, process::Stat};
    Some(Stat::from_file(format!("/proc/{pid}/stat")).ok()?.state)
}

/// Gives the program a child that sleeps, and that the program traces.
fn with_seized(launch: Launch) -> Launch {
    let seized = || {
        let pid = leave_sleeper(libc::SIGCHLD)?;
        // SAFETY: a system call.
        checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })
    };
    // SAFETY: system calls only.
    unsafe { launch.before(seized) }
}

// The functions below run in orphans, so they make system calls only.

fn traced_as_nobody() {
    match become_user(65534) {
        Ok(()) => be_traced(),
        // The orphan does not end, which the test notices.
        // SAFETY: a system call.
        Err(_) => drop(unsafe { libc::pause() }),
    }
}

fn traced_sleep() {
    be_traced();
    let (name, time) = (c"/bin/sleep".as_ptr(), c"600".as_ptr());
    // SAFETY: strings that live, and a null pointer at the end.
    unsafe { libc::execl(name, name, time, std::ptr::null::<libc::c_char>()) };
}
