//! `scripts/build` makes the same bytes, whatever the user and the folder are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::checkout::{Checkout, cargo_folder};
use harness::programs::{dist, platform, platforms, root};
use harness::{Folder, text};

/// Asserts that a command makes files of `dist/` in a copy of the project, with another umask and time zone.
fn makes_the_same(checkout: &Checkout, command: &[&str], architectures: &[&str], variables: &str) {
    let mut sh = checkout.command(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]);
    sh.args(command).env("TZ", "Pacific/Chatham").envs(variables.split(' ').filter_map(|one| one.split_once('=')));
    let output = sh.output().expect("sh");
    assert!(output.status.success(), "{variables}: {}", String::from_utf8_lossy(&output.stderr));
    for architecture in architectures {
        let new = checkout.path().join("dist").join(platform(architecture).file());
        let [files, ours] = [&new, &dist(architecture)].map(fs::read);
        assert_eq!(files.expect("new"), ours.expect("old"), "{architecture}: {variables}");
        assert_eq!(new.metadata().expect("new").permissions().mode() & 0o777, 0o755);
    }
}

/// Variables of cargo and rustc. Each of them would stop the build or change the files, if it reached cargo.
const VARIABLES: &str = "RUSTFLAGS=-Copt-level=0 CARGO_ENCODED_RUSTFLAGS=-Copt-level=0 RUSTC=/bin/false RUSTC_WRAPPER=/bin/false \
    RUSTC_BOOTSTRAP=1 RUSTUP_TOOLCHAIN=none CARGO_PROFILE_RELEASE_OPT_LEVEL=3 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_BUILD_RUSTFLAGS=-Copt-level=0 \
    CARGO_BUILD_TARGET=wasm32-unknown-unknown CARGO_BUILD_TARGET_DIR=/proc/none CARGO_TARGET_DIR=/proc/none \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Copt-level=0 \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Copt-level=0 \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=/bin/false";

/// The same settings as a config.toml of cargo.
const CONFIG: &str = r#"
[build]
rustflags = ["-Copt-level=0"]
rustc-wrapper = "/bin/false"
[target.x86_64-unknown-linux-gnu]
rustflags = ["-Cno-redzone=n"]
linker = "/bin/false"
[target.aarch64-unknown-linux-gnu]
rustflags = ["-Ccode-model=large"]
[profile.release]
opt-level = 3
lto = "off"
[profile.release.package."*"]
opt-level = 0
[env]
RUSTC_BOOTSTRAP = "1"
CARGO_ENCODED_RUSTFLAGS = { value = "-Copt-level=0", force = true }
"#;

/// All variables are set at once. Each that reached cargo would show, whatever the others do.
pub fn makes_the_same_programs_and_image_elsewhere_as_another_user() {
    let checkout = Checkout::new("another place");
    let user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "scripts/image"];
    let all: Vec<_> = platforms().iter().map(|one| one.architecture).collect();
    makes_the_same(&checkout, &user, &all, VARIABLES);
    let image = "dist/pause.oci.tar";
    let [new, ours] = [checkout.path(), root()].map(|project| fs::read(project.join(image)));
    assert!(new.expect("new") == ours.expect("old"), "the image differs");
}

/// Once in the cargo folder of the user, and once in a folder above the project.
pub fn builds_the_same_whatever_a_config_file_says() {
    let home = Folder::new("home");
    cargo_folder(&home, CONFIG);
    let checkout = Checkout::new("project");
    fs::create_dir(checkout.parent().join(".cargo")).expect("a folder");
    fs::write(checkout.parent().join(".cargo/config.toml"), CONFIG).expect("a file");
    let command = ["scripts/build", "--only", "amd64,arm64"]; // which it names
    makes_the_same(&checkout, &command, &["amd64", "arm64"], &format!("CARGO_HOME={}", text(&home)));
}
