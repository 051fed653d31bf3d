//! `scripts/build`, and both compilers (rustup's and Debian's).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::checkout::{Checkout, cargo_folder};
use harness::programs::{HOST, Platform, debian_platforms, dist, platform, platforms, root};
use harness::suite::Suite;
use harness::{Folder, tests, text};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        makes_the_same_programs_and_image_elsewhere_as_another_user,
        builds_the_same_whatever_a_config_file_says,
        asks_the_proxy_of_the_user,
        builds_the_same_with_debians_compiler,
    ]);
}

/// Asserts that a command makes the files of `dist/` in a copy of the project, with another umask and
/// time zone.
#[track_caller]
fn makes_the_same(
    checkout: &Checkout,
    command: &[&str],
    platforms: &[&Platform],
    variables: &[(&str, &str)],
) {
    let mut sh = checkout.command(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]);
    sh.args(command).env("TZ", "Pacific/Chatham").envs(variables.iter().copied());
    let output = sh.output().expect("sh");
    assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
    for platform in platforms {
        let new = checkout.path().join("dist").join(platform.file());
        let [files, ours] = [&new, &dist(&platform.architecture)].map(fs::read);
        assert_eq!(files.expect("new"), ours.expect("old"), "{platform}: {variables:?}");
        assert_eq!(new.metadata().expect("new").permissions().mode() & 0o777, 0o755);
    }
}

/// Variables of cargo and rustc. Each of them would stop the build or change the files, if it
/// reached cargo.
const VARIABLES: [(&str, &str); 16] = [
    ("RUSTFLAGS", "-Copt-level=0"),
    ("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=0"),
    ("RUSTC", "/bin/false"),
    ("RUSTC_WRAPPER", "/bin/false"),
    ("RUSTC_BOOTSTRAP", "1"),
    ("RUSTUP_TOOLCHAIN", "none"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_BUILD_RUSTFLAGS", "-Copt-level=0"),
    ("CARGO_BUILD_TARGET", "wasm32-unknown-unknown"),
    ("CARGO_BUILD_TARGET_DIR", "/proc/none"),
    ("CARGO_TARGET_DIR", "/proc/none"),
    ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Copt-level=0"),
    ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Copt-level=0"),
    ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "/bin/false"),
];

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
fn makes_the_same_programs_and_image_elsewhere_as_another_user() {
    let checkout = Checkout::new("another place");
    let user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "scripts/image"];
    makes_the_same(&checkout, &user, &platforms(), &VARIABLES);
    let image = "dist/pause.oci.tar";
    let [new, ours] = [checkout.path(), root()].map(|project| fs::read(project.join(image)));
    assert!(new.expect("new") == ours.expect("old"), "the image differs");
}

/// Once in the cargo folder of the user, and once in a folder above the project.
fn builds_the_same_whatever_a_config_file_says() {
    let home = Folder::new("home");
    cargo_folder(&home, CONFIG);
    let checkout = Checkout::new("project");
    fs::create_dir(checkout.parent().join(".cargo")).expect("a folder");
    fs::write(checkout.parent().join(".cargo/config.toml"), CONFIG).expect("a file");
    let two = ["amd64", "arm64"]; // which it names
    let command = ["scripts/build", two[0], two[1]];
    makes_the_same(&checkout, &command, &two.map(platform), &[("CARGO_HOME", text(&home))]);
}

/// A proxy without a server, given in each way that cargo supports: the error names it.
fn asks_the_proxy_of_the_user() {
    let proxy = "http://127.0.0.1:9";
    let config = format!("[net]\nretry = 0\n[http]\nproxy = \"{proxy}\"\n");
    for (name, config, variable) in [
        ("a file", config.as_str(), ("NONE", "")),
        ("cargo's variable", "net.retry = 0\n", ("CARGO_HTTP_PROXY", proxy)),
        ("everybody's variable", "net.retry = 0\n", ("https_proxy", proxy)),
    ] {
        let checkout = Checkout::new(&format!("proxy from {name}"));
        let home = Folder::new("home");
        fs::write(home.join("config.toml"), config).expect("a file");
        let output = checkout
            .command(&["scripts/build", *HOST])
            .env("CARGO_HOME", &*home)
            .env(variable.0, variable.1)
            .output()
            .expect("scripts/build");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("127.0.0.1"), "{name}: {text}");
    }
}

/// Debian's compiler, which scripts/build uses where rustup has no target for a platform.
fn builds_the_same_with_debians_compiler() {
    let platforms = debian_platforms();
    let names = platforms.iter().map(|platform| platform.architecture.as_str());
    let command: Vec<_> = ["scripts/build"].into_iter().chain(names).collect();
    makes_the_same(&Checkout::new("debian"), &command, &platforms, &[("PAUSE_RUST", "debian")]);
}
