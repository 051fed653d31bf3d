//! Passes `linker.ld` and its flags to the linker, for pause and the programs in tests/programs only: flags for the
//! whole build would break build scripts and the tests.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // The programs of the tests are packages below the root folder, where linker.ld is.
    let package = env::var("CARGO_MANIFEST_DIR").unwrap();
    let script = Path::new(&package)
        .ancestors()
        .map(|folder| folder.join("linker.ld"))
        .find(|script| script.exists())
        .expect("linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let script = format!("--script={}", script.display());
    let flags = [
        // The kernel loads the program without a dynamic linker, so there is no PT_INTERP.
        "--no-dynamic-linker",
        "--build-id=none",
        // A section that linker.ld does not name is an error.
        "--orphan-handling=error",
        script.as_str(),
    ];

    // `scripts/build` calls rust-lld itself for a foreign architecture; otherwise cc is told to call it. Other linkers
    // do not work: GNU ld leaves an empty GOT of 32 bytes in a PIE for aarch64.
    let direct = env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("lld"));
    let flags: Vec<String> = if direct {
        flags.map(String::from).to_vec()
    } else {
        let lld = format!("-B{}", gcc_ld());
        let cc = ["-nostartfiles".to_string(), "-fuse-ld=lld".to_string(), lld];
        cc.into_iter().chain(flags.map(|flag| format!("-Wl,{flag}"))).collect()
    };
    for flag in flags {
        println!("cargo::rustc-link-arg-bins={flag}");
    }
}

/// The folder in which cc finds the toolchain's rust-lld under the name `ld.lld`.
fn gcc_ld() -> String {
    let [rustc, host] = ["RUSTC", "HOST"].map(|name| env::var(name).unwrap());
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().expect("rustc --print sysroot");
    format!("{}/lib/rustlib/{host}/bin/gcc-ld", String::from_utf8(sysroot.stdout).unwrap().trim())
}
