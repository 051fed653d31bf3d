//! README quotes files of the project word for word, and has recipes that a test can read.

use std::fs;

use harness::programs::root;
use harness::readme;

limited! {
    /// `scripts/e2e switch` carries them out: note, pull, edit, check, restart, verify, roll back.
    fn its_recipes_have_seven_steps() {
        for runtime in ["containerd 2.x", "containerd 1.x", "CRI-O"] {
            let steps = readme::recipe(runtime);
            assert!(steps.len() == 7 && steps.iter().all(|step| !step.is_empty()), "{runtime}: {steps:?}");
        }
    }

    /// The contract and its limits in `src/main.rs`.
    fn it_has_the_contract() {
        let readme = readme::text();
        let source = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
        let page = source.lines().map_while(|line| line.strip_prefix("//!"));
        let page: String = page.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
        let [table, rest] = page.split("# Limits\n").collect::<Vec<_>>()[..] else {
            panic!("two parts: {page}");
        };
        let table = &table[table.find('|').expect("the table")..];
        let limits = &rest[..rest.find("\nThe file reads").expect("the end")];
        assert!(table.lines().count() > 13 && limits.lines().count() > 10, "{page}");
        for part in [table, limits] {
            assert!(readme.contains(part), "README has not:\n{part}");
        }
    }

    /// An image name with another version would not be found.
    fn its_image_has_this_version() {
        let readme = readme::text();
        let names = readme.split("/pause:0").skip(1);
        let other = names.filter(|rest| !format!("0{rest}").starts_with(env!("PAUSE_VERSION")));
        assert_eq!(other.count(), 0);
    }
}
