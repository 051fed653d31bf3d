//! The results: one line for each check as it ends, and a page in Markdown.

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use harness::programs::{dist, platforms};
use harness::run;

struct Line {
    what: String,
    /// The evidence, or the reason of the failure.
    outcome: Result<String, String>,
}

#[derive(Default)]
struct Part {
    title: String,
    versions: Vec<String>,
    lines: Vec<Line>,
    /// Text for the page, in Markdown.
    text: String,
}

pub struct Report {
    start: Instant,
    parts: Vec<Part>,
}

/// The first line of a panic's message.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("it panicked");
    text.lines().next().unwrap_or_default().to_string()
}

/// The signal that ends the run.
static STOPPED: OnceLock<i32> = OnceLock::new();

/// After this call no further check begins.
pub fn stop(signal: i32) {
    let _ = STOPPED.set(signal);
}

impl Report {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            parts: Vec::new(),
        }
    }

    fn current(&mut self) -> &mut Part {
        self.parts.last_mut().expect("within a part")
    }

    /// Runs a part. A panic outside of its checks counts as a failure, too.
    pub fn part(&mut self, title: &str, work: impl FnOnce(&mut Self)) {
        if STOPPED.get().is_some() {
            return;
        }
        println!("{title}");
        let start = Instant::now();
        self.parts.push(Part {
            title: title.into(),
            ..Part::default()
        });
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        if let Err(panic) = done {
            self.add("it runs to its end", Err(said(&*panic)));
        } else if self.current().lines.is_empty() {
            self.add("something was checked", Err("nothing was".into()));
        }
        println!("{title}: {} s", start.elapsed().as_secs());
    }

    /// Runs one check. `look` panics if the check fails, and returns the evidence.
    pub fn check(&mut self, what: &str, look: impl FnOnce() -> String) {
        if let Some(signal) = STOPPED.get() {
            panic!("interrupted by signal {signal}");
        }
        let outcome = catch_unwind(AssertUnwindSafe(look));
        self.add(what, outcome.map_err(|panic| said(&*panic)));
    }

    fn add(&mut self, what: &str, outcome: Result<String, String>) {
        match &outcome {
            Ok(evidence) if evidence.is_empty() => println!("  ok    {what}"),
            Ok(evidence) => println!("  ok    {what}: {evidence}"),
            Err(why) => println!("  FAIL  {what}: {why}"),
        }
        let what = what.into();
        self.current().lines.push(Line { what, outcome });
    }

    /// Adds the programs that take part, with their versions.
    pub fn versions(&mut self, parts: &[String]) {
        println!("  with {}", parts.join(", "));
        self.current().versions.extend_from_slice(parts);
    }

    /// Adds a remark, such as what this node does not support.
    pub fn note(&mut self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// Prints text and adds it to the page, in Markdown.
    pub fn text(&mut self, text: &str) {
        print!("{text}");
        self.current().text += text;
    }

    fn count(&self, ok: bool) -> usize {
        let lines = self.parts.iter().flat_map(|part| &part.lines);
        lines.filter(|line| line.outcome.is_ok() == ok).count()
    }

    /// Writes the page.
    pub fn write(&self, file: &str) {
        let version = env!("CARGO_PKG_VERSION");
        let machine = run("uname", &["-srm"]);
        let mut page = format!(
            "# pause {version} on a Kubernetes node\n\n\
             {} passed, {} failed, in {} minutes, by `scripts/e2e` on {}, {} CPUs.\n\n\
             | | SHA-256 of `/pause` |\n|---|---|\n",
            self.count(true),
            self.count(false),
            self.start.elapsed().as_secs().div_ceil(60),
            machine.trim(),
            std::thread::available_parallelism().map_or(1, usize::from),
        );
        for platform in platforms() {
            let file = dist(platform.architecture);
            let sum = run("sha256sum", &[file.to_str().expect("UTF-8")]);
            writeln!(page, "| {platform} | `{}` |", &sum[..64]).expect("memory");
        }
        for part in &self.parts {
            write!(page, "\n## {}\n\n", part.title).expect("memory");
            if !part.versions.is_empty() {
                write!(page, "{}\n\n", part.versions.join(", ")).expect("memory");
            }
            page += "| | check | evidence |\n|---|---|---|\n";
            for Line { what, outcome } in &part.lines {
                let (mark, text) = match outcome {
                    Ok(evidence) => ("ok", evidence),
                    Err(why) => ("**FAIL**", why),
                };
                // In Markdown a table cell is one line, and a bar ends it.
                let text = text.replace('\n', " ").replace('|', "\\|");
                writeln!(page, "| {mark} | {what} | {text} |").expect("memory");
            }
            if !part.text.is_empty() {
                write!(page, "\n{}", part.text).expect("memory");
            }
        }
        std::fs::write(file, page).expect("the report");
    }

    /// Prints the totals, and returns the exit status.
    pub fn end(&self) -> ExitCode {
        let (passed, failed) = (self.count(true), self.count(false));
        println!("{passed} passed, {failed} failed");
        match (STOPPED.get(), failed) {
            (Some(signal), _) => ExitCode::from(128 + *signal as u8), // as shells do
            (None, 0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
