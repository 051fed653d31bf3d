//! The programs under test: pause in each form that can run here, and the programs that it is
//! compared with.

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock};

pub use platforms::{Platform, platform, platforms};

use crate::launch::Launch;

/// The system call in which pause sleeps where rt_sigtimedwait is refused. Newer architectures
/// have no pause(2), so rustix calls ppoll there.
#[cfg(target_arch = "x86_64")]
pub const SYS_PAUSE: i64 = libc::SYS_pause;
#[cfg(not(target_arch = "x86_64"))]
pub const SYS_PAUSE: i64 = libc::SYS_ppoll;

/// The architecture of this machine.
pub static HOST: LazyLock<&str> = LazyLock::new(|| platforms::host().architecture);

/// The root of the project.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests is a folder of it")
}

/// The platforms whose programs run here under qemu-user: all but that of this machine.
pub fn emulated_platforms() -> Vec<Platform> {
    let mut all = platforms();
    all.retain(|platform| platform.architecture != *HOST);
    all
}

/// The platforms that the CPU emulator of tests/lives knows. Unicorn has no little-endian ppc64.
pub fn lived_platforms() -> Vec<Platform> {
    let mut all = platforms();
    all.retain(|platform| platform.architecture != "ppc64le");
    all
}

/// The platforms for which Debian's compiler is installed: this machine's, and at least one more.
#[track_caller]
pub fn debian_platforms() -> Vec<Platform> {
    let library = |target: &str| Path::new("/usr/lib/rustlib").join(target).join("lib");
    let mut all = platforms();
    all.retain(|platform| library(platform.target).exists());
    let limited = std::env::var_os("PAUSE_ONLY").is_some();
    assert!(
        all.len() > 1 || limited,
        "Debian's compiler is missing: run scripts/setup"
    );
    all
}

/// Runs a test for each of some platforms. If it panics, the message names the platform.
#[track_caller]
pub fn for_each(platforms: &[Platform], test: impl Fn(&Platform)) {
    for platform in platforms {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(platform)));
        if let Err(panic) = outcome {
            eprintln!("the platform is {platform}");
            resume_unwind(panic);
        }
    }
}

/// The file that `scripts/build` makes for `architecture`.
#[track_caller]
pub fn dist(architecture: &str) -> PathBuf {
    let path = root().join("dist").join(platform(architecture).file());
    assert!(
        path.exists(),
        "{} is missing: run scripts/build",
        path.display()
    );
    path
}

/// The size of that file, in bytes.
#[track_caller]
pub fn size(architecture: &str) -> u64 {
    fs::metadata(dist(architecture)).expect("the file").len()
}

/// The path of pause for this machine: in `dist/` if PAUSE_DIST is set, as `scripts/test` does,
/// else the binary that cargo builds in the release profile.
pub fn host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if std::env::var_os("PAUSE_DIST").is_some() {
        return dist(&HOST);
    }
    let build = || {
        let target = root().join("target");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet"])
            .args(["--package", "pause", "--target-dir"])
            .arg(&target)
            .current_dir(root())
            .env_remove("RUSTFLAGS") // or pause's own would have no effect
            .status();
        assert!(built.expect("cargo").success(), "cargo build --release");
        target.join("release/pause")
    };
    BUILT.get_or_init(build).clone()
}

/// A launch of pause for this machine.
pub fn pause() -> Launch {
    Launch::new(&host())
}

/// A launch of pause for another platform under qemu-user.
pub fn emulated_pause(platform: &Platform) -> Launch {
    emulated(platform, &dist(platform.architecture))
}

/// A launch of any program for another platform under qemu-user.
pub fn emulated(platform: &Platform, program: &Path) -> Launch {
    let qemu = qemu_user(platform);
    Launch::new(program).under(&[qemu.to_str().expect("UTF-8")])
}

/// The path of qemu-user for a platform. Debian releases after 12 dropped the suffix
/// `-static`, as their qemu-user is static.
#[track_caller]
pub fn qemu_user(platform: &Platform) -> PathBuf {
    let machine = platform.user;
    let names = [format!("qemu-{machine}-static"), format!("qemu-{machine}")];
    let paths = names.map(|name| Path::new("/usr/bin").join(name));
    let found = paths.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("qemu-{machine}-static is missing: run scripts/setup"))
}

/// What `-cpu` of an emulator wants for a processor of `scripts/platforms`. With `neon=off` QEMU
/// demands `vfp-d32=off` too since 8.1, and before it does not know that.
pub fn processor(emulator: &str, processor: &str) -> String {
    let said = crate::run(emulator, &["--version"]);
    let version = said
        .split("version ")
        .nth(1)
        .expect("QEMU says its version");
    let numbers = version.split('.').take(2).map(|number| number.parse());
    let version: Vec<u32> = numbers.collect::<Result<_, _>>().expect("two numbers");
    match version >= vec![8, 1] {
        true => processor.replace("neon=off", "neon=off,vfp-d32=off"),
        false => processor.into(),
    }
}

/// The path of one of `tests/programs` for this machine, built and linked as pause is.
pub fn program(name: &str) -> PathBuf {
    program_for(&HOST, name)
}

/// The same for any architecture.
pub fn program_for(architecture: &str, name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().expect("no build failed");
    let folder = built
        .get_or_insert_default()
        .entry(architecture.to_string())
        .or_insert_with(|| build_programs(architecture));
    folder.join(name)
}

/// Builds these programs, and returns the folder with them. In a machine of scripts/e2e they are
/// there already.
fn build_programs(architecture: &str) -> PathBuf {
    let target = root().join("target");
    let folder = target.join(platform(architecture).target).join("release");
    if std::env::var_os("PAUSE_MACHINE").is_some() {
        return folder;
    }
    fs::create_dir_all(&target).expect("a folder");
    // The benchmark may run at the same time. cargo takes a lock, and replaces a file only when
    // it has changed.
    let lock = File::create(target.join("programs.lock")).expect("a file to lock");
    lock.lock().expect("a lock");
    let built = Command::new(root().join("scripts/cargo"))
        .args([architecture, "build", "--release", "--locked", "--quiet"])
        .args(["--package", "pause-programs", "--target-dir"])
        .arg(&target)
        .status();
    assert!(
        built.expect("scripts/cargo").success(),
        "cargo build of tests/programs for {architecture}"
    );
    folder
}
