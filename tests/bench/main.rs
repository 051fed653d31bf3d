//! What `scripts/bench` runs: measures pause and other programs in one run on this machine,
//! or compares pause with the numbers in `tests/size.toml`.
//!
//! What can be counted is counted, and is the same in each run. Times are given as a median
//! with quartiles, and as a ratio to the time of pause.

mod map;
mod picture;
mod subjects;
mod times;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::exit;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value as Json, json};
use toml_edit::DocumentMut;

use harness::launch::Launch;
use harness::measure::{self, orphans};
use harness::page::thousands;
use harness::programs::{HOST, Platform, platforms, root};
use harness::until_at_most;
use subjects::Subject;
use times::Times;

/// The number of processes over which the charged memory is averaged. The kernel charges in
/// batches, which are less than 1% of the sum for this many.
const CHARGED: u64 = 1000;

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

impl Row {
    /// The name and the unit.
    fn title(&self) -> String {
        match self.unit {
            "count" => self.name.clone(),
            unit => format!("{}, {unit}", self.name),
        }
    }
}

impl Value {
    /// For values that vary between runs, the unit in which they vary.
    fn approximate(n: u64, unit: u64) -> Self {
        match n {
            0 => Self::Exact(0),
            n => Self::About(n / unit),
        }
    }

    fn number(self) -> f64 {
        match self {
            Self::Exact(n) | Self::About(n) => n as f64,
            Self::Time(times) => times.median as f64,
        }
    }

    /// The text in the table, with the ratio to pause.
    fn text(self, ours: Option<Self>) -> String {
        let ratio = |ours: Self| format!("{:.2}x", self.number() / ours.number());
        match self {
            Self::Exact(n) => thousands(n),
            Self::About(n) => format!("~{}", thousands(n)),
            Self::Time(t) => format!(
                "{:.1} ±{:.1} {}",
                t.median as f64 / 1e3,
                t.spread() / 1e3,
                ours.map_or("-".into(), ratio)
            ),
        }
    }
}

/// Shows what is being measured. The next call replaces the line.
fn progress(what: &str) {
    let mut stderr = std::io::stderr();
    let (before, after) = if stderr.is_terminal() {
        ("\r\x1b[K", "")
    } else {
        ("", "\n")
    };
    let _ = write!(stderr, "{before}scripts/bench: {what}{after}");
    let _ = stderr.flush();
}

/// What many orphans cost their new parent: wake-ups, CPU time in nanoseconds, zombies left.
fn storm(launch: Launch, count: usize, stopped: bool) -> (u64, u64, u64) {
    let running = launch.init().start().settled();
    if stopped {
        running.signal(libc::SIGSTOP);
        running.stopped();
    }
    let before = running.cost();
    orphans(&running, count);
    // The last orphans may still be ending, and a handler may not have run yet.
    let mut zombies = usize::MAX;
    until_at_most(*harness::LIMIT * 6, "the storm is over", || {
        std::thread::sleep(measure::QUIET * 2);
        let (_, now) = running.children();
        (std::mem::replace(&mut zombies, now) == now).then_some(())
    });
    let after = running.cost();
    (
        after.switches - before.switches,
        after.cpu - before.cpu,
        zombies as u64,
    )
}

/// Measures everything that is the same in each run, for one subject.
struct Counts {
    memory: measure::Memory,
    calls: u64,
    storm: (u64, u64, u64),
    stopped: u64,
}

impl Counts {
    fn of(subject: &Subject) -> Self {
        Self {
            memory: measure::memory(subject.launch()),
            calls: measure::system_calls(subject.launch().init(), &[], false).len() as u64,
            storm: storm(subject.launch(), 20_000, false),
            stopped: storm(subject.launch(), 3000, true).2,
        }
    }
}

