//! `scripts/bench` and `scripts/sizes`: the check of sizes, the byte map, and what other tools read or call.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use harness::checkout::{Checkout, as_nobody, scripts_for_all};
use harness::programs::{HOST, platforms, root, size};
use harness::suite::Suite;
use harness::{Folder, refused, tests, text};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        check_fails_on_any_difference_until_it_is_blessed,
        the_map_has_every_byte,
        dashboards_read_what_it_prints,
        other_compilers_and_libraries_are_sized_in_a_copy,
        a_size_suite_reads_and_calls_it,
        a_pull_request_gets_a_table,
        refuses_what_cannot_be_measured,
    ]);
}

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(root().join("scripts/bench"));
    command.args(arguments).output().expect("scripts/bench")
}

/// `scripts/sizes` for the platform of this machine.
fn sizes(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/sizes"));
    command.args(arguments).env("PAUSE_ONLY", *HOST);
    command
}

/// The standard output of a run that must succeed.
#[track_caller]
fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A size that fell is an error like one that rose, as `tests/size.toml` is then wrong.
fn check_fails_on_any_difference_until_it_is_blessed() {
    let checkout = Checkout::new("sizes");
    let file = checkout.path().join("tests/size.toml");
    let ours = fs::read_to_string(&file).expect("size.toml");
    let (size, name) = (size(&HOST), *HOST);
    let [is, was] = [size, size + 1].map(|size| format!("{name} = {size}"));
    fs::write(&file, ours.replacen(&is, &was, 1)).expect("a copy");
    let bench = |what| {
        let mut command = checkout.command(&["scripts/bench", what]);
        command.env("PAUSE_ONLY", name).output().expect("scripts/bench")
    };
    let output = bench("--check");
    let rows = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = format!("file: {name} {} {size} -1", size + 1);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(rows.lines().any(|line| words(line) == row), "no '{row}' in {rows}");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.ends_with("scripts/bench --bless writes them down\n"), "{stderr}");
    printed(bench("--bless"));
    assert_eq!(fs::read_to_string(&file).expect("the copy"), ours, "and nothing else changed");
}

/// The last row of the first table has the sizes of the files.
fn the_map_has_every_byte() {
    let map = printed(bench(&["--map"]));
    let row = map.lines().find(|line| line.starts_with("| **the file**")).expect("the sum");
    let cells = row.split('|').filter_map(|cell| cell.trim().parse::<u64>().ok());
    let sizes = platforms().into_iter().map(|platform| size(&platform.architecture));
    assert!(cells.eq(sizes), "{map}");
    assert!(map.contains("| `main`") && map.contains("| src/main.rs:"), "{map}");
}

/// One run writes all formats: for github-action-benchmark, for Bencher, a table and a chart.
fn dashboards_read_what_it_prints() {
    let folder = Folder::new("bench");
    let json = printed(bench(&["--json", "--out", text(&folder)]));
    let file = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    assert_eq!(json, file("github-action-benchmark.json"));
    assert!(file("table.md").contains("| minor faults"));
    assert!(file("comparison.svg").starts_with("<svg"));

    let list: Value = serde_json::from_str(&file("github-action-benchmark.json")).expect("JSON");
    let list = list.as_array().expect("a list");
    assert!(list.len() > 15, "{list:?}");
    for entry in list {
        let fields = entry.as_object().expect("an object");
        let right = |(key, value): (&String, &Value)| match key.as_str() {
            "name" | "unit" | "range" | "extra" => value.is_string(),
            "value" => value.is_number(),
            _ => false,
        };
        assert!(fields.iter().all(right), "{entry}");
        assert!(["name", "unit", "value"].iter().all(|key| fields.contains_key(*key)), "{entry}");
    }

    let all: Value = serde_json::from_str(&file("bencher.json")).expect("JSON");
    assert_eq!(all[format!("file, {}", *HOST)]["file-size"]["value"], size(&HOST) as f64);
    for metric in all.as_object().expect("names").values().flat_map(|one| one.as_object()) {
        for fields in metric.values().map(|metric| metric.as_object().expect("a metric")) {
            let number = |key: &str| fields.get(key).map(|n| n.as_f64().expect("a number"));
            let value = number("value").expect("a value");
            assert!(number("lower_value").is_none_or(|low| low <= value), "{fields:?}");
            assert!(number("upper_value").is_none_or(|high| value <= high), "{fields:?}");
        }
    }
}

