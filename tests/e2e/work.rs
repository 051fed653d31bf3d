//! What all suites share: where things are, and the names of the pause images.

use std::path::PathBuf;
use std::sync::Mutex;

use xtask::options::Soak;

use crate::kernels::Booted;
use harness::Folder;
use harness::programs::root;

/// What all suites share: a folder, which is removed at the end, the folder for logs, what a soak was asked for, and the
/// machines that are booted meanwhile.
pub struct Work {
    pub folder: Folder,
    pub logs: PathBuf,
    pub soak: Soak,
    pub kernels: Mutex<Option<Booted>>,
}

/// Our image, under the name that docs/switch.md gives it.
pub const PAUSE: &str = concat!("localhost/pause:", env!("PAUSE_VERSION"));
/// The image of `tests/bench/pause.c`, which handles SIGCHLD as upstream's pause does.
pub const C_PAUSE: &str = "localhost/e2e:pause-c";
/// The image that a node uses before it is switched: the same C pause under another name.
pub const PREVIOUS: &str = "registry.example/old/pause:3.10";

/// Whether nodes are on the machine in which this program runs.
pub fn on_machine() -> bool {
    std::env::var_os("PAUSE_ON_MACHINE").is_some()
}

/// The folder with the programs that were built for a node. On a machine this program is in it.
pub fn bin() -> PathBuf {
    match on_machine() {
        true => std::env::current_exe().expect("this program").with_file_name(""),
        false => root().join("target/e2e/bin"),
    }
}
