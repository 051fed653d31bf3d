//! README and docs/ have the version and the sizes of this commit.

use std::fs;

use harness::programs::{platforms, root};
use harness::thousands;

/// The sizes of tests/size.toml stand in README, and in CHANGELOG for the next release.
pub fn they_have_the_sizes_of_size_toml() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect(file);
    let sizes: toml::Table = read("tests/size.toml").parse().expect("TOML");
    let size = |table: &str, name: &str| sizes[table][name].as_integer().expect("a size");
    let pulled = thousands(size("image", "amd64") as u64);
    let cell = format!("| image pulled, linux/amd64 | {pulled} bytes |");
    assert!(read("README.md").contains(&cell), "README.md has not: {cell}");
    let sentence = format!("one static file of {} bytes on amd64", size("file", "amd64"));
    assert!(read("README.md").contains(&sentence), "README.md has not: {sentence}");
    let changelog = read("CHANGELOG.md");
    let newest = changelog.split("\n## ").nth(1).expect("a section");
    for (table, title) in [("file", "`/pause`"), ("image", "image")] {
        let sizes = platforms().into_iter().map(|one| size(table, one.architecture).to_string());
        let row = format!("| {title} | {} |", sizes.collect::<Vec<_>>().join(" | "));
        assert!(newest.contains(&row), "the first section of CHANGELOG.md has not: {row}");
    }
}

/// An image name with another version would not be found.
pub fn its_image_has_this_version() {
    let pages = fs::read_dir(root().join("docs")).expect("docs/").flatten().map(|entry| entry.path());
    let configs = fs::read_dir(root().join("tests/e2e/config")).expect("files").flatten().map(|entry| entry.path());
    for page in pages.chain(configs).chain([root().join("README.md")]) {
        let text = fs::read_to_string(&page).expect("a page");
        for rest in text.split("/pause:0").skip(1) {
            let name = format!("0{rest}");
            assert!(name.starts_with(env!("PAUSE_VERSION")), "{}: pause:{}", page.display(), &name[..8]);
        }
    }
}
