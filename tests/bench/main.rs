//! What `scripts/bench` runs: measures pause and other programs in one run on this machine, or says
//! what each byte of pause is.
//!
//! What can be counted is counted, and is the same in each run. Times are given as a median
//! with quartiles, and as a ratio to the time of pause.

mod chart;
mod map;
mod subjects;
mod times;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value as Json, json};
use xtask::options::Bench;

use harness::launch::Launch;
use harness::measure::{self, thousands_of_orphans};
use harness::programs::{HOST, platforms};
use harness::supervise::supervise;
use harness::{thousands, until_at_most};
use subjects::Subject;
use times::Times;

/// The number of processes over which the charged memory is averaged. The kernel charges in
/// batches, which are less than 1% of the sum for this many.
const CHARGED: u64 = 1000;

/// What scripts/bench was asked for.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Bench,
}

/// One measured value.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    /// A count that is the same in each run.
    Exact(u64),
    /// A count that varies a little: memory charged in batches, or CPU time in clock ticks.
    About(u64),
    /// A time in nanoseconds.
    Time(Times),
}

/// A row of the table: a value for each subject that has one.
struct Row {
    name: String,
    unit: &'static str,
    values: Vec<Option<Value>>,
}

impl Value {
    /// For values that vary between runs, unless they are 0.
    fn approximate(n: u64) -> Self {
        if n == 0 { Self::Exact(0) } else { Self::About(n) }
    }

    /// The number in the unit of its row.
    fn number(self) -> f64 {
        match self {
            Self::Exact(n) | Self::About(n) => n as f64,
            Self::Time(times) => times.median as f64 / 1e3,
        }
    }

    /// The text in the table, for a time with the ratio to pause.
    fn text(self, ours: Option<Self>) -> String {
        let ratio = |ours: Self| format!(" {:.2}x", self.number() / ours.number());
        match self {
            Self::Exact(n) => thousands(n),
            Self::About(n) => format!("~{}", thousands(n)),
            Self::Time(times) => format!(
                "{:.1} ±{:.1}{}",
                self.number(),
                times.spread() / 1e3,
                ours.map_or(String::new(), ratio)
            ),
        }
    }
}

/// What many orphans cost their new parent: wake-ups, CPU time in nanoseconds, zombies left.
fn storm(launch: Launch, thousands: usize, stopped: bool) -> (u64, u64, u64) {
    let running = launch.init().start().settled();
    if stopped {
        running.signal(libc::SIGSTOP);
        running.stopped();
    }
    let before = running.cost();
    thousands_of_orphans(&running, thousands, false);
    // The last orphans may still be ending, and a handler may not have run yet.
    let mut zombies = usize::MAX;
    until_at_most(*harness::LIMIT * 6, "the storm is over", || {
        std::thread::sleep(measure::QUIET * 2);
        let (_, now) = running.children();
        (std::mem::replace(&mut zombies, now) == now).then_some(())
    });
    let after = running.cost();
    (after.switches - before.switches, after.cpu - before.cpu, zombies as u64)
}

/// What is measured of one subject at a time.
struct Counts {
    memory: measure::Memory,
    calls: u64,
    storm: (u64, u64, u64),
    stopped: u64,
}

impl Counts {
    fn of(subject: &Subject) -> Option<Self> {
        subject.path()?;
        eprintln!("scripts/bench: memory, system calls and orphans of {}", subject.name);
        Some(Self {
            memory: measure::memory(subject.launch()),
            calls: measure::system_calls(subject.launch().init(), &[], false).len() as u64,
            storm: storm(subject.launch(), 20, false),
            stopped: storm(subject.launch(), 3, true).2,
        })
    }
}

/// Measures all rows of the table.
fn measure_all(subjects: &[Subject]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, unit, values: Vec<Option<Value>>| {
        rows.push(Row { name: name.into(), unit, values });
    };
    let each = |value: &dyn Fn(&Subject) -> Option<u64>| {
        subjects.iter().map(|subject| value(subject).map(Value::Exact)).collect()
    };
    for platform in platforms() {
        let name = &platform.architecture;
        row(&format!("file, {name}"), "bytes", each(&|s| s.file(name)));
    }
    for (i, part) in ["headers", "code", "strings"].into_iter().enumerate() {
        row(&format!("{part}, {}", *HOST), "bytes", each(&|s| Some(s.parts()?[i])));
    }
    for platform in platforms() {
        let name = &platform.architecture;
        let pulled = each(&|s| Some(s.image(name)?.pulled));
        row(&format!("image to pull, {name}"), "bytes", pulled);
    }
    row("image unpacked", "bytes", each(&|s| Some(s.image(&HOST)?.unpacked)));

    let counts: Vec<_> = subjects.iter().map(Counts::of).collect();
    let mut count = |name, unit, value: &dyn Fn(&Counts) -> Value| {
        row(name, unit, counts.iter().map(|c| c.as_ref().map(value)).collect());
    };
    count("resident", "bytes", &|c| Value::Exact(c.memory.resident));
    count("private, anonymous", "bytes", &|c| Value::Exact(c.memory.anonymous));
    count("page tables", "kB", &|c| Value::Exact(c.memory.page_tables));
    count("minor faults", "count", &|c| Value::Exact(c.memory.faults));
    count("system calls to the first sleep", "count", &|c| Value::Exact(c.calls));
    count("20,000 orphans: wake-ups", "count", &|c| Value::approximate(c.storm.0));
    count("20,000 orphans: CPU", "us", &|c| Value::approximate(c.storm.1 / 1000));
    count("20,000 orphans: zombies left", "count", &|c| Value::Exact(c.storm.2));
    count("3,000 while stopped: zombies left", "count", &|c| Value::Exact(c.stopped));

    eprintln!("scripts/bench: memory cgroups");
    // The other programs start a child, or refuse to run unless they are PID 1.
    let charged = |subject: &Subject| {
        let path = subject.path().filter(|_| subject.alone)?;
        Some(Value::About(measure::charge(path, CHARGED)))
    };
    row("memory cgroup, a process", "bytes", subjects.iter().map(charged).collect());
    eprintln!("scripts/bench: times");
    let (ready, gone) = times::start_and_stop(subjects);
    for (name, times) in [
        ("exec to exit of -v", times::versions(subjects)),
        ("exec to ready for SIGTERM", ready),
        ("SIGTERM to gone", gone),
    ] {
        row(name, "us", times.into_iter().map(|times| times.map(Value::Time)).collect());
    }
    rows
}

