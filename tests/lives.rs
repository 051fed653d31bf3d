//! Every instruction of the files in `dist/`, run in a CPU emulator that answers their system calls, and compared with
//! a model of the contract. tests/lives/lives.py does it.

use std::path::Path;
use std::process::{Command, Output};

use harness::programs::{HOST, Platform, dist, root};
use harness::{Folder, VERSION};

/// Runs a file through its lives. Debian's own Python has the emulator.
fn lives(architecture: &str, file: &Path) -> Output {
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-B").arg(root().join("tests/lives/lives.py"));
    let output = python.args([VERSION, architecture]).arg(file).output();
    output.unwrap_or_else(|error| panic!("python3: {error}: run scripts/test"))
}

pub fn no_life_departs_and_every_instruction_is_run(platform: &'static Platform) {
    let output = lives(platform.architecture, &dist(platform.architecture));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The control: the line that SIGTERM makes has another letter, and nothing else differs.
pub fn a_changed_letter_is_a_departure() {
    let mut code = std::fs::read(dist(&HOST)).expect("pause");
    let at = code.windows(10).position(|bytes| bytes == b"Terminated").expect("the line");
    code[at] = b'D';
    let folder = Folder::new("lives");
    let file = folder.join("pause");
    std::fs::write(&file, code).expect("a copy");
    let output = lives(&HOST, &file);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("Derminated"), "{stderr}");
}
