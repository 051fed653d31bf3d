//! README quotes files of the project word for word, and has recipes that a test can read.

use std::fs;

use harness::programs::{dist, root};
use harness::{page, readme, sha256};

/// What `scripts/e2e --page` writes.
const RESULTS: &str = "tests/e2e/README.md";

limited! {
    /// `scripts/e2e switch` carries them out: note, pull, edit, check, restart, verify, roll back.
    fn its_recipes_have_seven_steps() {
        for runtime in ["containerd 2.x", "containerd 1.x", "CRI-O"] {
            let steps = readme::recipe(runtime);
            assert!(steps.len() == 7 && steps.iter().all(|step| !step.is_empty()), "{runtime}: {steps:?}");
        }
    }

    /// The contract in `src/main.rs`.
    fn it_has_the_contract() {
        let readme = readme::text();
        let source = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
        let rows = source.lines().filter_map(|line| line.strip_prefix("//! |"));
        let table: String = rows.map(|row| format!("|{row}\n")).collect();
        assert!(table.lines().count() > 12 && readme.contains(&table), "README has not:\n{table}");
    }

    /// An image name with another version would not be found.
    fn its_image_has_this_version() {
        let readme = readme::text();
        let names = readme.split("/pause:0").skip(1);
        let other = names.filter(|rest| !format!("0{rest}").starts_with(env!("PAUSE_VERSION")));
        assert_eq!(other.count(), 0);
    }

    /// The results of what `scripts/e2e` runs by default are those of this very program, and the
    /// first table of README has the memory that they show.
    #[ignore = "needs scripts/test"]
    fn the_results_are_of_this_program() {
        let script = fs::read_to_string(root().join("scripts/e2e")).expect("scripts/e2e");
        let parts = script.lines().find_map(|line| line.strip_prefix("default=(")?.strip_suffix(')'));
        let sum = &sha256(&dist("amd64"));
        for name in parts.expect("the default parts").split(' ') {
            let part = page::part(RESULTS, &format!("results of {name}"));
            assert!(part.contains(sum) && part.contains(" passed, 0 failed, "), "scripts/e2e --page {name} writes it");
        }
        let hundred = page::part(RESULTS, "results of hundred");
        let row = hundred.lines().find_map(|line| line.strip_prefix("| charged to their control groups, kB | "));
        let kb: Vec<f64> = row.expect("its row").split(" | ").map_while(|cell| cell.parse().ok()).collect();
        let cells = format!("| {:.0} kB | {:.0} kB |", kb[0] / 100.0, kb[1] / 100.0);
        assert!(readme::text().contains(&cells), "the first table of README has not: {cells}");
    }
}
