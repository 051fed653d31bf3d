//! `scripts/build`, `linker.ld`, and both compilers (rustup's and Debian's).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::Folder;
use harness::checkout::{Checkout, cargo_folder};
use harness::programs::{HOST, Platform, debian_platforms, dist, platforms, root};

/// Asserts that `scripts/build` makes the files of `dist/` in a copy of the project.
#[track_caller]
fn builds_the_same(checkout: &Checkout, platforms: &[Platform], variables: &[(&str, &str)]) {
    let architectures = platforms.iter().map(|platform| platform.architecture);
    let mut build = checkout.command(&["sh", "-c", "umask 077; exec scripts/build \"$@\"", "sh"]);
    let output = build
        .args(architectures)
        .env("TZ", "Pacific/Chatham")
        .envs(variables.iter().copied())
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "{variables:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for platform in platforms {
        let new = checkout.path().join("dist").join(platform.file());
        assert_eq!(
            fs::read(&new).expect("new"),
            fs::read(dist(platform.architecture)).expect("old"),
            "{platform}: {variables:?}"
        );
        let mode = new.metadata().expect("new").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
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
    (
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-Copt-level=0",
    ),
    (
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-Copt-level=0",
    ),
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

/// Links a program of one function and `items` for a platform with `linker.ld`, and returns the
/// messages of the linker.
#[track_caller]
fn link(platform: &Platform, name: &str, items: &str, body: &str) -> String {
    let folder = Folder::new("link");
    let source = folder.join(format!("{name}.rs"));
    let program = format!(
        "#![no_std] #![no_main] use core::arch::{{asm, global_asm}}; {items}
        #[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! {{ loop {{}} }}
        #[unsafe(no_mangle)] extern \"C\" fn _start() {{ unsafe {{ {body} }} }}"
    );
    fs::write(&source, program).expect("the program");
    let output = Command::new("rustc")
        .args([
            "--edition=2024",
            "-Cpanic=abort",
            "-Copt-level=2",
            "-Clinker=rust-lld",
        ])
        .args([
            "-Clink-arg=--no-dynamic-linker",
            "-Clink-arg=--build-id=none",
            "-Clink-arg=--orphan-handling=error",
            "-Aunused-imports",
            "--crate-type=bin",
            "--target",
            platform.target,
        ])
        .arg(format!(
            "-Clink-arg=--script={}",
            root().join("linker.ld").display()
        ))
        .arg("-o")
        .arg(folder.join(name))
        .arg(&source)
        .current_dir(root())
        .output()
        .expect("rustc");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), text.is_empty(), "{text}");
    text
}

/// Data in a section of its own. Nothing refers to it, so the flag `R` (SHF_GNU_RETAIN) keeps
/// it; the linker keeps constructors without it.
fn section(name: &str, flags: &str, data: &str) -> String {
    let keep = if name == ".init_array" { "" } else { "R" };
    format!("global_asm!(\".section {name},\\\"{flags}{keep}\\\"\", \"{data}\");")
}

/// Asserts that the linker refuses data in a section that `linker.ld` does not name, and
/// accepts the same data among the strings.
#[track_caller]
fn refuses(platform: &Platform, name: &str) {
    let (file, asm) = (name.trim_start_matches('.'), r#"asm!("nop")"#);
    let text = link(platform, file, &section(name, "aw", ".quad 1"), asm);
    assert!(
        text.contains(&format!("is being placed in '{name}'")),
        "{text}"
    );
    let control = section(&format!(".rodata.{file}"), "a", ".quad 1");
    assert_eq!(
        link(platform, &format!("{file}-control"), &control, asm),
        ""
    );
}

limited! {
    #[ignore = "needs scripts/test"]
    fn builds_the_same_elsewhere() {
        // All are set at once. Each that reached cargo would show, whatever the others do.
        builds_the_same(&Checkout::new("another place"), &platforms(), &VARIABLES);
    }

    /// Once in the cargo folder of the user, and once in a folder above the project.
    #[ignore = "needs scripts/test"]
    fn builds_the_same_whatever_a_config_file_says() {
        let home = Folder::new("home");
        cargo_folder(&home, CONFIG);
        let checkout = Checkout::new("project");
        fs::create_dir(checkout.parent().join(".cargo")).expect("a folder");
        fs::write(checkout.parent().join(".cargo/config.toml"), CONFIG).expect("a file");
        builds_the_same(&checkout, &platforms(), &[("CARGO_HOME", home.to_str().expect("UTF-8"))]);
    }

    /// A proxy without a server, given in each way that cargo supports: the error names it.
    #[ignore = "needs scripts/test"]
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
                .command(&["scripts/cargo", &HOST, "fetch", "--locked"])
                .env("CARGO_HOME", &*home)
                .env(variable.0, variable.1)
                .output()
                .expect("scripts/cargo");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("127.0.0.1"), "{name}: {text}");
        }
    }

    /// Debian's compiler, which scripts/build uses where rustup has no target for a platform.
    #[ignore = "needs scripts/test"]
    fn builds_the_same_with_debians_compiler() {
        builds_the_same(&Checkout::new("debian"), &debian_platforms(), &[("PAUSE_RUST", "debian")]);
    }
}