/// Measures all rows of the table.
fn measure_all(subjects: &[Subject]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, unit, values: Vec<Option<Value>>| {
        let name = name.to_string();
        rows.push(Row { name, unit, values })
    };
    let each = |value: &dyn Fn(&Subject) -> Option<Value>| subjects.iter().map(value).collect();
    let exact = |value: Option<u64>| value.map(Value::Exact);

    for Platform { architecture, .. } in platforms() {
        let sizes = each(&|s| exact(s.file(architecture)));
        row(&format!("file, {architecture}"), "bytes", sizes);
    }
    let parts: Vec<_> = subjects.iter().map(Subject::parts).collect();
    for (i, name) in ["of it headers", "of it code", "of it strings"]
        .into_iter()
        .enumerate()
    {
        row(
            name,
            "bytes",
            parts.iter().map(|p| exact(p.map(|p| p[i]))).collect(),
        );
    }
    for Platform { architecture, .. } in platforms() {
        let sizes = each(&|s| exact(s.image(architecture).map(|image| image.pulled)));
        row(&format!("image to pull, {architecture}"), "bytes", sizes);
    }
    row(
        "image unpacked",
        "bytes",
        each(&|s| exact(s.image(&HOST).map(|i| i.unpacked))),
    );

    let counts: Vec<_> = subjects
        .iter()
        .map(|subject| {
            subject.path().map(|_| {
                progress(&format!(
                    "memory, system calls and orphans of {}",
                    subject.name
                ));
                Counts::of(subject)
            })
        })
        .collect();
    let mut count = |name, unit, value: &dyn Fn(&Counts) -> Value| {
        row(
            name,
            unit,
            counts.iter().map(|c| c.as_ref().map(value)).collect(),
        );
    };
    count("resident", "bytes", &|c| Value::Exact(c.memory.resident));
    count("private, anonymous", "bytes", &|c| {
        Value::Exact(c.memory.anonymous)
    });
    count("page tables", "kB", &|c| Value::Exact(c.memory.page_tables));
    count("minor faults", "count", &|c| Value::Exact(c.memory.faults));
    count("system calls to the first sleep", "count", &|c| {
        Value::Exact(c.calls)
    });
    count("20,000 orphans: wake-ups", "count", &|c| {
        Value::approximate(c.storm.0, 1)
    });
    count("20,000 orphans: CPU", "us", &|c| {
        Value::approximate(c.storm.1, 1000)
    });
    count("20,000 orphans: zombies left", "count", &|c| {
        Value::Exact(c.storm.2)
    });
    count("3,000 while stopped: zombies left", "count", &|c| {
        Value::Exact(c.stopped)
    });

    progress("memory cgroups");
    row(
        "memory cgroup, a process",
        "bytes",
        each(&|s| {
            // The other programs start a child, or refuse to run unless they are PID 1.
            s.alone
                .then(|| Value::About(measure::charge(s.path().expect("a program"), CHARGED)))
        }),
    );
    progress("exec to exit of -v");
    row(
        "exec to exit of -v",
        "us",
        times::versions(subjects)
            .into_iter()
            .map(|t| t.map(Value::Time))
            .collect(),
    );
    progress("exec to ready, SIGTERM to gone");
    let (ready, gone) = times::start_and_stop(subjects);
    row(
        "exec to ready for SIGTERM",
        "us",
        ready.into_iter().map(|t| t.map(Value::Time)).collect(),
    );
    row(
        "SIGTERM to gone",
        "us",
        gone.into_iter().map(|t| t.map(Value::Time)).collect(),
    );
    progress("");
    rows
}