/// A table in Markdown, whose first column has names.
fn markdown(rows: &[Vec<String>]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(i, text): (usize, &String)| match i {
            0 => format!("| {text:<0$} |", widths[0]),
            _ => format!(" {text:>0$} |", widths[i]),
        };
        row.iter().enumerate().map(cell).collect::<String>() + "\n"
    };
    let rule = format!("|---|{}\n", "--:|".repeat(widths.len() - 1));
    let lines = rows[1..].iter().map(line).collect::<String>();
    line(&rows[0]) + &rule + &lines
}

/// The results, in Markdown.
fn table(subjects: &[Subject], rows: &[Row]) -> String {
    let names = subjects.iter().map(|subject| subject.name.clone());
    let mut table = vec![std::iter::once(String::new()).chain(names).collect()];
    for Row { name, unit, values } in rows {
        let title = if *unit == "count" { name.clone() } else { format!("{name}, {unit}") };
        let cells = values.iter().map(|v| v.map_or(String::new(), |v| v.text(values[0])));
        table.push(std::iter::once(title).chain(cells).collect::<Vec<_>>());
    }
    markdown(&table)
}

/// The format that github-action-benchmark calls `customSmallerIsBetter`.
fn json(rows: &[Row]) -> Json {
    let entry = |row: &Row| {
        let value = row.values[0]?;
        let mut entry = json!({"name": row.name, "unit": row.unit, "value": value.number()});
        if let Value::Time(times) = value {
            entry["range"] = format!("± {:.1}", times.spread() / 1e3).into();
        }
        if let Some(floor) = row.values[1] {
            entry["extra"] = format!("no-op: {}", floor.number()).into();
        }
        Some(entry)
    };
    rows.iter().filter_map(entry).collect()
}

/// The Bencher Metric Format. Its unit for latencies is the nanosecond.
fn bmf(rows: &[Row]) -> Json {
    let metric = |row: &Row| {
        let value = row.values[0]?;
        let measure = match (row.unit, row.name.starts_with("file")) {
            ("bytes", true) => "file-size",
            ("us", _) => "latency",
            ("count", _) => "count",
            _ => "memory",
        };
        let metric = match value {
            Value::Time(t) => {
                json!({"value": t.median, "lower_value": t.low, "upper_value": t.high})
            }
            value => json!({"value": value.number()}),
        };
        Some((row.name.clone(), json!({ measure: metric })))
    };
    Json::Object(rows.iter().filter_map(metric).collect())
}

/// Writes the results of one run to a folder in all formats.
fn write_all(folder: &Path, subjects: &[Subject], rows: &[Row]) {
    chart::comparison(&folder.join("comparison.svg"), subjects, rows);
    for (name, text) in [
        ("table.md", table(subjects, rows)),
        ("github-action-benchmark.json", format!("{:#}\n", json(rows))),
        ("bencher.json", format!("{:#}\n", bmf(rows))),
    ] {
        fs::write(folder.join(name), text).expect(name);
    }
}

fn main() -> ExitCode {
    let Arguments { options } = Arguments::parse();
    supervise(|| bench(options), || ())
}

fn bench(options: Bench) -> ExitCode {
    if options.map {
        print!("{}", map::tables());
        return ExitCode::SUCCESS;
    }
    let work = subjects::Work::new();
    let subjects = match options.json || options.bmf {
        true => subjects::ours_and_floor(&work),
        false => subjects::all(&work, options.upstream.as_deref()),
    };
    let rows = measure_all(&subjects);
    options.out.iter().for_each(|folder| write_all(folder, &subjects, &rows));
    options.svg.iter().for_each(|file| chart::comparison(file, &subjects, &rows));
    match (options.json, options.bmf) {
        (true, _) => println!("{:#}", json(&rows)),
        (_, true) => println!("{:#}", bmf(&rows)),
        _ => print!("{}", table(&subjects, &rows)),
    }
    ExitCode::SUCCESS
}
