//! README quotes files of the project word for word.

use std::fs;

use harness::programs::root;

limited! {
    /// The configuration that `scripts/e2e` gives to the runtimes.
    fn it_has_the_lines_that_scripts_e2e_uses() {
        let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
        for file in ["containerd-1.toml", "containerd-2.toml", "crio.conf"] {
            let lines = fs::read_to_string(root().join("tests/e2e/config").join(file)).expect(file);
            assert!(readme.contains(&format!("```toml\n{lines}```\n")), "{file}:\n{lines}");
        }
    }

    /// The contract in `src/main.rs`.
    fn it_has_the_contract() {
        let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
        let source = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
        let rows = source.lines().filter_map(|line| line.strip_prefix("//! |"));
        let table: String = rows.map(|row| format!("|{row}\n")).collect();
        assert!(table.lines().count() > 12 && readme.contains(&table), "README has not:\n{table}");
    }

    /// An image name with another version would not be found.
    fn its_image_has_this_version() {
        let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
        let names = readme.split("localhost/pause:").skip(1);
        let other = names.filter(|rest| !rest.starts_with(env!("CARGO_PKG_VERSION")));
        assert_eq!(other.count(), 0);
    }
}
