//! A copy of the project in another folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{HOST, dist, platform, root};
use crate::{Folder, run};

/// A copy with the git history and without anything that was built. It is removed when it
/// goes out of scope.
pub struct Checkout {
    folder: Folder,
    path: PathBuf,
}

impl Checkout {
    /// Makes a copy in a folder called `name`.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self::within(Folder::new("checkout"), name)
    }

    /// Makes a copy below a folder that exists.
    #[track_caller]
    pub fn within(folder: Folder, name: &str) -> Self {
        let path = folder.join(name);
        fs::create_dir(&path).expect("a folder");
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
        Self { folder, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the copy.
    pub fn parent(&self) -> &Path {
        &self.folder
    }

    /// A command that will run in the copy.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.path)
            .env_remove("CARGO_TARGET_DIR");
        // The tools have the same source in every copy, so they are not built again.
        let tools = root()
            .join("target")
            .join(platform(&HOST).target)
            .join("debug");
        if tools.join("pause-tools").exists() && tools.join("pause-sign").exists() {
            command.env("PAUSE_TOOLS", tools);
        }
        command
    }
}

/// The scripts and pause for this machine in a folder that every user can read. The project
/// itself may be in a folder that other users cannot enter.
#[track_caller]
pub fn scripts_for_all() -> Folder {
    let folder = Folder::for_all("scripts");
    run("cp", &["-r", text(&root().join("scripts")), text(&folder)]);
    run("cp", &[text(&dist(&HOST)), text(&folder.join("pause"))]);
    run("chmod", &["-R", "a+rX", text(&folder)]);
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Makes a cargo folder with the downloads of the user and the given `config.toml`.
#[track_caller]
pub fn cargo_folder(folder: &Path, config: &str) {
    let own = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let own =
        own.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cargo"));
    symlink(own.join("registry"), folder.join("registry")).expect("a link");
    fs::write(folder.join("config.toml"), config).expect("a file");
}
