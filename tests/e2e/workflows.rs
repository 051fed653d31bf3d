//! The workflows in .github, which no machine but that of a host can run: actionlint reads them, and has shellcheck
//! read their scripts.

use std::fs;
use std::process::Command;

use crate::Work;
use crate::images::Images;
use crate::node::bin;
use crate::report::Report;
use harness::programs::root;

/// What actionlint says of some files.
fn lint(files: &[std::path::PathBuf]) -> std::process::Output {
    Command::new(bin().join("actionlint")).args(files).output().expect("actionlint")
}

pub fn check(work: &Work, _: &Images, report: &mut Report) {
    report.check("actionlint and shellcheck accept them", || {
        let entries = fs::read_dir(root().join(".github/workflows")).expect("workflows").flatten();
        let files: Vec<_> = entries.map(|entry| entry.path()).collect();
        let output = lint(&files);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(files.len(), 4);
        // As a control, a name that no job has, and a variable that a shell would split.
        let text = fs::read_to_string(root().join(".github/workflows/release.yml")).expect("it");
        let broken = work.folder.join("broken.yml");
        for (from, to, says) in [
            ("needs: build", "needs: built", "needs job \"built\" which does not exist"),
            ("\"$name\"", "$name", "shellcheck reported issue"),
        ] {
            fs::write(&broken, text.replacen(from, to, 1)).expect("a file");
            let output = lint(std::slice::from_ref(&broken));
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() && stdout.contains(says), "{stdout}");
        }
        format!("{} files; they were linted, and not run", files.len())
    });
}
