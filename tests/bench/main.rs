//! What `scripts/bench` runs: measures pause and other programs in one run on this machine, or says what each byte of
//! pause is. Its argument is `map`, `json`, or `svg` and a file; without one it prints a table.
//!
//! What can be counted is counted, and is the same in each run. Times are by hyperfine: the mean and the standard
//! deviation.

mod map;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use harness::launch::Launch;
use harness::measure::{self, thousands_of_orphans};
use harness::programs::{HOST, Platform, dist, platforms, program, root};
use harness::{Folder, run, text, thousands, until_at_most};

/// A program that is measured: the command that holds a pod, and the argument that prints the version.
struct Subject {
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
    version: (PathBuf, &'static str),
}

impl Subject {
    fn new(name: &'static str, path: PathBuf, arguments: &[&str], version: &'static str) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|word| word.to_string()).collect();
        Self { name, version: (path.clone(), version), path, arguments }
    }

    fn launch(&self) -> Launch {
        self.arguments.iter().fold(Launch::new(&self.path), |launch, word| launch.argument(word))
    }
}

/// pause, a program that does nothing, and other pauses and inits.
fn subjects(work: &Path) -> Vec<Subject> {
    let c = |compiler: &str| {
        let path = work.join(compiler);
        run(compiler, &["-Os", "-static", "-s", "-o", text(&path), text(&root().join("tests/bench/pause.c"))]);
        path
    };
    // Without what is for debuggers.
    let stripped = |name: &str| {
        let path = work.join(name);
        fs::copy(program(name), &path).expect("a copy");
        run("llvm-objcopy", &["--strip-sections", text(&path)]);
        path
    };
    let noop = stripped("noop");
    let installed = |name: &str| Path::new("/usr/bin").join(name);
    let floor = Subject { version: (stripped("exit"), "-v"), ..Subject::new("no-op", noop.clone(), &[], "-v") };
    vec![
        Subject::new("pause", dist(&HOST), &[], "-v"),
        floor,
        Subject::new("C, glibc", c("gcc"), &[], "-v"),
        Subject::new("C, musl", c("musl-gcc"), &[], "-v"),
        Subject::new("catatonit -P", installed("catatonit"), &["-P"], "--version"),
        Subject::new("tini", installed("tini"), &["--", text(&noop)], "--version"),
        Subject::new("dumb-init", installed("dumb-init"), &[text(&noop)], "--version"),
    ]
}

/// A row of the table: a value and its text for each subject that has one.
struct Row {
    name: String,
    unit: &'static str,
    values: Vec<Option<(f64, String)>>,
}

/// A count that is the same in each run.
fn exact(n: u64) -> Option<(f64, String)> {
    Some((n as f64, thousands(n)))
}

/// A count that varies a little, unless it is 0.
fn about(n: u64) -> Option<(f64, String)> {
    Some((n as f64, if n == 0 { "0".into() } else { format!("~{}", thousands(n)) }))
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
    // The last orphans may still be exiting, and a handler may not have run yet.
    let mut zombies = usize::MAX;
    until_at_most(*harness::LIMIT * 6, "the storm is over", || {
        std::thread::sleep(harness::running::QUIET * 2);
        let (_, now) = running.children();
        (std::mem::replace(&mut zombies, now) == now).then_some(())
    });
    let after = running.cost();
    (after.switches - before.switches, after.cpu - before.cpu, zombies as u64)
}

/// The time from exec to exit of `-v` of each subject, in microseconds: the mean and the standard deviation.
fn times(work: &Path, subjects: &[Subject]) -> Vec<(f64, f64)> {
    let file = work.join("times.json");
    let mut hyperfine = Command::new("hyperfine");
    hyperfine.args(["-N", "--warmup", "20", "--runs", "1000", "--export-json", text(&file)]);
    hyperfine.args(subjects.iter().map(|one| format!("{} {}", one.version.0.display(), one.version.1)));
    let status = hyperfine.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("hyperfine").success(), "hyperfine failed");
    let json: Json = serde_json::from_slice(&fs::read(file).expect("its file")).expect("JSON");
    let number = |one: &Json, key: &str| one[key].as_f64().expect(key) * 1e6;
    json["results"].as_array().expect("a list").iter().map(|one| (number(one, "mean"), number(one, "stddev"))).collect()
}