fn other_compilers_and_libraries_are_sized_in_a_copy() {
    let names = [*HOST];
    let mut command = sizes(&["--toolchain", "debian", "--rustix", "1.1.5"]);
    let text = printed(command.output().expect("scripts/sizes"));
    let row = |line: &str| -> Vec<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        words[words.len() - names.len()..].iter().map(|word| word.to_string()).collect()
    };
    let sizes: Vec<_> = text.lines().take(4).map(row).collect();
    let files: Vec<_> = names.iter().map(|name| size(name).to_string()).collect();
    assert_eq!(sizes[1], files, "as pinned: {text}");
    assert!(sizes[1..].concat().iter().all(|size| size.parse::<u32>().is_ok()), "{text}");
    assert!(text.contains("\nto take rustix 1.1.5: =1.1.5 in place of ="), "{text}");
}

/// A line of JSON, and what `cargo bisect-rustc --script` calls.
fn a_size_suite_reads_and_calls_it() {
    let line = printed(sizes(&["--json"]).output().expect("scripts/sizes"));
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let name = harness::programs::host_platform().to_string();
    assert_eq!(line["file"], serde_json::json!({name: size(&HOST)}));
    assert!(line["compiler"].as_str().expect("a compiler").starts_with("rustc 1."), "{line}");
    let at_most = |limit: u64| {
        let mut command = sizes(&["--at-most", &limit.to_string()]);
        command.env("RUSTUP_TOOLCHAIN", "1.95.0").output().expect("scripts/sizes").status.code()
    };
    assert_eq!((at_most(size(&HOST)), at_most(size(&HOST) - 1)), (Some(0), Some(1)));
    // It is that compiler which is taken, and not the one of rust-toolchain.toml.
    let mut other = sizes(&["--at-most", "10000"]);
    let other = other.env("RUSTUP_TOOLCHAIN", "none-such").output().expect("scripts/sizes");
    assert!(String::from_utf8_lossy(&other.stderr).contains("none-such"), "{other:?}");
}

/// A string that is longer by two letters, in a commit of a clone.
fn a_pull_request_gets_a_table() {
    let checkout = Checkout::new("base");
    let path = checkout.path().join("src/main.rs");
    let source = fs::read_to_string(&path).expect("main.rs");
    fs::write(&path, source.replace("infinite loop terminated", "infinite loop is terminated"))
        .expect("main.rs");
    let mut command = checkout.command(&["scripts/sizes", "--base", "HEAD"]);
    let text = printed(command.env("PAUSE_ONLY", *HOST).output().expect("scripts/sizes"));
    let was = size(&HOST);
    let name = harness::programs::host_platform().to_string();
    let row = format!("| {name} | {was} | {} | +3: ", was + 3);
    assert!(text.contains(&row) && text.contains("is terminated"), "{text}");
}

fn refuses_what_cannot_be_measured() {
    for (arguments, reason) in [
        (&["--frob"][..], "unexpected argument '--frob'"),
        (&["--json", "--check"], "'--json' cannot be used with '--check'"),
        (&["--svg"], "a value is required for '--svg"),
        (&["--svg", "/none/file"], "there is no folder /none"),
        (&["--out", "/none/folder"], "there is no such folder"),
    ] {
        refused(&bench(arguments), reason);
    }
    for (arguments, reason) in [
        (&["--toolchain", "nope"][..], "--toolchain nope is not installed"),
        (&["--json", "--rustix", "1.1.5"], "cannot be used with"),
        (&["--rustix", "99.0.0"], "rustix 99.0.0: "),
        (&["--base", "nope"], "--base nope"),
        (&["--at-most", "few"], "invalid value 'few'"),
    ] {
        refused(&sizes(arguments).output().expect("scripts/sizes"), reason);
    }
    let bench = as_nobody(&scripts_for_all(), "bench").output();
    refused(&bench.expect("setpriv"), "this wants root");
}
