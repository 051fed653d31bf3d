//! What can only be timed. The programs take turns many times, so that a disturbance affects
//! all of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::subjects::Subject;
use harness::measure::{cpus, pin};

/// A time in nanoseconds: the median and the quartiles.
#[derive(Clone, Copy, PartialEq)]
pub struct Times {
    pub median: u64,
    pub low: u64,
    pub high: u64,
}

impl Times {
    /// Half of the distance between the quartiles.
    pub fn spread(self) -> f64 {
        (self.high - self.low) as f64 / 2.0
    }
}

const VERSIONS: usize = 1000;
const STARTS: usize = 100;

/// A program that does not handle SIGTERM after this time never will.
const NEVER: Duration = Duration::from_secs(1);

/// For each program a histogram of nanoseconds, to three significant digits.
struct Samples(Vec<Histogram<u64>>);

impl Samples {
    fn new(count: usize) -> Self {
        Self(vec![Histogram::new(3).expect("three digits"); count])
    }

    fn add(&mut self, index: usize, time: Duration) {
        self.0[index].record(time.as_nanos() as u64).expect("it grows");
    }

    fn times(self) -> Vec<Option<Times>> {
        let times = |samples: &Histogram<u64>| {
            let [low, median, high] = [0.25, 0.5, 0.75].map(|q| samples.value_at_quantile(q));
            (!samples.is_empty()).then_some(Times { median, low, high })
        };
        self.0.iter().map(times).collect()
    }
}

/// The numbers of the subjects, in another order in each round. The program after a large one finds
/// the caches cold, so it must not always be the same program.
fn order_of_round(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    fastrand::Rng::with_seed(round as u64).shuffle(&mut order);
    order
}

/// The time from before the start of `-v` until after its end.
pub fn versions(subjects: &[Subject]) -> Vec<Option<Times>> {
    let mut samples = Samples::new(subjects.len());
    for round in 0..VERSIONS {
        for i in order_of_round(round, subjects.len()) {
            let subject = &subjects[i];
            let Some((program, argument)) = subject.version() else {
                continue;
            };
            let mut command = Command::new(program);
            command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            let status = command.status().expect("start it");
            samples.add(i, start.elapsed());
            assert!(status.success(), "{}: {status}", subject.name);
        }
    }
    samples.times()
}

/// Two times: from the first instruction until PID 1 handles SIGTERM (without a handler the
/// kernel would drop the signal), and from SIGTERM to the end.
pub fn start_and_stop(subjects: &[Subject]) -> (Vec<Option<Times>>, Vec<Option<Times>>) {
    let (mut ready, mut gone) = (Samples::new(subjects.len()), Samples::new(subjects.len()));
    // This thread polls without a pause, so the program needs another CPU to run on.
    let cpus = cpus();
    let (ours, other) = (cpus[0], cpus[1 % cpus.len()]);
    pin(ours).expect("a CPU");
    let mut measured: Vec<_> = subjects.iter().map(|s| s.path().is_some()).collect();
    for round in 0..STARTS {
        for i in order_of_round(round, subjects.len()) {
            if !measured[i] {
                continue;
            }
            let running = subjects[i].launch().init().on_cpu(other).start_traced();
            let pid = Pid::from_raw(running.pid());
            let status = File::open(format!("/proc/{pid}/status")).expect("its status");
            let start = Instant::now();
            ptrace::detach(pid, None).expect("let it go on");
            let taken = std::iter::repeat_with(|| takes_sigterm(&status))
                .take_while(|_| start.elapsed() < NEVER)
                .any(|taken| taken);
            if !taken {
                measured[i] = false; // the no-op
                continue;
            }
            ready.add(i, start.elapsed());
            // A program may still be starting a child of its own.
            let running = running.settled();
            let start = Instant::now();
            running.signal(libc::SIGTERM);
            waitpid(pid, None).expect("its end");
            gone.add(i, start.elapsed());
        }
    }
    (ready.times(), gone.times())
}

/// Whether SIGTERM is caught, or is blocked and waited for.
fn takes_sigterm(status: &File) -> bool {
    let mut buffer = [0; 4096];
    let length = status.read_at(&mut buffer, 0).expect("its status");
    let text = std::str::from_utf8(&buffer[..length]).expect("ASCII");
    let has = |line: &str| {
        let set = line.split_once(":\t").and_then(|(_, set)| u64::from_str_radix(set, 16).ok());
        set.expect("a set of signals") >> (libc::SIGTERM - 1) & 1 == 1
    };
    let mut sets =
        text.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigCgt"));
    sets.any(has)
}