/// Declares tests of linking for this machine's platform and for all others.
macro_rules! for_every_platform {
    ($($(#[$doc:meta])* fn $name:ident($platform:ident) $body:block)*) => {
        $($(#[$doc])* fn $name($platform: &Platform) $body)*

        mod host {
            use harness::programs::{HOST, platform};

            limited! { $(fn $name() { super::$name(&platform(&HOST)); })* }
        }
        mod elsewhere {
            use harness::programs::{emulated_platforms, for_each};

            limited! { $(
                #[ignore = "needs scripts/test"]
                fn $name() { for_each(&emulated_platforms(), super::$name); }
            )* }
        }
    };
}

for_every_platform! {
    /// The control of the tests below, which a linker script that always fails would pass.
    fn links_what_needs_nothing(platform) {
        assert_eq!(link(platform, "nothing", "", r#"asm!("nop")"#), "");
    }

    fn refuses_to_link_writable_data(platform) {
        let text = link(platform, "data", "", "static mut N: u8 = 1; asm!(\"/* {} */\", in(reg) &raw mut N)");
        assert!(text.contains("pause has a writable section"), "{text}");
        let control = "static N: u8 = 1; asm!(\"/* {} */\", in(reg) &raw const N)";
        assert_eq!(link(platform, "data-control", "", control), "");
    }

    fn refuses_to_link_thread_local_data(platform) {
        let text = link(platform, "thread", &section(".tdata.t", "awT", ".byte 1"), r#"asm!("nop")"#);
        assert!(text.contains("pause has a writable section"), "{text}");
        assert_eq!(link(platform, "thread-control", &section(".rodata.t", "a", ".byte 1"), r#"asm!("nop")"#), "");
    }

    /// What a C compiler makes of `int n;`. The string refers to it, which keeps it.
    fn refuses_to_link_common_data(platform) {
        let common = section(".rodata.c", "a", ".long n - .\", \".comm n,4,4");
        let text = link(platform, "common", &common, r#"asm!("nop")"#);
        assert!(text.contains("pause has a writable section"), "{text}");
        let control = section(".rodata.c", "a", ".long n - .\", \"n: .long 0");
        assert_eq!(link(platform, "common-control", &control, r#"asm!("nop")"#), "");
    }

    fn refuses_to_link_a_section_that_nobody_listed(platform) {
        refuses(platform, ".counter");
    }

    fn refuses_to_link_constructors(platform) {
        refuses(platform, ".init_array");
    }

    fn refuses_to_link_transactional_memory(platform) {
        refuses(platform, ".tm_clone_table");
    }

    /// The same data, as a Rust program would have it.
    fn refuses_to_link_a_static_with_a_section_of_its_own(platform) {
        let counter = |section| format!(
            "#[unsafe(link_section = \"{section}\")] static mut N: u8 = 1; asm!(\"/* {{}} */\", in(reg) &raw mut N)"
        );
        let text = link(platform, "static", "", &counter(".counter"));
        assert!(text.contains("is being placed in '.counter'"), "{text}");
        assert_eq!(link(platform, "static-control", "", &counter(".rodata.counter").replace(" mut", "").replace("raw N", "raw const N")), "");
    }

    fn refuses_to_link_a_relocation(platform) {
        let text = link(platform, "relocation", "", "static S: &str = \"text\"; asm!(\"/* {} */\", in(reg) &raw const S)");
        assert!(text.contains("pause has a relocation"), "{text}");
        let control = "let s = \"text\"; asm!(\"/* {} */\", in(reg) s.as_ptr())";
        assert_eq!(link(platform, "relocation-control", "", control), "");
    }

    fn refuses_to_link_a_got(platform) {
        let weak = r#"unsafe extern "C" { static nobody: u8; } global_asm!(".weak nobody");"#;
        let text = link(platform, "got", weak, r#"asm!("/* {} */", in(reg) &raw const nobody)"#);
        assert!(text.contains("pause has a GOT"), "{text}");
        let own = "static SOMEBODY: u8 = 1;";
        assert_eq!(link(platform, "got-control", own, r#"asm!("/* {} */", in(reg) &raw const SOMEBODY)"#), "");
    }
}
