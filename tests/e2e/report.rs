//! The results: a line for each check as it ends, and a report as JUnit and in Markdown.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use quick_junit::{NonSuccessKind, Report as JUnit, TestCase, TestCaseStatus, TestSuite};

use harness::programs::{dist, platforms};
use harness::{run, sha256};

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

/// The results of one part of `scripts/e2e` on one node.
pub struct Report {
    suite: TestSuite,
    /// The results of the same program in a virtual machine.
    from_machine: Vec<TestSuite>,
}

impl Report {
    /// Runs a part. A panic outside of its checks counts as a failure, too.
    pub fn of(title: &str, work: impl FnOnce(&mut Self)) -> Vec<TestSuite> {
        println!("\n{title}");
        let mut report = Self { suite: TestSuite::new(title), from_machine: Vec::new() };
        let start = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&mut report))) {
            report.add("it runs to its end", Err(harness::message(&*panic)));
        } else if report.suite.test_cases.is_empty() {
            report.add("something was checked", Err("nothing was".into()));
        }
        report.suite.set_time(start.elapsed());
        println!("{title}: {} s", start.elapsed().as_secs());
        [vec![report.suite], report.from_machine].concat()
    }

    /// Runs one check. `look` panics if the check fails, and returns the evidence, if there is more
    /// than that.
    pub fn check<E: Evidence>(&mut self, what: &str, look: impl FnOnce() -> E) {
        let outcome = catch_unwind(AssertUnwindSafe(look)).map(Evidence::text);
        self.add(what, outcome.map_err(|panic| harness::message(&*panic)));
    }

    fn add(&mut self, what: &str, outcome: Result<String, String>) {
        let case = match outcome {
            Ok(evidence) => {
                println!("  ok    {what}{}{evidence}", if evidence.is_empty() { "" } else { ": " });
                let mut case = TestCase::new(what, TestCaseStatus::success());
                case.set_system_out(evidence);
                case
            }
            Err(message) => {
                let first = message.lines().next().unwrap_or_default();
                println!("  FAIL  {what}: {first}");
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(first).set_description(message.as_str());
                TestCase::new(what, status)
            }
        };
        self.suite.add_test_case(case);
    }

    /// Remembers what cannot be checked here, and why.
    pub fn left_out(&mut self, what: &str) {
        println!("  not run: {what}");
        self.suite.add_test_case(TestCase::new(what, TestCaseStatus::skipped()));
    }

    /// Adds the programs that take part, with their versions.
    pub fn versions(&mut self, programs: &[String]) {
        println!("  with {}", programs.join(", "));
        self.suite.add_properties(programs.iter().map(|program| ("version", program.as_str())));
    }

    /// Prints a line of text, and adds it to the report, in Markdown.
    pub fn note(&mut self, text: &str) {
        println!("{text}");
        let before = self.suite.system_out.as_ref().map_or("", |before| before.as_str());
        self.suite.set_system_out(format!("{before}{text}\n"));
    }

    /// Adds the results that this program has written in a virtual machine.
    pub fn add_from(&mut self, folder: &Path, machine: &str) {
        let text = std::fs::read_to_string(folder.join(JUNIT)).expect("the report");
        let report = JUnit::deserialize_from_str(&text).expect("JUnit");
        self.from_machine.extend(report.test_suites.into_iter().map(|mut suite| {
            suite.name = format!("{}, {machine}", suite.name.as_str()).into();
            suite
        }));
    }
}

/// The names of the two files of a report.
const JUNIT: &str = "junit.xml";
const MARKDOWN: &str = "report.md";

/// The numbers of checks that passed, that failed, and that were left out.
pub fn totals(suites: &[TestSuite]) -> [usize; 3] {
    let mut totals = [0; 3];
    for case in suites.iter().flat_map(|suite| &suite.test_cases) {
        totals[match case.status {
            TestCaseStatus::Success { .. } => 0,
            TestCaseStatus::NonSuccess { .. } => 1,
            TestCaseStatus::Skipped { .. } => 2,
        }] += 1;
    }
    totals
}

/// Prints what was left out.
pub fn left_out(suites: &[TestSuite]) {
    for case in suites.iter().flat_map(|suite| &suite.test_cases) {
        if matches!(case.status, TestCaseStatus::Skipped { .. }) {
            println!("not run here: {}", case.name.as_str());
        }
    }
}

/// Writes the report to a folder.
pub fn write(folder: &Path, suites: &[TestSuite]) {
    std::fs::write(folder.join(MARKDOWN), markdown(suites)).expect("the report");
    let mut report = JUnit::new("pause");
    report.add_test_suites(suites.iter().cloned());
    let file = std::fs::File::create(folder.join(JUNIT)).expect("the report");
    report.serialize(file).expect("the report");
    println!("the report: {0}/{MARKDOWN} and {0}/{JUNIT}", folder.display());
}

fn markdown(suites: &[TestSuite]) -> String {
    let [passed, failed, left_out] = totals(suites);
    let mut page = format!(
        "# pause {} on Kubernetes nodes\n\n\
         {passed} passed, {failed} failed, {left_out} left out, by `scripts/e2e` on {}, {} CPUs.\n\n\
         | | SHA-256 of `/pause` |\n|---|---|\n",
        env!("PAUSE_VERSION"),
        run("uname", &["-srm"]).trim(),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    for platform in platforms() {
        let sum = sha256(&dist(&platform.architecture));
        writeln!(page, "| {platform} | `{sum}` |").expect("memory");
    }
    for suite in suites {
        let versions = suite.properties.iter().map(|property| property.value.as_str());
        let versions: Vec<_> = versions.collect();
        write!(page, "\n## {}\n\n{}\n\n", suite.name.as_str(), versions.join(", "))
            .expect("memory");
        page += "| | check | evidence |\n|---|---|---|\n";
        for case in &suite.test_cases {
            let (mark, text) = match &case.status {
                TestCaseStatus::Success { .. } => ("ok", case.system_out.as_ref()),
                TestCaseStatus::NonSuccess { message, .. } => ("**FAIL**", message.as_ref()),
                TestCaseStatus::Skipped { .. } => ("not run", None),
            };
            // In Markdown a table cell is one line, and a bar ends it.
            let text = text.map_or("", |text| text.as_str()).replace('\n', " ").replace('|', "\\|");
            writeln!(page, "| {mark} | {} | {text} |", case.name.as_str()).expect("memory");
        }
        if let Some(text) = &suite.system_out {
            write!(page, "\n{}", text.as_str()).expect("memory");
        }
    }
    page
}
