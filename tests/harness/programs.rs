//! The programs under test: pause in each form that can run here, and the programs that it is compared with.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

pub use xtask::platforms::{Kernel, Platform, host as host_platform, platforms};
pub use xtask::project::root;

use crate::launch::Launch;

/// The architecture of this machine.
pub static HOST: LazyLock<&str> = LazyLock::new(|| host_platform().architecture);

/// pause in one of the forms in which it runs here.
#[derive(Clone, Copy)]
pub enum Pause {
    /// That of this machine.
    Host,
    /// The same, where a seccomp filter refuses `rt_sigtimedwait` (row 11).
    WithoutRtSigtimedwait,
    /// That of another platform, under qemu-user.
    Emulated(&'static Platform),
}

impl Pause {
    pub fn launch(self) -> Launch {
        match self {
            Self::Host => pause(),
            Self::WithoutRtSigtimedwait => pause().without(libc::SYS_rt_sigtimedwait),
            Self::Emulated(platform) => emulated(platform, &dist(platform.architecture)),
        }
    }
}

/// The platform of an architecture.
pub fn platform(architecture: &str) -> &'static Platform {
    xtask::platforms::find(architecture).expect("an architecture of pause")
}

/// The platforms whose programs run here under qemu-user: all but that of this machine.
pub fn emulated_platforms() -> Vec<&'static Platform> {
    platforms().into_iter().filter(|platform| !platform.is_host()).collect()
}

/// The file that `scripts/build` makes for `architecture`.
pub fn dist(architecture: &str) -> PathBuf {
    let path = root().join("dist").join(platform(architecture).file());
    assert!(path.exists(), "{} is missing: run scripts/build", path.display());
    path
}

/// The size of that file, in bytes.
pub fn size(architecture: &str) -> u64 {
    fs::metadata(dist(architecture)).expect("the file").len()
}

/// The path of pause for this machine: in `dist/` if PAUSE_XTASK is set, as `scripts/test` does, else the program that
/// cargo builds in the release profile.
pub fn host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if std::env::var_os("PAUSE_XTASK").is_some() {
        return dist(&HOST);
    }
    let build = || build(host_platform(), "pause").join("pause");
    BUILT.get_or_init(build).clone()
}

/// A launch of pause for this machine.
pub fn pause() -> Launch {
    Launch::new(&host())
}

/// A launch of any program for another platform under qemu-user.
pub fn emulated(platform: &Platform, program: &Path) -> Launch {
    Launch::new(program).under(&[&qemu_user(platform)])
}

/// The path of qemu-user for a platform. Debian releases after 12 dropped the suffix `-static`, as their qemu-user is
/// static.
pub fn qemu_user(platform: &Platform) -> String {
    let paths = ["-static", ""].map(|end| format!("/usr/bin/qemu-{}{end}", platform.qemu.user));
    let found = paths.iter().find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{} is missing: run scripts/test", paths[0])).clone()
}

/// What `-cpu` of an emulator expects for a processor of a platform. With `neon=off` QEMU demands `vfp-d32=off` too
/// since 8.1, and before it does not know that.
pub fn processor(emulator: &str, processor: &str) -> String {
    let version = crate::run(emulator, &["--version"]);
    let version = version.split("version ").nth(1).expect("QEMU says its version");
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
        .or_insert_with(|| build(platform(architecture), "pause-programs"));
    folder.join(name)
}

/// Builds a package of pause's workspace, and returns the folder with its programs.
fn build(platform: &Platform, package: &str) -> PathBuf {
    let target = root().join("target");
    let folder = target.join(platform.target).join("release");
    // A machine of scripts/e2e has the programs, and no cargo.
    if std::env::var_os("PAUSE_ON_MACHINE").is_some() {
        return folder;
    }
    fs::create_dir_all(&target).expect("a folder");
    // The benchmark may run at the same time. cargo takes a lock, and replaces a file only when it has changed.
    let lock = File::create(target.join("programs.lock")).expect("a file to lock");
    lock.lock().expect("a lock");
    let mut cargo = xtask::cargo::cargo(platform, "build").expect("cargo");
    let built = cargo.args(["--release", "--package", package]).status();
    assert!(built.expect("cargo").success(), "cargo build of {package} for {platform}");
    folder
}
