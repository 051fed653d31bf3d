//! Upstream's end-to-end tests on a cluster whose pause is ours. What fails there is repeated alone,
//! and then on a cluster with a C pause: what fails with ours alone is a failure.

use std::fs;

use crate::Work;
use crate::cluster::Cluster;
use crate::critest::ginkgo_outcomes;
use crate::images::Images;
use crate::report::Report;

/// What runs: the mark of the specs, and a regular expression of those that are left out. Some
/// specs that are not part of conformance hold a process for up to half an hour.
const NODE: (&str, &str) = ("NodeConformance", r"\[Feature:|\[Disruptive\]|Windows|\[Slow\]");
const ALL: (&str, &str) = ("Conformance", r"\[Disruptive\]|Windows");

/// The specs of a run: the number that passed, and the names of those that failed.
#[derive(Default)]
struct Outcome {
    passed: usize,
    failed: Vec<String>,
}

/// Runs the specs whose names match `focus`.
fn run(cluster: &Cluster, name: &str, focus: &str, skip: &str, processes: usize) -> Outcome {
    let node = &cluster.node;
    let file = format!("/run/{name}.json");
    let program = crate::node::bin().join("e2e.test");
    node.output(&format!(
        "cd /run && ginkgo --procs {processes} --no-color --timeout 6h --keep-going --focus '{focus}' --skip '{skip}' \
         --json-report {file} {} -- --kubeconfig /etc/kubernetes/admin.conf --provider local \
         --allowed-not-ready-nodes 0 >/run/{name}.log 2>&1",
        program.display()
    ));
    let report = fs::read_to_string(node.path(&file));
    let report =
        report.unwrap_or_else(|_| panic!("e2e.test wrote no report: see {name}.log in the logs"));
    let mut outcome = Outcome::default();
    for (name, state) in ginkgo_outcomes(&report) {
        match state.as_str() {
            "passed" => outcome.passed += 1,
            "skipped" | "pending" => (),
            _ => outcome.failed.push(name),
        }
    }
    outcome
}

/// The name of a spec as a regular expression.
fn exactly(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter {
            // It stands in a shell word in single quotes.
            '\'' => text.push('.'),
            _ if letter.is_alphanumeric() || letter == ' ' => text.push(letter),
            _ => text.extend(['\\', letter]),
        }
    }
    text
}

pub fn check_node(work: &Work, images: &Images, report: &mut Report) {
    check(NODE, work, images, report);
}

pub fn check_all(work: &Work, images: &Images, report: &mut Report) {
    check(ALL, work, images, report);
}

fn check((kind, skip): (&str, &str), work: &Work, images: &Images, report: &mut Report) {
    let start = |tag: Option<&str>| {
        let cluster = Cluster::new(tag, work, images);
        images.serve_tests(&cluster.node);
        cluster.init();
        cluster.ready();
        cluster
    };
    let focus = format!(r"\[{kind}\]");
    let cluster = start(None);
    let version = cluster.node.sh("kubeadm version --output short");
    report.versions(&[&cluster.node.programs[..], &[format!("Kubernetes {version}")]].concat());
    let mut first = Outcome::default();
    report.check(&format!("upstream's specs [{kind}] run"), || {
        first = run(&cluster, "ours", &focus, skip, 8);
        // On a cluster where nothing works, all would fail with both.
        assert!(
            first.passed > 10 * first.failed.len(),
            "{} passed, {} failed",
            first.passed,
            first.failed.len()
        );
        format!("{} passed, {} failed", first.passed, first.failed.len())
    });
    let names: Vec<_> = first.failed.iter().map(|name| exactly(name)).collect();
    let again = match names.is_empty() {
        true => Outcome::default(),
        // On a busy machine some run into their own time limits: one at a time.
        false => run(&cluster, "again", &names.join("|"), skip, 1),
    };
    drop(cluster);
    report.check("no spec fails with our pause alone", || {
        if again.failed.is_empty() {
            return format!("{} failed at first, and passed alone", first.failed.len());
        }
        let names: Vec<_> = again.failed.iter().map(|name| exactly(name)).collect();
        let control = run(&start(Some("pause-c")), "control", &names.join("|"), skip, 1);
        let ours: Vec<_> =
            again.failed.iter().filter(|name| !control.failed.contains(name)).collect();
        assert!(ours.is_empty(), "with a C pause these pass: {ours:?}");
        format!(
            "{} failed at first, {} passed alone, {} fail with a C pause too",
            first.failed.len(),
            again.passed,
            control.failed.len()
        )
    });
    for name in &again.failed {
        report.note(&format!("- fails with a C pause too: {name}"));
    }
    report.note(&format!("left out: `{skip}`"));
}
