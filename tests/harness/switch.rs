//! The files of tests/switch: configuration files as nodes have them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::programs::root;

/// The files of a node, each below its path, and what `pause-switch to` makes of them: a diff, or how it ends. "no line
/// break" says that the file before has none at its end.
pub struct Case {
    pub name: String,
    pub files: BTreeMap<String, String>,
    pub expected: String,
}

/// All of them, by name.
pub fn cases() -> Vec<Case> {
    let case = |path: PathBuf| {
        let name = path.file_stem().expect("a name").display().to_string();
        let (mut files, mut current) = (BTreeMap::<String, String>::new(), String::new());
        for line in fs::read_to_string(&path).expect("a case").split_inclusive('\n') {
            match line.strip_prefix("-- ").and_then(|line| line.strip_suffix(" --\n")) {
                Some("no line break") => drop(files.get_mut(&current).expect("a file").pop()),
                Some(path) => {
                    current = path.into();
                    files.insert(current.clone(), String::new());
                }
                None => *files.get_mut(&current).expect("a file") += line,
            }
        }
        let expected = files.remove("expect").expect("what is expected");
        Case { name, files, expected }
    };
    let entries = fs::read_dir(root().join("tests/switch")).expect("cases").flatten();
    let mut cases: Vec<_> = entries.map(|entry| case(entry.path())).collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}
