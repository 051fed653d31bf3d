//! The results: one line for each check as it ends, and a page in Markdown.

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json};

use crate::guest;
use harness::programs::{HOST, dist, platforms, root};
use harness::{run, sha256};

struct Line {
    what: String,
    /// The evidence, or the reason of the failure.
    outcome: Result<String, String>,
}

#[derive(Default)]
struct Part {
    /// The part of `scripts/e2e` that it belongs to.
    of: String,
    title: String,
    versions: Vec<String>,
    lines: Vec<Line>,
    /// Text for the page, in Markdown.
    text: String,
}

pub struct Report {
    start: Instant,
    parts: Vec<Part>,
    /// The part of `scripts/e2e` that runs.
    running: String,
    /// What could not be checked here.
    left_out: Vec<String>,
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

/// Panics if the run was interrupted, for work that has no check to end it.
pub fn go_on() {
    if let Some(signal) = STOPPED.get() {
        panic!("interrupted by signal {signal}");
    }
}

impl Part {
    /// The versions, a table of the checks, and the text.
    fn markdown(&self) -> String {
        let mut page = String::new();
        if !self.versions.is_empty() {
            page += &format!("{}\n\n", self.versions.join(", "));
        }
        page += "| | check | evidence |\n|---|---|---|\n";
        for Line { what, outcome } in &self.lines {
            let (mark, text) = match outcome {
                Ok(evidence) => ("ok", evidence),
                Err(why) => ("**FAIL**", why),
            };
            // In Markdown a table cell is one line, and a bar ends it.
            let text = text.replace('\n', " ").replace('|', "\\|");
            page += &format!("| {mark} | {what} | {text} |\n");
        }
        if !self.text.is_empty() {
            page += &format!("\n{}", self.text);
        }
        page
    }

    fn passed(&self) -> usize {
        self.lines
            .iter()
            .filter(|line| line.outcome.is_ok())
            .count()
    }
}

/// The page with the last results, which has a part for each part of `scripts/e2e`.
const PAGE: &str = "tests/e2e/README.md";

impl Report {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            parts: Vec::new(),
            running: String::new(),
            left_out: Vec::new(),
        }
    }

    /// Says to which part of `scripts/e2e` the following parts of the report belong.
    pub fn runs(&mut self, part: &str) {
        self.running = part.into();
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
            of: self.running.clone(),
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
        go_on();
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

    /// Writes the parts as JSON, for `add_from`.
    fn write_json(&self, file: &str) {
        let line = |Line { what, outcome }: &Line| match outcome {
            Ok(evidence) => json!({"what": what, "ok": evidence}),
            Err(why) => json!({"what": what, "failed": why}),
        };
        let part = |part: &Part| {
            let lines: Vec<_> = part.lines.iter().map(line).collect();
            json!({"title": part.title, "versions": part.versions, "lines": lines, "text": part.text})
        };
        let parts: Vec<_> = self.parts.iter().map(part).collect();
        std::fs::write(file, json!([parts, self.left_out]).to_string()).expect("the report");
    }

    /// Adds the parts that this program has written in another machine. They were printed there.
    pub fn add_from(&mut self, file: &Path, place: &str) {
        let text = std::fs::read_to_string(file).expect("the report");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let string = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let strings = |value: &Value| {
            value
                .as_array()
                .into_iter()
                .flatten()
                .map(string)
                .collect::<Vec<_>>()
        };
        for part in json[0].as_array().expect("parts") {
            let lines = part["lines"].as_array().expect("lines").iter();
            let lines = lines.map(|line| Line {
                what: string(&line["what"]),
                outcome: match line["ok"].as_str() {
                    Some(evidence) => Ok(evidence.into()),
                    None => Err(string(&line["failed"])),
                },
            });
            self.parts.push(Part {
                of: self.running.clone(),
                title: format!("{}, {place}", string(&part["title"])),
                versions: strings(&part["versions"]),
                lines: lines.collect(),
                text: string(&part["text"]),
            });
        }
        let left_out = strings(&json[1]).into_iter();
        self.left_out
            .extend(left_out.map(|what| format!("{place}: {what}")));
    }

    /// Remembers what could not be checked here, and why. It is printed at the end.
    pub fn left_out(&mut self, what: &str) {
        println!("  not run: {what}");
        self.left_out.push(what.into());
    }

    fn count(&self, ok: bool) -> usize {
        let lines = self.parts.iter().flat_map(|part| &part.lines);
        lines.filter(|line| line.outcome.is_ok() == ok).count()
    }

    /// Writes the page: in Markdown, or for the host of this machine.
    pub fn write(&self, file: &str) {
        if guest::here() {
            return self.write_json(file);
        }
        let version = env!("PAUSE_VERSION");
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
            let sum = sha256(&dist(platform.architecture));
            writeln!(page, "| {platform} | `{sum}` |").expect("memory");
        }
        for part in &self.parts {
            write!(page, "\n## {}\n\n{}", part.title, part.markdown()).expect("memory");
        }
        if !self.left_out.is_empty() {
            write!(page, "\n## Not run here\n\n").expect("memory");
        }
        for what in &self.left_out {
            writeln!(page, "- {what}").expect("memory");
        }
        std::fs::write(file, page).expect("the report");
    }

    /// Writes the results of each part of this run to the page of the project.
    pub fn publish(&self) {
        let when = run("date", &["+%-d %B %Y"]);
        let git = [
            "-C",
            root().to_str().expect("UTF-8"),
            "rev-parse",
            "--short",
            "HEAD",
        ];
        let commit = run("git", &git);
        let mut names: Vec<_> = self.parts.iter().map(|part| &part.of).collect();
        names.dedup();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let parts: Vec<_> = self.parts.iter().filter(|part| part.of == *name).collect();
            let checks: usize = parts.iter().map(|part| part.lines.len()).sum();
            let passed: usize = parts.iter().map(|part| part.passed()).sum();
            // A machine of another architecture has the file of that.
            let architecture = name.strip_prefix("machine-").unwrap_or(&HOST);
            let mut text = format!(
                "{passed} passed, {} failed, on {} at commit {}; SHA-256 of `/pause` for {}: `{}`.\n",
                checks - passed,
                when.trim(),
                commit.trim(),
                architecture,
                sha256(&dist(architecture)),
            );
            for part in parts {
                text += &format!("\n### {}\n\n{}", part.title, part.markdown());
            }
            harness::page::fill(PAGE, &format!("results of {name}"), &text);
        }
    }

    /// Prints the totals, and returns the exit status.
    pub fn end(&self) -> ExitCode {
        let (passed, failed) = (self.count(true), self.count(false));
        for what in &self.left_out {
            println!("not run here: {what}");
        }
        println!("{passed} passed, {failed} failed");
        // With --all, what was left out is a failure.
        let incomplete = std::env::var_os("PAUSE_ALL").is_some() && !self.left_out.is_empty();
        match STOPPED.get() {
            Some(signal) => ExitCode::from(128 + *signal as u8), // as shells do
            None if failed > 0 || incomplete => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        }
    }
}
