//! What the tests share: programs that start in unusual conditions, are observed from outside, and are waited for with
//! a time limit.

pub mod cell;
pub mod cgroup;
pub mod checkout;
pub mod fork;
pub mod launch;
pub mod machine;
pub mod measure;
pub mod programs;
pub mod running;
pub mod sweep;
pub mod switch;
#[cfg(target_env = "gnu")] // the crate libc has what it calls for no other C library
pub mod trace;

use std::any::Any;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{fs, io};

/// The version of pause.
pub const VERSION: &str = env!("PAUSE_VERSION");

/// What pause writes (docs/contract.md). `tests/proof/contract.py` has the same lines.
pub const WARNING: &str = "Warning: pause should be the first process";
pub const ERROR: &str = "Error: infinite loop terminated";
pub const INTERRUPT: &str = "Shutting down, got signal: Interrupt";
pub const TERMINATED: &str = "Shutting down, got signal: Terminated";

/// The time limit for a state that normally comes within milliseconds: a minute, as machines may be busy, or
/// PAUSE_LIMIT in seconds. `scripts/mutants` sets it, as mutants run into it.
pub static LIMIT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("PAUSE_LIMIT").ok();
    let seconds = seconds.map(|text| text.parse().expect("PAUSE_LIMIT is a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(60))
});

/// Polls `look` until it returns a value. Panics with `what` after [`LIMIT`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_at_most(*LIMIT, what, look)
}

/// The same with another time limit.
pub fn until_at_most<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A unique name for something that all processes of the machine share. It has the PID of this program, by which
/// [`sweep`] finds what a program that was killed has left.
pub fn unique(name: &str) -> String {
    let random = RandomState::new().hash_one(name) >> 16;
    format!("pause-{}-{name}-{random:012x}", std::process::id())
}

/// A folder of one test, removed when it goes out of scope.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a folder below `target`.
    pub fn new(name: &str) -> Self {
        Self::within(&xtask::project::root().join("target/tests"), name)
    }

    /// Makes a folder that every user can read. Others may not be able to enter the project's.
    pub fn for_all(name: &str) -> Self {
        Self::within(&std::env::temp_dir(), name)
    }

    fn within(parent: &Path, name: &str) -> Self {
        let path = parent.join(unique(name));
        let made = fs::create_dir_all(&path);
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let removed = fs::remove_dir_all(&self.0);
        if let Some(error) = removed.err().filter(|error| !gone(error)) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// Asserts that a script exited with 1 and printed one line on standard error with `text`.
pub fn refused(output: &Output, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(text), "not one line with '{text}': {stderr}");
}

/// The message of a panic.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").into()
}

/// Runs a program that must succeed, and returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: run scripts/test"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Copies a program that is to be started. Another process writes the copy: if this one did, the child that another
/// test forks meanwhile would have it open until its own execve, and the copy could not be started (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|path| path.to_str().expect("UTF-8"));
    run("cp", &[from, to]);
}

/// Writes a file, and makes the folders that it is in.
pub fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, content).expect("a file");
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(file: &Path) -> String {
    run("sha256sum", &[file.to_str().expect("UTF-8")])[..64].into()
}

/// A path as text, for the arguments of programs.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// 20000 as 20,000.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
