//! A soak: a million orphans, ten thousand starts with signals at random moments, a thousand pod
//! sandboxes, and neighbours that do harm, all at the same time. A C pause beside is the control.

use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Work;
use crate::images::{Images, PAUSE};
use crate::node::{Node, Runtime};
use crate::pod::{CriPod, Mode};
use crate::report::Report;
use harness::cgroup::Cgroup;
use harness::launch::{Launch, fork, full_pipe};
use harness::measure::{self, in_child};
use harness::programs::host;
use harness::running::Running;
use harness::until;

/// What is done in one round, which takes some ten minutes on two CPUs.
const ORPHANS: u64 = 1_000_000;
const STARTS: u64 = 10_000;
const SANDBOXES: u64 = 1_000;
/// One orphan in this many is traced.
const TRACED: u64 = 10;
/// The C pause gets fewer orphans: each of them wakes it.
const CONTROL: u64 = 10_000;

/// How far each of the four works is, for the lines of progress.
#[derive(Default)]
struct Progress {
    orphans: AtomicU64,
    starts: AtomicU64,
    sandboxes: AtomicU64,
    attacks: AtomicU64,
}

/// What a pause has cost when a work ended, beside what it had cost before.
#[derive(Debug, PartialEq)]
struct State {
    sleeps: u64,
    /// The fields of /proc/PID/smaps_rollup and the page tables.
    memory: String,
}

fn state(pause: &Running) -> State {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", pause.pid()));
    let tables = pause.status().vmpte.expect("VmPTE");
    // Its first line has the addresses.
    let maps = file("smaps_rollup").expect("Linux 4.14");
    let maps: Vec<_> = maps.lines().skip(1).collect();
    pause.settle();
    State {
        sleeps: pause.sleeps(),
        memory: format!("{}; page tables {tables} kB", maps.join("; ")),
    }
}

