//! The project in another folder, for what has to be the same anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::root;

/// A copy of the project with its history, but with nothing that was built;
/// removed at the end.
pub struct Clone(PathBuf);

impl Clone {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        let built = ["dist", "target", "mutants.out", "mutants.out.old"];
        let files = fs::read_dir(root())
            .expect("the project")
            .map(|entry| entry.expect("a file").path());
        let copied = Command::new("cp")
            .arg("-r")
            .args(files.filter(|file| !built.iter().any(|name| file.ends_with(name))))
            .arg(&path)
            .status();
        assert!(copied.expect("cp").success());
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A command, about to be run in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.0)
            .env_remove("CARGO_TARGET_DIR");
        command
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