/// Measures all rows of the table.
fn measure_all(work: &Path, subjects: &[Subject]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, unit, values| rows.push(Row { name: name.into(), unit, values });
    let only_ours = |n: u64| subjects.iter().map(|one| if one.name == "pause" { exact(n) } else { None }).collect();
    let size = |path: &Path| fs::metadata(path).expect("a program").len();
    let of_host = subjects.iter().map(|one| exact(size(&one.path))).collect();
    row(&format!("file, {}", *HOST), "bytes", of_host);
    let sizes: toml::Table = fs::read_to_string(root().join("tests/size.toml")).expect("a file").parse().expect("TOML");
    for Platform { architecture, .. } in platforms() {
        if architecture != &*HOST {
            row(&format!("file, {architecture}"), "bytes", only_ours(size(&dist(architecture))));
        }
        let pulled = sizes["image"][*architecture].as_integer().expect("a size");
        row(&format!("image to pull, {architecture}"), "bytes", only_ours(pulled as u64));
    }
    let each = |of: &dyn Fn(&Subject) -> u64| subjects.iter().map(of).collect::<Vec<_>>();
    eprintln!("scripts/bench: memory and system calls");
    let memory: Vec<_> = subjects.iter().map(|one| measure::memory(one.launch())).collect();
    let of_memory = |of: fn(&measure::Memory) -> u64| memory.iter().map(|one| exact(of(one))).collect();
    row("resident", "bytes", of_memory(|one| one.resident));
    row("private, anonymous", "bytes", of_memory(|one| one.anonymous));
    row("page tables", "KiB", of_memory(|one| one.page_tables));
    row("minor faults", "count", of_memory(|one| one.faults));
    let calls = each(&|one| harness::trace::system_calls(one.launch().init(), &[], false).len() as u64);
    row("system calls to the first sleep", "count", calls.into_iter().map(exact).collect());
    eprintln!("scripts/bench: orphans");
    let storms: Vec<_> = subjects.iter().map(|one| storm(one.launch(), 20, false)).collect();
    row("20,000 orphans: wake-ups", "count", storms.iter().map(|one| about(one.0)).collect());
    row("20,000 orphans: CPU", "µs", storms.iter().map(|one| about(one.1 / 1000)).collect());
    row("20,000 orphans: zombies left", "count", storms.iter().map(|one| exact(one.2)).collect());
    let stopped = each(&|one| storm(one.launch(), 3, true).2);
    row("3,000 while stopped: zombies left", "count", stopped.into_iter().map(exact).collect());
    eprintln!("scripts/bench: times");
    let times = times(work, subjects);
    let time =
        |(mean, deviation): &(f64, f64)| Some((*mean, format!("{mean:.1} ±{deviation:.1}, {:.2}x", mean / times[0].0)));
    row("exec to exit of -v", "µs", times.iter().map(time).collect());
    rows
}

/// Draws the rows that have a value other than 0 for each subject, as multiples of pause on a logarithmic scale.
fn draw(work: &Path, file: &str, subjects: &[Subject], rows: &[Row]) {
    let mut data = format!("x {}\n", subjects.iter().map(|one| format!("\"{}\" ", one.name)).collect::<String>());
    for row in rows {
        let values: Vec<_> = row.values.iter().flatten().map(|(value, _)| *value).collect();
        if values.len() == subjects.len() && !values.contains(&0.0) {
            let ratios = values.iter().map(|value| format!("{} ", value / values[0])).collect::<String>();
            data += &format!("\"{}\" {ratios}\n", row.name);
        }
    }
    fs::write(work.join("data"), data).expect("a file");
    let script = format!(
        "set terminal svg size 1100,480 font 'sans-serif,13' background 'white'; set output '{file}'
         set title 'What it costs, as a multiple of pause (logarithmic scale)'; set key outside right top
         set style data histograms; set style fill solid border -1; set logscale y; set yrange [0.1:]
         set grid ytics; plot for [i=2:{}] '{}' using i:xtic(1) title columnhead(i)",
        subjects.len() + 1,
        work.join("data").display()
    );
    run("gnuplot", &["-e", &script]);
}

fn main() {
    harness::sweep::sweep();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if arguments == ["map"] {
        return print!("{}", map::tables());
    }
    let work = Folder::for_all("bench");
    let subjects = subjects(&work);
    let rows = measure_all(&work, &subjects);
    match arguments[..] {
        ["json"] => {
            let entry =
                |row: &Row| json!({"name": row.name, "unit": row.unit, "value": row.values[0].as_ref()?.0}).into();
            println!("{:#}", rows.iter().filter_map(entry).collect::<Json>());
        }
        ["svg", file] => draw(&work, file, &subjects, &rows),
        _ => {
            let mut table: Vec<Vec<String>> =
                vec![std::iter::once("").chain(subjects.iter().map(|s| s.name)).map(String::from).collect()];
            for Row { name, unit, values } in rows {
                let title = if unit == "count" { name } else { format!("{name}, {unit}") };
                let cells = values.into_iter().map(|value| value.map_or(String::new(), |(_, text)| text));
                table.push(std::iter::once(title).chain(cells).collect());
            }
            print!("{}", map::markdown(&table));
        }
    }
}
