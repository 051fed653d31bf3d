//! What `cargo test` runs in the root folder: pause prints its version, and exits on SIGTERM. The tests of the contract
//! are the workspace in `tests/`; `scripts/test` runs all of them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const PAUSE: &str = env!("CARGO_BIN_EXE_pause");

#[test]
fn prints_its_version_and_exits_on_sigterm() {
    let version = Command::new(PAUSE).arg("-v").output().expect("pause");
    assert_eq!(version.stdout, concat!("pause ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());

    let mut running = Command::new(PAUSE).stderr(Stdio::piped()).spawn().expect("pause");
    // The warning comes after the handlers are set.
    let mut lines = BufReader::new(running.stderr.take().expect("a pipe")).lines();
    lines.next().expect("the warning").expect("a line");
    let kill = Command::new("kill").arg(running.id().to_string()).status();
    assert!(kill.expect("kill").success());
    assert!(running.wait().expect("its status").success());
    let last = lines.next().expect("a line").expect("a line");
    assert_eq!(last, "Shutting down, got signal: Terminated");
}
