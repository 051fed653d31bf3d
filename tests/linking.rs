//! `linker.ld` refuses what pause must not have, on every platform.

use std::fs;
use std::process::Command;

use harness::programs::{Platform, emulated_platforms, host_platform, root};
use harness::suite::{Suite, Tests};
use harness::{Folder, tests, text};

pub fn list(suite: &mut Suite) {
    let both: Tests<fn(&'static Platform)> =
        tests![links_what_needs_nothing, refuses_what_pause_must_not_have];
    suite.per_platform(false, &[host_platform()], both);
    suite.per_platform(true, &emulated_platforms(), both);
}

/// Links a program of some items and one function for a platform with `linker.ld`, and returns the
/// messages of the linker.
#[track_caller]
fn link(platform: &Platform, items: &str, body: &str) -> String {
    let folder = Folder::new("link");
    let (source, program) = (folder.join("program.rs"), folder.join("program"));
    let code = format!(
        "#![no_std] #![no_main] use core::arch::{{asm, global_asm}}; {items}
        #[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! {{ loop {{}} }}
        #[unsafe(no_mangle)] extern \"C\" fn _start() {{ unsafe {{ asm!(\"nop\"); {body} }} }}"
    );
    fs::write(&source, code).expect("the program");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-Cpanic=abort", "-Copt-level=2", "-Clinker=rust-lld"]);
    rustc.args(["-Clink-arg=--no-dynamic-linker", "-Clink-arg=--build-id=none"]);
    rustc.args(["-Clink-arg=--orphan-handling=error", "-Aunused-imports", "--crate-type=bin"]);
    rustc.arg(format!("-Clink-arg=--script={}", root().join("linker.ld").display()));
    rustc.args(["--target", &platform.target, "-o", text(&program), text(&source)]);
    let output = rustc.current_dir(root()).output().expect("rustc");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), messages.is_empty(), "{messages}");
    messages
}

/// Data in a section of its own. Nothing refers to it, so the flag `R` (SHF_GNU_RETAIN) keeps
/// it; the linker keeps constructors without it.
fn section(name: &str, flags: &str, data: &str) -> String {
    let keep = if name == ".init_array" { "" } else { "R" };
    format!("global_asm!(\".section {name},\\\"{flags}{keep}\\\"\", \"{data}\");")
}

/// A use of an item's address.
fn address(of: &str) -> String {
    format!("asm!(\"/* {{}} */\", in(reg) &raw {of})")
}

/// The control of all tests: a linker script that always fails would refuse everything.
fn links_what_needs_nothing(platform: &'static Platform) {
    assert_eq!(link(platform, "", ""), "");
}

/// Each case has what the linker says, items and a body that it refuses, and others, as a control,
/// that it takes.
fn refuses_what_pause_must_not_have(platform: &'static Platform) {
    let writable = "pause has a writable section";
    let strings = section(".rodata.data", "a", ".quad 1");
    let nothing = String::new;
    let unnamed = |name: &str| section(name, "aw", ".quad 1");
    let weak = r#"unsafe extern "C" { static nobody: u8; } global_asm!(".weak nobody");"#;
    // What a C compiler makes of `int n;`. The string refers to it, which keeps it.
    let common = section(".rodata.c", "a", ".long n - .\", \".comm n,4,4");
    let own = section(".rodata.c", "a", ".long n - .\", \"n: .long 0");
    let placed = |section: &str, mutable: &str| {
        format!("#[unsafe(link_section = \"{section}\")] static {mutable} N: u8 = 1;")
    };
    for (message, items, body, control_items, control_body) in [
        (
            writable,
            "static mut N: u8 = 1;".into(),
            address("mut N"),
            "static N: u8 = 1;".into(),
            address("const N"),
        ),
        (writable, section(".tdata.t", "awT", ".byte 1"), nothing(), strings.clone(), nothing()),
        (writable, common, nothing(), own, nothing()),
        (
            "is being placed in '.counter'",
            unnamed(".counter"),
            nothing(),
            strings.clone(),
            nothing(),
        ),
        (
            "is being placed in '.init_array'",
            unnamed(".init_array"),
            nothing(),
            strings.clone(),
            nothing(),
        ),
        (
            "is being placed in '.tm_clone_table'",
            unnamed(".tm_clone_table"),
            nothing(),
            strings.clone(),
            nothing(),
        ),
        (
            "is being placed in '.counter'",
            placed(".counter", "mut"),
            address("mut N"),
            placed(".rodata.n", ""),
            address("const N"),
        ),
        (
            "pause has a relocation",
            "static S: &str = \"text\";".into(),
            address("const S"),
            nothing(),
            "let s = \"text\"; asm!(\"/* {} */\", in(reg) s.as_ptr())".into(),
        ),
        (
            "pause has a GOT",
            weak.into(),
            address("const nobody"),
            "static SOMEBODY: u8 = 1;".into(),
            address("const SOMEBODY"),
        ),
    ] {
        let messages = link(platform, &items, &body);
        assert!(messages.contains(message), "{items} {body}: {messages}");
        assert_eq!(link(platform, &control_items, &control_body), "", "{control_items}");
    }
}
