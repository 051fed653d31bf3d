//! A soak: a million orphans, ten thousand starts with signals at random moments and a thousand pod sandboxes, all at
//! the same time. A C pause beside is the control.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1};

use crate::images::Images;
use crate::node::{Node, Runtime};
use crate::pod::{CriPod, Mode};
use crate::report::Report;
use crate::work::{PAUSE, Work};
use harness::launch::{Launch, full_pipe};
use harness::programs::host;
use harness::running::Running;
use harness::{measure, until};

/// What is done in one round, which takes some ten minutes on two CPUs.
const ORPHANS: u64 = 1_000_000;
const STARTS: u64 = 10_000;
const SANDBOXES: u64 = 1_000;
/// One orphan in this many is traced.
const TRACED: u64 = 10;
/// The C pause gets fewer orphans: each of them wakes it.
const CONTROL: u64 = 10_000;

/// The resident memory and the page tables of a pause.
fn memory(pause: &Running) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pause.pid())).expect("Linux 4.14");
    let rss = maps.lines().find(|line| line.starts_with("Rss:")).expect("Rss");
    format!("{rss}, page tables {} kB", pause.status().vmpte.expect("VmPTE"))
}

/// Makes orphans, a thousand at a time, as a pod with a storm of them would. pause traces one in ten.
fn orphans(pause: &Running, count: u64) {
    measure::thousands_of_orphans(pause, count as usize / 1000, true);
    pause.childless();
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let seed = work.soak.seed.unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(3600 * work.soak.hours);
    report.note(&format!("the random seed: {seed}"));
    let c_pause = work.folder.join("pause-c");
    for round in 0.. {
        one_round(seed.wrapping_add(round), &c_pause, work, images, report);
        if Instant::now() >= end {
            break;
        }
    }
}

fn one_round(seed: u64, c_pause: &Path, work: &Work, images: &Images, report: &mut Report) {
    let node = images.node(Runtime::Containerd2, PAUSE, work);
    report.versions(&node.programs);
    thread::scope(|scope| {
        let works = [
            (format!("{ORPHANS} orphans into one pause"), scope.spawn(|| storm(c_pause))),
            (format!("{STARTS} starts, with signals at random moments"), scope.spawn(|| at_random(seed))),
            (format!("{SANDBOXES} pod sandboxes made and removed"), scope.spawn(|| pods(&node))),
        ];
        for (what, work) in works {
            report.check(&what, || work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
}

/// A million orphans for a pause whose standard error is a full pipe; some for a C pause.
fn storm(c_pause: &Path) -> String {
    let pause = full_pipe(Launch::new(&host()).init(), 2).start().ready();
    // The first orphans may still add to what the kernel keeps for the process.
    orphans(&pause, 1000);
    pause.settle();
    let (before, sleeps) = (memory(&pause), pause.sleeps());
    orphans(&pause, ORPHANS);
    pause.settle();
    assert_eq!(memory(&pause), before);
    let ours = pause.sleeps() - sleeps;
    assert!((1..=ORPHANS / TRACED).contains(&ours), "woken {ours} times");
    assert_eq!(pause.children(), (0, 0), "children, and zombies");
    pause.signal(SIGTERM);
    assert_eq!(pause.end().how, Ok(0), "SIGTERM with a full pipe as standard error");

    let c = Launch::new(c_pause).init().start().settled();
    let switches = c.settle().switches;
    orphans(&c, CONTROL);
    let woken = c.settle().switches - switches;
    assert!(woken > 0, "the C pause was not woken either: there were no orphans");
    let traced = ORPHANS / TRACED;
    format!("{traced} traced ones woke it {ours} times; the same memory ({before}); C: {CONTROL} woke it {woken} times")
}

const SIGNALS: [i32; 8] = [SIGTERM, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGSTOP, SIGKILL];

/// Starts pause as PID 1, sends a signal at a random moment after execve, and ends it.
fn at_random(seed: u64) -> String {
    let mut rng = Rng::with_seed(seed);
    let mut early = 0;
    for n in 0..STARTS {
        let pause = Launch::new(&host()).init().start();
        let moment = Instant::now() + Duration::from_micros(rng.u64(0..400));
        while Instant::now() < moment {}
        let signal = *rng.choice(&SIGNALS).expect("one of them");
        pause.signal(signal);
        // The kernel drops a signal that PID 1 has no handler for, as it has none for SIGTERM in its first
        // instructions: then pause sleeps, and ends by the next. SIGSTOP stops it from outside.
        if signal == SIGSTOP {
            pause.signal(SIGCONT);
        }
        let alive = until("pause sleeps, or has ended", || {
            let alive = pause.is_alive();
            (!alive || harness::running::sleeps(pause.pid())).then_some(alive)
        });
        if alive {
            pause.signal(SIGTERM);
        }
        early += u64::from(!alive);
        let how = pause.end().how;
        let killed = signal == SIGKILL && how == Err(SIGKILL);
        assert!(how == Ok(0) || killed, "start {n}, signal {signal}: {how:?}");
    }
    format!("{early} ended by that signal, {} by a SIGTERM after it; with 0, or by SIGKILL", STARTS - early)
}

/// Makes and removes sandboxes, four at a time, on a node that has none before.
fn pods(node: &Node) -> String {
    const WORKERS: u64 = 4;
    let left = || {
        [
            "ls /proc/[0-9]*/exe -l 2>/dev/null | grep -c '/pause$' || true",
            "grep -c sandboxes /proc/self/mountinfo || true",
            "ls /run/netns /var/run/netns 2>/dev/null | grep -c cni || true",
            "find /sys/fs/cgroup -type d -path '*pause-e2e/*' | wc -l",
            "ctr --namespace k8s.io containers list --quiet | wc -l",
        ]
        .map(|line| node.sh(line).parse::<u64>().expect("a number"))
    };
    let pod = CriPod::new(node, Mode::Pod);
    assert!(!left().contains(&0), "what to look for is not known");
    pod.remove();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..SANDBOXES / WORKERS {
                    CriPod::new(node, Mode::Pod).remove();
                }
            });
        }
    });
    until("what the sandboxes had is gone", || (left() == [0; 5]).then_some(()));
    "no process, mount, network namespace, control group or container is left".into()
}
