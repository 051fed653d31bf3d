//! All of critest with our pause, and at the same time with a C pause. Specs that fail with
//! both fail because of the machine or the runtime; no other spec may fail with ours.

use std::fs;
use std::thread;

use serde_json::Value;

use crate::Work;
use crate::images::{C_PAUSE, Images, PAUSE};
use crate::node::{Node, Runtime};
use crate::report::Report;

/// How often critest tries a spec before the spec counts as failed. On a busy machine some
/// specs run into critest's own time limits.
const TRIES: u32 = 3;

/// The name and the final state of each spec. Some names occur twice.
pub type Outcomes = Vec<(String, String)>;

/// Runs critest on a new node, with the runc handler that supports user namespaces.
fn run(pause: &str, name: &str, work: &Work, images: &Images) -> (Vec<String>, Outcomes) {
    let node = Node::new(Runtime::Containerd2, pause, work, images);
    images.serve(&node);
    // In a cell /var is an overlay, and the folder for logs may be below it: the node takes *.log
    // of its /run there.
    let log = format!("/run/critest-{name}");
    let output = node.output(&format!(
        "critest --runtime-endpoint {} --ginkgo.no-color --ginkgo.flake-attempts {TRIES} \
         --runtime-handler userns --ginkgo.json-report {log}.json >{log}.log 2>&1",
        node.endpoint,
    ));
    let report = fs::read_to_string(node.path(&format!("{log}.json")));
    let report = report.unwrap_or_else(|_| {
        panic!(
            "critest ended with {}: see critest-{name}.log in {}",
            output.status,
            work.logs.display()
        )
    });
    let mut outcomes = ginkgo_outcomes(&report);
    outcomes.sort();
    (node.programs.clone(), outcomes)
}

/// Reads the report that ginkgo writes with `--json-report`.
pub fn ginkgo_outcomes(report: &str) -> Outcomes {
    let suites: Value = serde_json::from_str(report).expect("JSON");
    let specs = suites[0]["SpecReports"].as_array().expect("specs").iter();
    let specs = specs.filter(|spec| spec["LeafNodeType"] == "It");
    let outcome = |spec: &Value| {
        let path = spec["ContainerHierarchyTexts"].as_array();
        let path = path.into_iter().flatten().chain([&spec["LeafNodeText"]]);
        let path: Vec<_> = path.filter_map(Value::as_str).collect();
        let state = spec["State"].as_str().expect("a state");
        (path.join(" "), state.to_string())
    };
    specs.map(outcome).collect()
}

/// The names of the specs that ended in one of `states`.
fn of<'a>(outcomes: &'a Outcomes, states: &[&str]) -> Vec<&'a str> {
    let of = outcomes.iter().filter(|(_, state)| states.contains(&state.as_str()));
    of.map(|(name, _)| name.as_str()).collect()
}

fn failed(outcomes: &Outcomes) -> Vec<&str> {
    of(outcomes, &["failed", "panicked", "interrupted", "aborted", "timedout"])
}

fn summary(outcomes: &Outcomes) -> String {
    let [passed, skipped] =
        [&["passed"][..], &["skipped", "pending"]].map(|states| of(outcomes, states).len());
    format!("{passed} passed, {} failed, {skipped} skipped", failed(outcomes).len())
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let both = thread::scope(|scope| {
        let both = [(PAUSE, "pause"), (C_PAUSE, "c")]
            .map(|(pause, name)| scope.spawn(move || run(pause, name, work, images)));
        both.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let [(parts, ours), (_, control)] = both;
    report.versions(&parts);
    report.check("the same specs ran with both", || {
        let names =
            |outcomes: &Outcomes| outcomes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert!(names(&ours) == names(&control), "not the same specs");
        let skipped = |outcomes| of(outcomes, &["skipped", "pending"]);
        assert_eq!(skipped(&ours), skipped(&control));
        // On a node where nothing works, all specs would fail with both.
        assert!(of(&control, &["passed"]).len() > control.len() / 2, "{}", summary(&control));
        format!(
            "{} of them; with pause {}; with C {}",
            ours.len(),
            summary(&ours),
            summary(&control)
        )
    });
    report.check("the lists of failures are equal", || {
        assert_eq!(failed(&ours), failed(&control), "with pause, and with C");
        format!("{} fail, with either", failed(&ours).len())
    });
    for name in failed(&control) {
        report.note(&format!("- fails without our pause: {name}"));
    }
}
