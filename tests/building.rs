//! `scripts/build`, `linker.ld` and the two ways to a compiler for arm64.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::programs::{dist, root};

/// A clone of the project in a folder of another name, removed at the end.
struct Clone(PathBuf);

impl Clone {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        let files = [
            "Cargo.lock",
            "Cargo.toml",
            "build.rs",
            "linker.ld",
            "rust-toolchain.toml",
            ".cargo",
            "scripts",
            "src",
            "tests",
        ];
        let copied = Command::new("cp")
            .arg("-r")
            .args(files)
            .arg(&path)
            .current_dir(root())
            .status();
        assert!(copied.expect("cp").success());
        Self(path)
    }

    /// Runs its `scripts/build` from elsewhere and with a hostile environment.
    fn build(&self, variables: &[(&str, &str)]) -> Output {
        Command::new("sh")
            .args(["-c", "umask 077; exec \"$0\""])
            .arg(self.0.join("scripts/build"))
            .current_dir("/")
            .env_remove("CARGO_TARGET_DIR")
            .env("RUSTFLAGS", "-Copt-level=0")
            .env("TZ", "Pacific/Chatham")
            .envs(variables.iter().copied())
            .output()
            .expect("sh")
    }

    fn file(&self, architecture: &str) -> PathBuf {
        self.0.join(format!("dist/pause-linux-{architecture}"))
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asserts that a build elsewhere made the same files as `dist/` has.
#[track_caller]
fn builds_the_same(name: &str, variables: &[(&str, &str)]) {
    let clone = Clone::new(name);
    let output = clone.build(variables);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for architecture in ["amd64", "arm64"] {
        let (new, old) = (clone.file(architecture), dist(architecture));
        assert_eq!(
            fs::read(&new).expect("new"),
            fs::read(&old).expect("old"),
            "{architecture}"
        );
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&new.metadata().expect("new").permissions());
        assert_eq!(mode & 0o777, 0o755);
    }
}

/// Links a program of one function with `linker.ld`, and returns what the linker
/// said.
fn link(name: &str, body: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("link");
    fs::create_dir_all(&folder).expect("a folder");
    let source = folder.join(format!("{name}.rs"));
    let program = format!(
        "#![no_std] #![no_main] use core::arch::asm;
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
            "--crate-type=bin",
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

limited! {
    #[ignore = "needs scripts/test"]
    fn builds_the_same_elsewhere() {
        builds_the_same("another place", &[]);
    }

    /// The way that is left where rustup has no target for arm64.
    #[ignore = "needs scripts/test"]
    fn builds_the_same_with_debians_compiler() {
        builds_the_same("debian", &[("PAUSE_RUST", "debian")]);
    }

    /// A linker script that always fails would pass the three tests below.
    fn links_what_needs_nothing() {
        assert_eq!(link("nothing", r#"asm!("nop")"#), "");
    }

    fn refuses_to_link_writable_data() {
        let text = link("data", "static mut N: u8 = 1; asm!(\"/* {} */\", in(reg) &raw mut N)");
        assert!(text.contains("pause has a writable section"), "{text}");
    }

    fn refuses_to_link_a_relocation() {
        let text = link("relocation", "static S: &str = \"text\"; asm!(\"/* {} */\", in(reg) &raw const S)");
        assert!(text.contains("pause has a relocation"), "{text}");
    }

    #[cfg(target_arch = "x86_64")]
    fn refuses_to_link_a_got() {
        let text = link("got", r#"asm!(".weak nobody", "mov rax, [rip + nobody@GOTPCREL]", out("rax") _)"#);
        assert!(text.contains("pause has a GOT"), "{text}");
    }
}
