//! `scripts/bench`: the check of sizes and counts, the byte map, and the formats
//! that other tools read.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use harness::checkout::scripts_for_all;
use harness::page::thousands;
use harness::programs::{HOST, debian_platforms, platforms, root, size};
use harness::{Folder, page, readme, refused};

/// What `scripts/bench --page` writes.
const PAGE: &str = "tests/bench/README.md";

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/bench"));
    command.args(arguments);
    command
}

/// Runs `scripts/bench`, which must succeed, and returns its standard output.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    printed_by(&mut bench(arguments))
}

#[track_caller]
fn printed_by(command: &mut Command) -> String {
    let output = command.output().expect("scripts/bench");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs `scripts/bench` with another file in place of `tests/size.toml`.
fn with(sizes: &Path, argument: &str) -> Output {
    let mut command = bench(&[argument]);
    command
        .env("PAUSE_SIZES", sizes)
        .output()
        .expect("scripts/bench")
}

/// The fields of the row that begins with `name`: recorded, measured, difference.
fn row(output: &Output, name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    let words = line
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .split_whitespace();
    words.map(String::from).collect()
}

/// Asserts that `value` is a list of objects with exactly these fields.
fn is_custom_smaller_is_better(text: &str) {
    let list: Value = serde_json::from_str(text).expect("JSON");
    let list = list.as_array().expect("a list");
    assert!(list.len() > 15, "{list:?}");
    for entry in list {
        for (key, value) in entry.as_object().expect("an object") {
            let right = match key.as_str() {
                "name" | "unit" | "range" | "extra" => value.is_string(),
                "value" => value.is_number(),
                _ => false,
            };
            assert!(right, "{key}: {value}");
        }
        let wanted = ["name", "unit", "value"];
        assert!(wanted.iter().all(|key| entry.get(key).is_some()), "{entry}");
    }
}

/// Asserts that each measure has a value between its two bounds.
fn is_bencher_metric_format(text: &str) {
    let all: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(
        all[format!("file, {}", *HOST)]["file-size"]["value"],
        size(&HOST) as f64
    );
    for (name, measures) in all.as_object().expect("names") {
        for (measure, metric) in measures.as_object().expect("measures") {
            let number = |key: &str| metric.get(key).map(|n| n.as_f64().expect("a number"));
            let value = number("value").unwrap_or_else(|| panic!("{name}, {measure}: {metric}"));
            let (low, high) = (number("lower_value"), number("upper_value"));
            assert!(
                low.is_none_or(|low| low <= value) && high.is_none_or(|high| value <= high),
                "{metric}"
            );
            let known = ["value", "lower_value", "upper_value"];
            let keys = metric.as_object().expect("a metric").keys();
            assert!(
                keys.map(String::as_str).all(|key| known.contains(&key)),
                "{metric}"
            );
        }
    }
}

limited! {
    /// A number that fell is an error like one that rose, as `tests/size.toml` is then wrong.
    #[ignore = "needs scripts/test"]
    fn check_fails_on_any_difference_until_it_is_blessed() {
        let folder = Folder::new("sizes");
        let file = folder.join("size.toml");
        let ours = fs::read_to_string(root().join("tests/size.toml")).expect("size.toml");
        let size = size(&HOST);
        let mut text = ours.clone();
        for (is, was) in [
            (format!("{} = {size}", *HOST), format!("{} = {}", *HOST, size + 1)),
            ("\"minor faults\" = 1".into(), "\"minor faults\" = 0".into()),
        ] {
            assert!(text.contains(&is), "{text}");
            text = text.replacen(&is, &was, 1);
        }
        fs::write(&file, text).expect("a copy");
        let output = with(&file, "--check");
        assert_eq!(row(&output, &format!("file: {}", *HOST)), [(size + 1).to_string(), size.to_string(), "-1".into()]);
        assert_eq!(row(&output, "count: minor faults"), ["0", "1", "+1"]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.ends_with("scripts/bench --bless writes it down\n"), "{stderr}");

        let output = with(&file, "--bless");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fs::read_to_string(&file).expect("the copy"), ours, "and nothing else changed");
    }

    /// `scripts/bench --check` compares these sizes and counts with the files and with a run.
    fn pages_have_the_sizes_and_counts_of_today() {
        let sizes = fs::read_to_string(root().join("tests/size.toml")).expect("size.toml");
        let sizes: toml::Table = sizes.parse().expect("TOML");
        let page = page::part(PAGE, "comparison");
        let ours = |row: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("| {row} | ")));
            let cell = line.unwrap_or_else(|| panic!("{PAGE} has no row '{row}'")).split(" | ").next();
            cell.unwrap_or_default().replace(',', "").parse::<u64>().unwrap_or_else(|e| panic!("{row}: {e}"))
        };
        let number = |table: &str, key: &str| sizes[table][key].as_integer().expect("a number") as u64;
        let readme = readme::text();
        for platform in platforms() {
            let name = platform.architecture;
            let (file, image) = (number("file", name), number("image", name));
            assert_eq!((ours(&format!("file, {name}, bytes")), ours(&format!("image to pull, {name}, bytes"))), (file, image));
            let row = format!("| {platform} | {} | {} |", thousands(file), thousands(image));
            assert!(readme.contains(&row), "README has not: {row}");
        }
        assert!(readme.contains(&format!("| {} bytes |", thousands(number("image", "amd64")))), "the first table of README");
        for (row, key) in [
            ("minor faults", "minor faults"),
            ("system calls to the first sleep", "system calls to the first sleep"),
            ("20,000 orphans: wake-ups", "wake-ups by 20,000 orphans"),
            ("20,000 orphans: zombies left", "zombies left of 20,000 orphans"),
            ("3,000 while stopped: zombies left", "zombies left of 3,000 orphans while stopped"),
        ] {
            assert_eq!(ours(row), number("count", key), "{row}");
        }
    }

    #[ignore = "needs scripts/test"]
    fn the_page_has_the_map_of_these_very_files() {
        assert_eq!(page::part(PAGE, "map"), printed(&["--map"]), "scripts/bench --page writes it");
        let folder = Folder::new("map");
        let drawn = folder.join("map.svg");
        printed(&["--map", "--svg", drawn.to_str().expect("UTF-8")]);
        let ours = fs::read_to_string(root().join("tests/bench/map.svg")).expect("map.svg");
        assert!(fs::read_to_string(drawn).expect("the map") == ours, "scripts/bench --map --svg tests/bench/map.svg draws it anew");
    }

    /// One run writes all formats: for github-action-benchmark, for Bencher, the table and the
    /// picture.
    #[ignore = "needs scripts/test"]
    fn dashboards_read_what_it_prints() {
        let folder = Folder::new("bench");
        let out = folder.to_str().expect("UTF-8");
        let json = printed(&["--json", "--out", out]);
        let file = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
        assert_eq!(file("github-action-benchmark.json"), json);
        is_custom_smaller_is_better(&json);
        is_bencher_metric_format(&file("bencher.json"));
        assert!(file("table.txt").contains("minor faults") && file("comparison.svg").starts_with("<svg"));
    }

    #[ignore = "needs scripts/test"]
    fn other_compilers_and_libraries_are_sized_in_a_copy() {
        // Debian's compiler is here for these.
        let names: Vec<_> = debian_platforms().iter().map(|platform| platform.architecture).collect();
        let mut command = bench(&["--toolchain", "debian", "--rustix", "1.1.5"]);
        let text = printed_by(command.env("PAUSE_ONLY", names.join(",")));
        let row = |line: &str| line.split_whitespace().rev().take(names.len()).map(String::from).collect::<Vec<_>>();
        let sizes: Vec<_> = text.lines().map(row).collect();
        let mut files: Vec<_> = names.iter().map(|name| size(name).to_string()).collect();
        files.reverse();
        assert_eq!(sizes[1], files, "as pinned: {text}");
        assert!(sizes.len() == 5 && sizes[1..4].concat().iter().all(|size| size.parse::<u32>().is_ok()), "{text}");
        assert!(text.contains("\nto take rustix 1.1.5: =1.1.5 in place of ="), "{text}");
    }

    #[ignore = "needs scripts/test"]
    fn refuses_what_cannot_be_measured() {
        let says = |arguments: &[&str], text| refused(&bench(arguments).output().expect("scripts/bench"), text);
        says(&["--frob"], "unknown argument '--frob'");
        says(&["--json", "--check"], "--json and --check do not go together");
        says(&["--svg"], "--svg wants a value");
        says(&["--svg", "/none/file"], "there is no folder /none");
        says(&["--toolchain", "nope"], "--toolchain nope is not installed");
        says(&["--check", "--rustix", "1.1.5"], "stand alone");
        let output = bench(&["--rustix", "99.0.0"]).output().expect("scripts/bench");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("rustix 99.0.0: error"), "{stderr}");
        says(&["--out", "/none/folder"], "there is no folder /none/folder");
        let mut nobody = Command::new("setpriv");
        let copy = scripts_for_all();
        nobody.args(["--reuid=65534", "--clear-groups"]).arg(copy.join("scripts/bench"));
        refused(&nobody.output().expect("setpriv"), "this wants root");
    }
}
