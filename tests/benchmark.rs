//! `scripts/bench`: the check of sizes, the byte map, and what a dashboard reads.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use harness::checkout::Checkout;
use harness::programs::{HOST, platforms, root, size};

fn bench(what: &str) -> Output {
    Command::new(root().join("scripts/bench")).arg(what).output().expect("scripts/bench")
}

/// The standard output of a run that must succeed.
fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A size that fell is an error like one that rose, as `tests/size.toml` is then wrong. `--bless` writes the sizes to
/// all files that have them.
pub fn check_fails_on_any_difference_until_it_is_blessed() {
    let checkout = Checkout::new("sizes");
    let (size, name) = (size(&HOST), *HOST);
    let files = ["tests/size.toml", "README.md", "CHANGELOG.md"].map(|file| checkout.path().join(file));
    let read = || files.each_ref().map(|file| fs::read_to_string(file).expect("a file"));
    let ours = read();
    let [is, was] = [size, size + 1].map(|size| format!("{name} = {size}"));
    fs::write(&files[0], ours[0].replacen(&is, &was, 1)).expect("a copy");
    fs::write(&files[2], ours[2].replacen(&format!("| {size} |"), "| 1 |", 1)).expect("a copy");
    let bench = |what| checkout.command(&["scripts/bench", what]).output().expect("scripts/bench");
    let output = bench("--check");
    let rows = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = format!("file: {name} {} {size} -1", size + 1);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(rows.lines().any(|line| words(line) == row), "no '{row}' in {rows}");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.ends_with("run scripts/bench --bless\n"), "{stderr}");
    printed(bench("--bless"));
    assert_eq!(read(), ours, "and nothing else changed");
}

/// The last row of the first table has the sizes of the files.
pub fn the_map_has_every_byte() {
    let map = printed(bench("--map"));
    let row = map.lines().find(|line| line.starts_with("| **the file**")).expect("the sum");
    let cells = row.split('|').filter_map(|cell| cell.trim().parse::<u64>().ok());
    assert!(cells.eq(platforms().into_iter().map(|platform| size(platform.architecture))), "{map}");
    assert!(map.contains("| `main`") && map.contains("| src/main.rs:"), "{map}");
}

/// The format that github-action-benchmark calls `customSmallerIsBetter`.
pub fn a_dashboard_reads_what_it_prints() {
    let list: Value = serde_json::from_str(&printed(bench("--json"))).expect("JSON");
    let list = list.as_array().expect("a list");
    assert!(list.len() > 15, "{list:?}");
    for entry in list {
        let is = |key: &str| entry.get(key).expect(key);
        assert!(is("name").is_string() && is("unit").is_string() && is("value").is_number(), "{entry}");
    }
}
