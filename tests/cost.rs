//! What pause costs beside a program that does nothing, in the same run. All of
//! it is counted but the last, which is a ratio.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::launch::Launch;
use crate::harness::measure::{self, Memory, orphans};
use crate::harness::programs::{host, pause, program};

/// Measures a program under the one path, so that its stack has the same content,
/// and the same place within a page.
fn memory(program: &Path, folder: &str) -> Memory {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("program");
    fs::copy(program, &path).expect("a copy");
    measure::memory(Launch::new(&path))
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
        // The batches are below 1% of so many.
        let [ours, floor] = [host(), program("noop")].map(|program| measure::charge(&program, 1000));
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
