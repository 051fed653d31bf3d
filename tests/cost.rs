//! The cost of pause, compared in the same run with a program that does nothing. Counts are
//! exact; two ratios are measured last, one after the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::launch::Launch;
use harness::measure::{self, Memory};
use harness::programs::{host, program};
use harness::suite::Suite;
use harness::tests;
use harness::{Folder, copy_program};

pub fn list(suite: &mut Suite) {
    suite.host(tests![takes_no_more_memory_than_doing_nothing]);
    suite
        .timed(tests![is_charged_no_more_than_doing_nothing, takes_no_longer_than_ending_at_once,]);
}

/// Measures a program under a fixed path, so that its stack has the same content and begins
/// at the same place within a page.
fn memory(program: &Path) -> Memory {
    let folder = Folder::new("cost");
    let path = folder.join("program");
    copy_program(program, &path);
    measure::memory(Launch::new(&path))
}

/// The median time from before the start of a program until after its end, in one round.
fn medians(programs: [&PathBuf; 2]) -> [Duration; 2] {
    let mut times = [vec![], vec![]];
    for _ in 0..1000 {
        for (program, times) in programs.iter().zip(&mut times) {
            let start = Instant::now();
            let status = Command::new(program).arg("-v").stdout(Stdio::null()).status();
            times.push(start.elapsed());
            assert!(status.expect("start").success());
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

/// Resident pages, page tables and faults.
fn takes_no_more_memory_than_doing_nothing() {
    let ours = memory(&host());
    let floor = memory(&program("noop"));
    eprintln!("pause {ours:?}\nno-op {floor:?}");
    assert_eq!(ours, floor);
    assert_eq!(ours.faults, 1);
}

// Ratios that other work on the machine would change. The best of up to ten rounds counts.

/// The number of rounds in which a ratio is measured, at most.
const ROUNDS: usize = 10;

/// Returns the first ratio that is not above `limit`, or else the smallest of all rounds.
fn best(limit: f64, mut ratio: impl FnMut() -> f64) -> f64 {
    let mut smallest = f64::INFINITY;
    for _ in 0..ROUNDS {
        smallest = smallest.min(ratio());
        if smallest <= limit {
            break;
        }
    }
    smallest
}

fn is_charged_no_more_than_doing_nothing() {
    // The kernel charges in batches, which are less than 1% of the sum for this many processes.
    let ratio = best(1.02, || {
        let [ours, floor] =
            [host(), program("noop")].map(|program| measure::charge(&program, 1000));
        eprintln!("charged a process, in bytes: pause {ours}, no-op {floor}");
        ours as f64 / floor as f64
    });
    assert!(ratio <= 1.02, "{ratio:.3} times as much");
}

fn takes_no_longer_than_ending_at_once() {
    measure::pin(measure::cpus()[0]).expect("a CPU");
    let (ours, floor) = (host(), program("exit"));
    let ratio = best(1.05, || {
        let [ours, floor] = medians([&ours, &floor]);
        eprintln!("exec to exit: -v {ours:?}, exit {floor:?}");
        ours.as_secs_f64() / floor.as_secs_f64()
    });
    assert!(ratio <= 1.05, "{ratio:.3} times as long");
}