fn table(subjects: &[Subject], rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let names = subjects.iter().map(|subject| subject.name.clone());
    table.set_header(std::iter::once(String::new()).chain(names));
    for row in rows {
        let ours = row.values[0];
        let texts = row
            .values
            .iter()
            .map(|v| v.map_or("-".into(), |v| v.text(ours)));
        table.add_row(std::iter::once(row.title()).chain(texts));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The same table in Markdown.
fn markdown(subjects: &[Subject], rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names = subjects.iter().map(|subject| subject.name.clone());
    let mut text = line(std::iter::once(String::new()).chain(names).collect());
    text += &format!("|---{}|\n", "|--:".repeat(subjects.len()));
    for row in rows {
        let values = row.values.iter();
        let values = values.map(|value| value.map_or(String::new(), |v| v.text(row.values[0])));
        let title = row.title().replace(", us", ", µs");
        text += &line(std::iter::once(title).chain(values).collect());
    }
    text
}

/// Writes the tables and the pictures of `tests/bench/README.md`.
fn page(subjects: &[Subject], rows: &[Row]) {
    let run = |program, arguments: &[&str]| harness::run(program, arguments).trim().to_string();
    let measured = format!(
        "Measured on {} with {} CPUs and {}, on {}.\n\n",
        *HOST,
        run("nproc", &["--all"]),
        run("uname", &["-sr"]),
        run("date", &["+%-d %B %Y"]),
    );
    let table = measured + &markdown(subjects, rows);
    harness::page::fill(PAGE, "comparison", &table);
    harness::page::fill(PAGE, "map", &map::markdown());
    let file = |name: &str| root().join("tests/bench").join(name).display().to_string();
    picture::comparison(&file("comparison.svg"), subjects, rows);
    picture::map(&file("map.svg"));
}

/// The page with the results.
const PAGE: &str = "tests/bench/README.md";

/// The rows of `tests/size.toml` with today's numbers: table, key, number.
fn exact() -> Vec<(&'static str, String, u64)> {
    let subject = Subject::ours();
    let counts = Counts::of(&subject);
    let mut rows = Vec::new();
    let platforms = platforms();
    for Platform { architecture, .. } in &platforms {
        let size = subject.file(architecture).expect("a file");
        rows.push(("file", architecture.to_string(), size));
    }
    let parts = platforms
        .iter()
        .map(|one| (one, map::parts(one.architecture)));
    let parts: Vec<_> = parts.collect();
    for (i, part) in ["headers", "code", "strings"].into_iter().enumerate() {
        for (platform, sizes) in &parts {
            rows.push((part, platform.architecture.to_string(), sizes[i]));
        }
    }
    for Platform { architecture, .. } in &platforms {
        let image = subject.image(architecture).expect("an image");
        rows.push(("image", architecture.to_string(), image.pulled));
    }
    for (name, number) in [
        ("minor faults", counts.memory.faults),
        ("system calls to the first sleep", counts.calls),
        ("wake-ups by 20,000 orphans", counts.storm.0),
        ("zombies left of 20,000 orphans", counts.storm.2),
        (
            "zombies left of 3,000 orphans while stopped",
            counts.stopped,
        ),
    ] {
        rows.push(("count", name.into(), number));
    }
    rows
}

/// Prints for each row the recorded number, the number of today and the difference. With
/// `bless` it records the numbers of today. Returns whether all were equal.
fn check(bless: bool) -> bool {
    // The tests of this function set PAUSE_SIZES to another file.
    let path =
        std::env::var_os("PAUSE_SIZES").map_or(root().join("tests/size.toml"), PathBuf::from);
    let text = fs::read_to_string(&path).expect("tests/size.toml");
    let mut document: DocumentMut = text.parse().expect("TOML");
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["", "was", "is", "delta"]);
    let mut same = true;
    for (section, key, is) in exact() {
        let is = is as i64;
        let was = document
            .get(section)
            .and_then(|s| s.get(&key)?.as_integer());
        same &= was == Some(is);
        let delta = was.map_or("new".into(), |was| format!("{:+}", is - was));
        let was = was.map_or("-".into(), |was| was.to_string());
        table.add_row([format!("{section}: {key}"), was, is.to_string(), delta]);
        document[section][&key] = toml_edit::value(is);
    }
    println!("{}", table.trim_fmt());
    if bless && !same {
        fs::write(&path, document.to_string()).expect("write tests/size.toml");
    }
    same
}

/// The format that github-action-benchmark calls `customSmallerIsBetter`.
fn json(rows: &[Row]) -> Json {
    let entry = |row: &Row| {
        let value = row.values[0]?;
        let mut entry = json!({"name": row.name, "unit": row.unit, "value": scaled(value)});
        if let Value::Time(times) = value {
            entry["range"] = format!("± {:.1}", times.spread() / 1e3).into();
        }
        if let Some(floor) = row.values[1] {
            entry["extra"] = format!("no-op: {}", scaled(floor)).into();
        }
        Some(entry)
    };
    rows.iter().filter_map(entry).collect()
}

/// The Bencher Metric Format. Its unit for latencies is the nanosecond.
fn bmf(rows: &[Row]) -> Json {
    let mut all = serde_json::Map::new();
    for row in rows {
        let Some(value) = row.values[0] else {
            continue;
        };
        let measure = match (row.unit, row.name.starts_with("file")) {
            ("bytes", true) => "file-size",
            ("us", _) => "latency",
            ("count", _) => "count",
            _ => "memory",
        };
        let mut metric = json!({"value": value.number()});
        if let Value::Time(times) = value {
            metric["lower_value"] = (times.low as f64).into();
            metric["upper_value"] = (times.high as f64).into();
        }
        all.insert(row.name.clone(), json!({ measure: metric }));
    }
    all.into()
}

/// The number in the unit of its row.
fn scaled(value: Value) -> f64 {
    match value {
        Value::Time(times) => times.median as f64 / 1e3,
        value => value.number(),
    }
}

/// Writes the results of one run to a folder in all formats.
fn write_all(folder: &Path, subjects: &[Subject], rows: &[Row]) {
    let svg = folder.join("comparison.svg");
    picture::comparison(svg.to_str().expect("UTF-8"), subjects, rows);
    for (name, text) in [
        ("table.txt", table(subjects, rows).trim_fmt()),
        ("github-action-benchmark.json", format!("{:#}", json(rows))),
        ("bencher.json", format!("{:#}", bmf(rows))),
    ] {
        let written = fs::write(folder.join(name), text + "\n");
        written.unwrap_or_else(|e| fail(&format!("{}: {e}", folder.display())));
    }
}

/// Prints one line that says what is wrong, and exits with 1.
fn fail(what: &str) -> ! {
    let _ = fs::remove_dir_all(subjects::folder());
    eprintln!("scripts/bench: {what}");
    exit(1)
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check"] if !check(false) => {
            fail(
                "not what tests/size.toml says; if it is meant to be, scripts/bench --bless writes it down",
            );
        }
        ["check"] => {}
        ["bless"] => drop(check(true)),
        ["map"] => print!("{}", map::markdown()),
        ["map", file] => picture::map(file),
        [how, rest @ ..] => {
            let subjects = match *how {
                "json" | "bmf" => subjects::ours_and_floor(),
                _ => subjects::all(),
            };
            let rows = measure_all(&subjects);
            if let Some(folder) = std::env::var_os("PAUSE_OUT").filter(|folder| !folder.is_empty())
            {
                write_all(&PathBuf::from(folder), &subjects, &rows);
            }
            match (*how, rest) {
                ("json", _) => println!("{:#}", json(&rows)),
                ("bmf", _) => println!("{:#}", bmf(&rows)),
                ("page", _) => page(&subjects, &rows),
                ("svg", [file]) => picture::comparison(file, &subjects, &rows),
                _ => println!("{}", table(&subjects, &rows).trim_fmt()),
            }
        }
        [] => fail("run scripts/bench, which says what to do"),
    }
    let _ = fs::remove_dir_all(subjects::folder());
}
