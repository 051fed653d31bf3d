//! The programs under test: pause in every form that can be run here, and the
//! ones it is measured beside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::launch::Launch;

/// The system call in which pause sleeps.
#[cfg(target_arch = "x86_64")]
pub const SYS_SLEEP: i64 = libc::SYS_pause;
#[cfg(target_arch = "aarch64")]
pub const SYS_SLEEP: i64 = libc::SYS_ppoll;

/// The name that OCI has for the architecture of this machine.
#[cfg(target_arch = "x86_64")]
pub const HOST: &str = "amd64";
#[cfg(target_arch = "aarch64")]
pub const HOST: &str = "arm64";

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file that `scripts/build` leaves for `architecture`.
#[track_caller]
pub fn dist(architecture: &str) -> PathBuf {
    let path = root().join(format!("dist/pause-linux-{architecture}"));
    assert!(
        path.exists(),
        "{} is missing: run scripts/build",
        path.display()
    );
    path
}

/// pause for this machine: the very file in `dist/` if `scripts/test` says so in
/// PAUSE_DIST, else cargo's.
pub fn host() -> PathBuf {
    match std::env::var_os("PAUSE_DIST") {
        Some(_) => dist(HOST),
        None => env!("CARGO_BIN_EXE_pause").into(),
    }
}

/// pause, about to be started on this machine.
pub fn pause() -> Launch {
    Launch::new(&host())
}

/// pause for arm64 under qemu-user, on a kernel with pages of `page` bytes.
pub fn arm64(page: u32) -> Launch {
    emulated(&dist("arm64"), page)
}

/// Any program for arm64, in the same way.
pub fn emulated(program: &Path, page: u32) -> Launch {
    let qemu = Path::new("/usr/bin/qemu-aarch64-static");
    assert!(
        qemu.exists(),
        "{} is missing: apt-get install qemu-user-static",
        qemu.display()
    );
    let page = page.to_string();
    Launch::new(program).under(&[qemu.to_str().expect("ASCII"), "-p", &page])
}

/// One of the programs in `tests/programs` for this machine, built and linked as pause is.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| build_programs(HOST, &host()))
        .join(name)
}

/// The same for any architecture.
pub fn program_for(architecture: &str, name: &str) -> PathBuf {
    static ARM64: OnceLock<PathBuf> = OnceLock::new();
    match architecture {
        HOST => program(name),
        _ => ARM64
            .get_or_init(|| build_programs(architecture, &dist(architecture)))
            .join(name),
    }
}

/// Builds them with this pause in those that contain one, and returns their folder.
fn build_programs(architecture: &str, pause: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        // Cargo replaces what is there, and the benchmark may run meanwhile.
        .join(concat!("programs-", env!("CARGO_CRATE_NAME")));
    let built = Command::new(root().join("scripts/cargo"))
        .args([architecture, "build", "--release", "--bins", "--locked"])
        .args(["--quiet", "--features", "test-programs", "--target-dir"])
        .arg(&target)
        .env("PAUSE_FILE", pause)
        .status();
    assert!(
        built.expect("scripts/cargo").success(),
        "cargo build of tests/programs for {architecture}"
    );
    let machine = match architecture {
        "amd64" => "x86_64",
        _ => "aarch64",
    };
    target.join(format!("{machine}-unknown-linux-gnu/release"))
}
