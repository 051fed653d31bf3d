//! The results: a line for each check as it ends.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// What a check returns.
pub trait Evidence {
    fn text(self) -> String;
}

impl Evidence for () {
    fn text(self) -> String {
        String::new()
    }
}

impl Evidence for String {
    fn text(self) -> String {
        self
    }
}

pub struct Report {
    passed: usize,
    failed: usize,
    /// What is printed is written to this file, too.
    file: Option<File>,
}

impl Report {
    pub fn new(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| File::create(folder.join("report.txt")).expect("the report"));
        Self { passed: 0, failed: 0, file }
    }

    /// Runs a suite. A panic outside of its checks counts as a failure, too.
    pub fn suite(&mut self, title: &str, work: impl FnOnce(&mut Self)) {
        self.note(&format!("\n{title}"));
        let (start, before) = (Instant::now(), self.passed + self.failed);
        let ended = catch_unwind(AssertUnwindSafe(|| work(self)));
        match ended {
            Err(panic) => self.add("it runs to its end", Err(harness::message(&*panic))),
            Ok(()) if self.passed + self.failed == before => {
                self.add("something was checked", Err("nothing was".into()))
            }
            Ok(()) => (),
        }
        self.note(&format!("{title}: {} s", start.elapsed().as_secs()));
    }

    /// Runs one check. `look` panics if the check fails, and returns the evidence, if there is more than that.
    pub fn check<E: Evidence>(&mut self, what: &str, look: impl FnOnce() -> E) {
        let outcome = catch_unwind(AssertUnwindSafe(look)).map(Evidence::text);
        self.add(what, outcome.map_err(|panic| harness::message(&*panic)));
    }

    fn add(&mut self, what: &str, outcome: Result<String, String>) {
        *(if outcome.is_ok() { &mut self.passed } else { &mut self.failed }) += 1;
        self.note(&match outcome {
            Ok(evidence) if evidence.is_empty() => format!("  ok    {what}"),
            Ok(evidence) => format!("  ok    {what}: {evidence}"),
            Err(message) => format!("  FAIL  {what}: {message}"),
        });
    }

    /// Prints the programs that take part, with their versions.
    pub fn versions(&mut self, programs: &[String]) {
        self.note(&format!("  with {}", programs.join(", ")));
    }

    pub fn note(&mut self, text: &str) {
        println!("{text}");
        self.file.iter_mut().for_each(|file| writeln!(file, "{text}").expect("the report"));
    }

    /// The last line, and the exit status.
    pub fn end(mut self) -> ExitCode {
        self.note(&format!("{} passed, {} failed", self.passed, self.failed));
        ExitCode::from(u8::from(self.failed > 0))
    }
}
