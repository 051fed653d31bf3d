//! What the tests have in common: pause started under hostile conditions, looked
//! at from outside, and always with a limit.

pub mod cell;
pub mod cgroup;
pub mod clone;
pub mod launch;
pub mod measure;
pub mod programs;
pub mod running;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The limit for a state that takes milliseconds to come.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Polls `look` until it returns something, and panics with `what` at [`LIMIT`].
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_at_most(LIMIT, what, look)
}

/// The same, with another limit.
#[track_caller]
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

/// Asserts that a script ended with one line on standard error that has `text`, and
/// with 1.
#[track_caller]
pub fn refused(output: &Output, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.lines().count() == 1 && stderr.contains(text),
        "not one line with '{text}': {stderr}"
    );
}

/// Runs a program that has to succeed, and returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: run scripts/setup"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}