/// Makes orphans, a thousand at a time, as a pod with a storm of them would. pause traces one in
/// ten.
fn orphans(pause: &Running, count: u64, progress: &AtomicU64) {
    for _ in 0..count / 1000 {
        measure::thousands_of_orphans(pause, 1, true);
        progress.fetch_add(1000, Ordering::Relaxed);
    }
    pause.childless();
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let seed = work.seed.unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(3600 * work.hours);
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
    let progress = Progress::default();
    let node = Node::new(Runtime::Containerd2, PAUSE, work, images);
    report.versions(&node.programs);
    let stormed = AtomicBool::new(false);
    thread::scope(|scope| {
        let storm = scope.spawn(|| storm(c_pause, &progress.orphans));
        let starts = scope.spawn(|| starts(seed, &progress.starts));
        let sandboxes = scope.spawn(|| sandboxes(&node, &progress.sandboxes));
        let harm = scope.spawn(|| {
            let mut rng = Rng::with_seed(seed);
            let done = || stormed.load(Ordering::Relaxed);
            harm(&mut rng, c_pause, &progress.attacks, done)
        });
        let begin = Instant::now();
        let works = [&progress.orphans, &progress.starts, &progress.sandboxes, &progress.attacks];
        while !(storm.is_finished()
            && starts.is_finished()
            && sandboxes.is_finished()
            && harm.is_finished())
        {
            thread::sleep(Duration::from_secs(1));
            stormed.store(storm.is_finished(), Ordering::Relaxed);
            if begin.elapsed().as_secs().is_multiple_of(30) {
                let [orphans, starts, sandboxes, attacks] =
                    works.map(|one| one.load(Ordering::Relaxed));
                println!(
                    "  {} s: {orphans} orphans, {starts} starts, {sandboxes} sandboxes, {attacks} attacks",
                    begin.elapsed().as_secs()
                );
            }
        }
        for (what, work) in [
            (format!("{ORPHANS} orphans into one pause"), storm),
            (format!("{STARTS} starts, with signals at random moments"), starts),
            (format!("{SANDBOXES} pod sandboxes made and removed"), sandboxes),
            ("neighbours that do harm".into(), harm),
        ] {
            report.check(&what, || {
                work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
        }
    });
}

/// A million orphans for a pause whose standard error is a full pipe; some for a C pause.
fn storm(c_pause: &Path, progress: &AtomicU64) -> String {
    let pause = full_pipe(Launch::new(&host()).init(), 2).start().ready();
    // The first orphans may still add to what the kernel keeps for the process.
    orphans(&pause, 1000, &AtomicU64::new(0));
    let before = state(&pause);
    orphans(&pause, ORPHANS, progress);
    let after = state(&pause);
    assert_eq!(after.memory, before.memory);
    let ours = after.sleeps - before.sleeps;
    assert!((1..=ORPHANS / TRACED).contains(&ours), "woken {ours} times");
    assert_eq!(pause.children(), (0, 0), "children, and zombies");
    pause.signal(libc::SIGTERM);
    assert_eq!(pause.end().how, Ok(0), "SIGTERM with a full pipe as standard error");

    let c = Launch::new(c_pause).init().start().settled();
    let before = c.settle().switches;
    orphans(&c, CONTROL, &AtomicU64::new(0));
    let woken = c.settle().switches - before;
    assert!(woken > 0, "the C pause was not woken either: there were no orphans");
    format!(
        "{} were traced, and woke it {ours} times; 0 zombies, the same memory ({}); C: {CONTROL} orphans woke it {woken} times",
        ORPHANS / TRACED,
        short(&after.memory)
    )
}

/// The resident memory in a line of /proc.
fn short(memory: &str) -> String {
    let rss = memory.split("; ").find(|field| field.starts_with("Rss:")).unwrap_or(memory);
    rss.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Starts pause as PID 1, sends a signal at a random moment after execve, and ends it.
fn starts(seed: u64, progress: &AtomicU64) -> String {
    let mut rng = Rng::with_seed(seed);
    let (mut early, mut late) = (0, 0);
    for n in 0..STARTS {
        let pause = Launch::new(&host()).init().start();
        let moment = Instant::now() + Duration::from_micros(rng.u64(0..400));
        while Instant::now() < moment {}
        let signal = *rng.choice(&SIGNALS).expect("one of them");
        pause.signal(signal);
        // The kernel drops a signal that PID 1 has no handler for, as it has none for SIGTERM in
        // its first instructions: then pause sleeps, and ends by the next. SIGSTOP stops it from
        // outside.
        if signal == libc::SIGSTOP {
            pause.signal(libc::SIGCONT);
        }
        let mut alive = true;
        until("pause sleeps, or has ended", || {
            alive = pause.is_alive();
            let asleep = harness::running::sleeps(pause.pid());
            (!alive || asleep).then_some(())
        });
        match alive {
            true => {
                late += 1;
                pause.signal(libc::SIGTERM);
            }
            false => early += 1,
        }
        let how = pause.end().how;
        match (signal, alive) {
            (libc::SIGKILL, _) => {
                assert!(how == Err(libc::SIGKILL) || how == Ok(0), "start {n}: {how:?}")
            }
            _ => assert_eq!(how, Ok(0), "start {n}, signal {signal}"),
        }
        progress.fetch_add(1, Ordering::Relaxed);
    }
    format!(
        "{early} ended by the first signal, {late} by a SIGTERM after it; all with 0, or by SIGKILL"
    )
}

const SIGNALS: [i32; 8] = [
    libc::SIGTERM,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGCHLD,
    libc::SIGSTOP,
    libc::SIGKILL,
];

/// Makes and removes sandboxes, four at a time, on a node that has none before.
fn sandboxes(node: &Node, progress: &AtomicU64) -> String {
    const WORKERS: u64 = 4;
    let left = || {
        let count = |line: &str| node.sh(line).parse::<u64>().expect("a number");
        [
            count("ls /proc/[0-9]*/exe -l 2>/dev/null | grep -c '/pause$' || true"),
            count("grep -c sandboxes /proc/self/mountinfo || true"),
            count("ls /run/netns /var/run/netns 2>/dev/null | grep -c cni || true"),
            count("find /sys/fs/cgroup -type d -path '*pause-e2e/*' | wc -l"),
            count("ctr --namespace k8s.io containers list --quiet | wc -l"),
        ]
    };
    let before = left();
    let pod = CriPod::new(node, Mode::Pod);
    let (with_one, none) = (left(), [0; 5]);
    assert!(
        before == none && !with_one.contains(&0),
        "{with_one:?}: what to look for is not known"
    );
    pod.remove();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..SANDBOXES / WORKERS {
                    CriPod::new(node, Mode::Pod).remove();
                    progress.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    until("what the sandboxes had is gone", || (left() == before).then_some(()));
    "no process, mount, network namespace, control group or container is left".into()
}

/// Does harm to a pause, in random order, until `done`: it is stopped, frozen, in a group whose
/// memory is used up or whose process table is full. Each time orphans end meanwhile.
fn harm(rng: &mut Rng, c_pause: &Path, progress: &AtomicU64, done: impl Fn() -> bool) -> String {
    let pause = Launch::new(&host()).init().start().ready();
    let memory = Cgroup::new("memory");
    memory.add(pause.pid());
    memory.set(if memory.unified { "memory.max" } else { "memory.limit_in_bytes" }, "16777216");
    let freezer = Cgroup::new("freezer");
    if !freezer.unified || !memory.unified {
        freezer.add(pause.pid());
    }
    let freezer = if freezer.unified && memory.unified { &memory } else { &freezer };
    let mut counts = [0; 4];
    while !done() || counts.contains(&0) {
        let kind = rng.usize(0..4);
        match kind {
            0 => {
                pause.signal(libc::SIGSTOP);
                pause.stopped();
                measure::orphans(&pause, 20);
                until("no zombie while it is stopped", || {
                    (pause.children() == (0, 0)).then_some(())
                });
                measure::traced_orphans(&pause, 5);
                until("zombies of those that it traces", || {
                    (pause.children() == (5, 5)).then_some(())
                });
                pause.signal(libc::SIGCONT);
                pause.childless();
            }
            1 => {
                freezer.freeze(true);
                measure::orphans(&pause, 20);
                until("no zombie while it is frozen", || {
                    (pause.children() == (0, 0)).then_some(())
                });
                freezer.freeze(false);
            }
            2 => assert!(out_of_memory(&pause, &memory), "nothing was killed"),
            _ => assert!(!fills_the_table(&pause), "zombies filled the process table"),
        }
        counts[kind] += 1;
        progress.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(rng.u64(0..50)));
    }
    pause.signal(libc::SIGTERM);
    assert_eq!(pause.end().how, Ok(0));
    let c = Launch::new(c_pause).init().start().settled();
    assert!(fills_the_table(&c), "zombies of a C pause did not fill the process table");
    format!(
        "stopped {} times, frozen {}, out of memory {}, 20 processes at most {}: no zombie, and SIGTERM ends it with 0; \
         C, stopped, with 20 processes at most: zombies fill the table",
        counts[0], counts[1], counts[2], counts[3]
    )
}

/// Lets a process in the group of pause take memory until the kernel kills it.
fn out_of_memory(pause: &Running, group: &Cgroup) -> bool {
    let procs = group.file("cgroup.procs");
    let killed = |group: &Cgroup| {
        let file = if group.unified { "memory.events" } else { "memory.oom_control" };
        let text = group.get(file);
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("the count").parse::<u64>().expect("a number")
    };
    let before = killed(group);
    // SAFETY: system calls, and writes to memory that was mapped.
    unsafe {
        pause.inside(|| {
            in_child(|| {
                const SIZE: usize = 64 << 20;
                let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
                libc::write(file, c"0".as_ptr().cast(), 1);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let memory = libc::mmap(ptr::null_mut(), SIZE, libc::PROT_WRITE, flags, -1, 0);
                for at in (0..SIZE).step_by(4096) {
                    memory.cast::<u8>().add(at).write_volatile(1);
                }
            });
            0
        });
    }
    assert!(pause.is_alive(), "the kernel killed pause");
    killed(group) > before
}

/// Stops pause, and makes 200 orphans in a group in which there may be 20 processes. Returns
/// whether zombies filled its process table.
fn fills_the_table(pause: &Running) -> bool {
    let group = Cgroup::new("pids");
    group.set("pids.max", "20");
    let procs = group.file("cgroup.procs");
    pause.signal(libc::SIGSTOP);
    pause.stopped();
    // SAFETY: new memory, which the process inside shares; zeros are a valid value.
    let full: &AtomicBool = unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(ptr::null_mut(), 4096, access, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED, "mmap");
        &*memory.cast()
    };
    // SAFETY: system calls only; the children make no others.
    unsafe {
        pause.inside(|| {
            let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
            libc::write(file, c"0".as_ptr().cast(), 1);
            for _ in 0..200 {
                // An orphan that has ended may be there for a moment more.
                let mut tries = 0;
                while !one_orphan() {
                    tries += 1;
                    if tries == 1000 {
                        full.store(true, Ordering::Relaxed);
                        return 0;
                    }
                    libc::usleep(1000);
                }
            }
            0
        });
    }
    pause.signal(libc::SIGCONT);
    pause.childless();
    full.load(Ordering::Relaxed)
}

/// Makes an orphan that ends, by a child. Returns whether both could be made.
///
/// # Safety
///
/// The caller is a process that may make system calls only.
unsafe fn one_orphan() -> bool {
    // SAFETY: the children make system calls only.
    unsafe {
        let child = fork();
        match child {
            -1 => return false,
            0 => libc::_exit(match fork() {
                -1 => 1,
                _ => 0,
            }),
            _ => (),
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0) == child && status == 0
    }
}
