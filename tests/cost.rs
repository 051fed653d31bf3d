//! The cost of pause, compared in the same run with a program that does nothing. `scripts/bench` measures times, and
//! `scripts/e2e hundred` what is charged to control groups.

use std::path::Path;

use harness::launch::Launch;
use harness::measure::{self, Memory};
use harness::programs::{host, program};
use harness::{Folder, copy_program};

/// Measures a program under a fixed path, so that its stack has the same content and begins at the same place within a
/// page.
fn memory(program: &Path) -> Memory {
    let folder = Folder::new("cost");
    let path = folder.join("program");
    copy_program(program, &path);
    measure::memory(Launch::new(&path))
}

/// Resident pages, page tables and faults.
pub fn takes_no_more_memory_than_doing_nothing() {
    let ours = memory(&host());
    let floor = memory(&program("noop"));
    eprintln!("pause {ours:?}\nno-op {floor:?}");
    assert_eq!(ours, floor);
    assert_eq!(ours.faults, 1);
}
