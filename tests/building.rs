//! `scripts/build`, `linker.ld` and the two ways to a compiler for arm64.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::clone::Clone;
use crate::harness::programs::{dist, root};

/// Asserts that a build elsewhere made the same files as `dist/` has.
#[track_caller]
fn builds_the_same(name: &str, variables: &[(&str, &str)]) {
    let clone = Clone::new(name);
    let mut build = clone.command(&["sh", "-c", "umask 077; exec scripts/build"]);
    let output = build
        .env("RUSTFLAGS", "-Copt-level=0")
        .env("TZ", "Pacific/Chatham")
        .envs(variables.iter().copied())
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for architecture in ["amd64", "arm64"] {
        let new = clone
            .path()
            .join(format!("dist/pause-linux-{architecture}"));
        assert_eq!(
            fs::read(&new).expect("new"),
            fs::read(dist(architecture)).expect("old"),
            "{architecture}"
        );
        let mode = new.metadata().expect("new").permissions().mode();
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
