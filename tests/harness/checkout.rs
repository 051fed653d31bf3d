//! Copies of the project in other folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{HOST, dist, root};
use crate::{Folder, run, text};

/// Copies the files of the project to a folder, without anything that was built and without those named `but`.
fn copy_project(to: &Path, but: &str) {
    fs::create_dir(to).expect("a folder");
    let built = ["dist", "target", "mutants.out", "mutants.out.old", but];
    let files = fs::read_dir(root()).expect("the project").flatten().map(|entry| entry.path());
    let files = files.filter(|file| !built.iter().any(|name| file.ends_with(name)));
    let copied = Command::new("cp").arg("-r").args(files).arg(to).status();
    assert!(copied.expect("cp").success());
}

/// A shell command that makes a commit of all files, without the user's settings of git, which may demand a signature.
pub const COMMIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null; git init --quiet && git add --all &&
    git -c user.name=t -c user.email=t@t.example commit --quiet --allow-empty -m t";

/// A copy with the git history. It is removed when it goes out of scope.
pub struct Checkout {
    folder: Folder,
    path: PathBuf,
}

impl Checkout {
    /// Makes a copy in a folder called `name`.
    pub fn new(name: &str) -> Self {
        let folder = Folder::new("checkout");
        let path = folder.join(name);
        copy_project(&path, "none");
        Self { folder, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the copy.
    pub fn parent(&self) -> &Path {
        &self.folder
    }

    /// Runs a shell command in the copy, which must succeed.
    pub fn run(&self, line: &str) -> String {
        let output = self.command(&["sh", "-ec", line]).output().expect("sh");
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().into()
    }

    /// A command that will run in the copy.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.path);
        command
    }
}

/// The scripts, their tool and pause for this machine in a folder that every user can read. The project itself may be
/// in a folder that other users cannot enter.
pub fn scripts_for_all() -> Folder {
    let folder = Folder::for_all("scripts");
    run("cp", &["-r", text(&root().join("scripts")), text(&folder)]);
    run("cp", &[text(&dist(&HOST)), text(&folder.join("pause"))]);
    let tool = std::env::var("PAUSE_XTASK").expect("scripts/test sets PAUSE_XTASK");
    run("cp", &[&tool, text(&folder.join("xtask"))]);
    run("chmod", &["-R", "a+rX", text(&folder)]);
    folder
}

/// Makes a cargo folder with the downloads of the user and the given `config.toml`.
pub fn cargo_folder(folder: &Path, config: &str) {
    symlink(home_of("CARGO_HOME", ".cargo").join("registry"), folder.join("registry")).expect("a link");
    fs::write(folder.join("config.toml"), config).expect("a file");
}

/// The folder of rustup or of cargo, by its variable or else by its name in the home folder.
pub fn home_of(variable: &str, name: &str) -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").expect("HOME")).join(name);
    std::env::var_os(variable).map_or_else(home, PathBuf::from)
}
