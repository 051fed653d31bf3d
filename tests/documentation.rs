//! README and docs/ quote files of the project word for word.

use std::fs;

use harness::documentation;
use harness::programs::{platforms, root};
use harness::suite::Suite;
use harness::{tests, thousands};

pub fn list(suite: &mut Suite) {
    suite.host(tests![
        it_has_the_contract,
        its_image_has_this_version,
        they_have_the_sizes_of_size_toml,
    ]);
}

/// The contract and its limits in `src/main.rs`.
fn it_has_the_contract() {
    let text = documentation::text();
    let source = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
    let page = source.lines().map_while(|line| line.strip_prefix("//!"));
    let page: String =
        page.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    let [table, rest] = page.split("# Limits\n").collect::<Vec<_>>()[..] else {
        panic!("two parts: {page}");
    };
    let table = &table[table.find('|').expect("the table")..];
    let limits = &rest[..rest.find("\nThe file reads").expect("the end")];
    assert!(table.lines().count() > 13 && limits.lines().count() > 10, "{page}");
    for part in [table, limits] {
        assert!(text.contains(part), "docs/contract.md has not:\n{part}");
    }
}

/// The sizes of tests/size.toml stand in README, and in CHANGELOG for the next release.
fn they_have_the_sizes_of_size_toml() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect(file);
    let sizes: toml::Table = read("tests/size.toml").parse().expect("TOML");
    let size = |table: &str, name: &str| sizes[table][name].as_integer().expect("a size");
    let pulled = thousands(size("image", "amd64") as u64);
    let cell = format!("| image pulled, linux/amd64 | {pulled} bytes |");
    assert!(read("README.md").contains(&cell), "README.md has not: {cell}");
    let changelog = read("CHANGELOG.md");
    let newest = changelog.split("\n## ").nth(1).expect("a section");
    for (table, title) in [("file", "`/pause`"), ("image", "image")] {
        let sizes = platforms().into_iter().map(|one| size(table, &one.architecture).to_string());
        let row = format!("| {title} | {} |", sizes.collect::<Vec<_>>().join(" | "));
        assert!(newest.contains(&row), "the first section of CHANGELOG.md has not: {row}");
    }
}

/// An image name with another version would not be found.
fn its_image_has_this_version() {
    let text = documentation::text();
    let names = text.split("/pause:0").skip(1);
    let other = names.filter(|rest| !format!("0{rest}").starts_with(env!("PAUSE_VERSION")));
    assert_eq!(other.count(), 0);
}
