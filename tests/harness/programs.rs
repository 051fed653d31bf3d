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
    let qemu = Path::new("/usr/bin/qemu-aarch64-static");
    assert!(
        qemu.exists(),
        "{} is missing: apt-get install qemu-user-static",
        qemu.display()
    );
    let page = page.to_string();
    Launch::new(&dist("arm64")).under(&[qemu.to_str().expect("ASCII"), "-p", &page])
}

/// One of the programs in `tests/programs`, built and linked as pause is.
pub fn program(name: &str) -> PathBuf {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            // Cargo replaces what is there, and the benchmark may run meanwhile.
            .join(concat!("programs-", env!("CARGO_CRATE_NAME")));
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--bins", "--locked", "--quiet"])
            .args(["--features", "test-programs", "--target-dir"])
            .arg(&target)
            .current_dir(root())
            .status();
        assert!(
            built.expect("cargo").success(),
            "cargo build of tests/programs"
        );
        target
    });
    target.join("release").join(name)
}
