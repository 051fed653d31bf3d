//! `linker.ld` refuses what pause must not have, on every platform.

use std::fs;
use std::process::Command;

use harness::programs::{Platform, root};
use harness::{Folder, text};

/// Links a program of some items and one function for a platform with `linker.ld`, and returns the messages of the
/// linker.
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
    rustc.args(["--target", platform.target, "-o", text(&program), text(&source)]);
    let output = rustc.current_dir(root()).output().expect("rustc");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), messages.is_empty(), "{messages}");
    messages
}

/// Data in a section of its own. Nothing refers to it, so the flag `R` (SHF_GNU_RETAIN) keeps it; the linker keeps
/// constructors without it.
fn section(name: &str, flags: &str, data: &str) -> String {
    let keep = if name == ".init_array" { "" } else { "R" };
    format!("global_asm!(\".section {name},\\\"{flags}{keep}\\\"\", \"{data}\");")
}

/// Some items, and the one whose address the function takes, as `mut N`; or none.
type Code<'a> = (&'a str, &'a str);

/// Asserts that the linker refuses some code with a message, and takes other code, the control.
fn refuses(platform: &Platform, message: &str, refused: Code, control: Code) {
    let [messages, control_messages] = [refused, control].map(|(items, address)| {
        let body = format!("asm!(\"/* {{}} */\", in(reg) &raw {address})");
        link(platform, items, if address.is_empty() { "" } else { &body })
    });
    assert!(messages.contains(message), "{refused:?}: {messages}");
    assert_eq!(control_messages, "", "{control:?}");
}

/// The control of all tests: a linker script that always fails would refuse everything.
pub fn links_what_needs_nothing(platform: &'static Platform) {
    assert_eq!(link(platform, "", ""), "");
}

pub fn refuses_what_pause_must_not_have(platform: &'static Platform) {
    let writable = "pause has a writable section";
    let string = section(".rodata.data", "a", ".quad 1");
    refuses(platform, writable, ("static mut N: u8 = 1;", "mut N"), ("static N: u8 = 1;", "const N"));
    let thread_local = section(".tdata.t", "awT", ".byte 1");
    refuses(platform, writable, (&thread_local, ""), (&string, ""));
    // What a C compiler makes of `int n;`. The string refers to it, which keeps it.
    let common = section(".rodata.c", "a", ".long n - .\", \".comm n,4,4");
    let own = section(".rodata.c", "a", ".long n - .\", \"n: .long 0");
    refuses(platform, writable, (&common, ""), (&own, ""));
    for name in [".counter", ".init_array", ".tm_clone_table"] {
        let unnamed = section(name, "aw", ".quad 1");
        let message = format!("is being placed in '{name}'");
        refuses(platform, &message, (&unnamed, ""), (&string, ""));
    }
    // The same data, as a Rust program would have it.
    let unnamed = "#[unsafe(link_section = \".counter\")] static mut N: u8 = 1;";
    let named = "#[unsafe(link_section = \".rodata.n\")] static N: u8 = 1;";
    let message = "is being placed in '.counter'";
    refuses(platform, message, (unnamed, "mut N"), (named, "const N"));
    let (pointer, array) = ("static S: &str = \"text\";", "static S: [u8; 4] = *b\"text\";");
    refuses(platform, "pause has a relocation", (pointer, "const S"), (array, "const S"));
    let weak = r#"unsafe extern "C" { static nobody: u8; } global_asm!(".weak nobody");"#;
    let own = "static NOBODY: u8 = 1;";
    refuses(platform, "pause has a GOT", (weak, "const nobody"), (own, "const NOBODY"));
}
