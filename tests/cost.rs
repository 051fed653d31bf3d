//! What pause costs beside a program that does nothing, in the same run. All of
//! it is counted but the last, which is a ratio.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::unistd::Pid;
use procfs_core::FromRead;
use procfs_core::process::SmapsRollup;

use crate::harness::cgroup::Cgroup;
use crate::harness::launch::{Launch, checked, endless_input};
use crate::harness::programs::{SYS_SLEEP, host, pause, program};
use crate::harness::running::{Running, call_of};
use crate::harness::until;
use crate::reaping::orphans;

/// What a sleeping process holds, and what it took to get there.
#[derive(Debug, PartialEq)]
struct Memory {
    /// In bytes.
    resident: u64,
    /// In bytes: private, and not of a file.
    anonymous: u64,
    /// In kB.
    page_tables: u64,
    /// Minor ones, since execve.
    faults: u64,
}

/// Measures `program` under the one path, so that its stack has the same content
/// and, without address randomisation, the same place within a page.
fn memory(program: &Path, folder: &str) -> Memory {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("program");
    fs::copy(program, &path).expect("a copy");
    let fixed = || {
        personality::set(Persona::ADDR_NO_RANDOMIZE)
            .map(drop)
            .map_err(std::io::Error::from)
    };
    let running = Launch::new(&path).init().before(fixed).start_traced();
    let pid = Pid::from_raw(running.pid());
    let before = running.stat().minflt;
    ptrace::detach(pid, None).expect("detach");
    let running = running.ready();
    let maps = SmapsRollup::from_file(format!("/proc/{pid}/smaps_rollup")).expect("Linux 4.14");
    let map = &maps.memory_map_rollup.0[0].extension.map;
    Memory {
        resident: map["Rss"],
        anonymous: map["Anonymous"],
        page_tables: running.status().vmpte.expect("VmPTE"),
        faults: running.stat().minflt - before,
    }
}

/// The bytes that a memory cgroup is charged for `count` processes of `program`,
/// beside those of the shell that starts them in it.
fn charge(program: &Path, count: usize) -> u64 {
    let group = Cgroup::new("memory");
    let script = "n=0; while [ $n -lt $1 ]; do \"$0\" & n=$((n + 1)); done; read x";
    let program = program.to_str().expect("UTF-8");
    let procs = group.file("cgroup.procs");
    let join = move || {
        // SAFETY: system calls on a string and a descriptor that live.
        unsafe {
            let procs = libc::open(procs.as_ptr(), libc::O_WRONLY);
            checked(libc::write(procs, c"0".as_ptr().cast(), 1) as i64)?;
            checked(libc::close(procs))
        }
    };
    let null = fs::File::options().write(true).open("/dev/null");
    let shell = Launch::new(Path::new("/bin/sh"))
        .argv(&["sh", "-c", script, program, &count.to_string()])
        .stream(2, null.expect("/dev/null"))
        .before(join)
        .before(endless_input)
        .init()
        .start();
    shell.await_call(&[libc::SYS_read]);
    until("all of them sleep", || {
        (sleepers(&shell) == count).then_some(())
    });
    group.number(match group.unified {
        true => "memory.current",
        false => "memory.usage_in_bytes",
    })
}

/// How many children of `parent` sleep in pause.
fn sleepers(parent: &Running) -> usize {
    let asleep = |pid: &&i32| call_of(**pid) == Some(SYS_SLEEP);
    parent.child_pids().iter().filter(asleep).count()
}

/// From before it is started to after its end, in the median of a round.
fn medians(programs: [&PathBuf; 2]) -> [Duration; 2] {
    let mut times = [vec![], vec![]];
    for _ in 0..1000 {
        for (program, times) in programs.iter().zip(&mut times) {
            let start = Instant::now();
            let status = Command::new(program)
                .arg("-v")
                .stdout(Stdio::null())
                .status();
            times.push(start.elapsed());
            assert!(status.expect("start").success());
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

limited! {
    /// Resident pages, page tables and faults.
    fn takes_no_more_memory_than_doing_nothing() {
        let ours = memory(&host(), "cost-a");
        let floor = memory(&program("noop"), "cost-b");
        eprintln!("pause {ours:?}\nno-op {floor:?}");
        assert_eq!(ours, floor);
    }

    #[ignore = "needs scripts/test"]
    fn is_charged_no_more_than_doing_nothing() {
        // Charges are taken in batches of 64 pages a CPU: below 1% of so many.
        const COUNT: u64 = 1000;
        let [ours, floor] = [host(), program("noop")]
            .map(|program| (charge(&program, COUNT as usize) - charge(&program, 0)) / COUNT);
        eprintln!("charged a process, in bytes: pause {ours}, no-op {floor}");
        assert!(ours * 100 <= floor * 102, "more than 2% above: {ours}, {floor}");
    }

    #[ignore = "needs scripts/test"]
    fn reaps_20000_orphans_for_nothing() {
        let running = pause().init().start().ready();
        let before = running.cost();
        orphans(&running, 20_000);
        running.childless();
        assert_eq!(running.cost(), before);
    }

    #[ignore = "needs scripts/test"]
    fn leaves_none_of_3000_zombies_while_it_is_stopped() {
        let running = pause().init().start().ready();
        running.signal(libc::SIGSTOP);
        running.stopped();
        orphans(&running, 3000);
        running.childless();
    }

    /// Other tests and other machines disturb it: the best of three rounds counts.
    #[ignore = "needs scripts/test"]
    fn takes_no_longer_than_ending_at_once() {
        let (ours, floor) = (host(), program("exit"));
        let ratio = (0..3)
            .map(|_| medians([&ours, &floor]))
            .inspect(|[ours, floor]| eprintln!("exec to exit: -v {ours:?}, exit {floor:?}"))
            .map(|[ours, floor]| ours.as_secs_f64() / floor.as_secs_f64())
            .fold(f64::INFINITY, f64::min);
        assert!(ratio <= 1.05, "{ratio:.3} times as long");
    }
}
