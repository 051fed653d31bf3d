//! Hands the linker `linker.ld`, for pause and the programs of the tests alone:
//! flags for the whole build would break build scripts and the tests themselves.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");

    let script = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("linker.ld");
    let script = format!("--script={}", script.display());
    let flags = [
        // The kernel is the only loader: no PT_INTERP.
        "--no-dynamic-linker",
        "--build-id=none",
        // A section that linker.ld does not name is an error.
        "--orphan-handling=error",
        script.as_str(),
    ];

    // `scripts/build` links for a foreign architecture by rust-lld itself;
    // otherwise it is cc that is asked to call it. No other linker will do: GNU
    // ld leaves an empty GOT of 32 bytes in an aarch64 PIE.
    let direct = env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("lld"));
    let flags: Vec<String> = if direct {
        flags.map(String::from).to_vec()
    } else {
        let lld = format!("-B{}", gcc_ld());
        let cc = ["-nostartfiles".to_string(), "-fuse-ld=lld".to_string(), lld];
        cc.into_iter()
            .chain(flags.map(|flag| format!("-Wl,{flag}")))
            .collect()
    };
    for flag in flags {
        println!("cargo::rustc-link-arg-bins={flag}");
    }
}

/// The folder of the toolchain in which cc finds its rust-lld under the name `ld.lld`.
fn gcc_ld() -> String {
    let rustc = env::var("RUSTC").unwrap();
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc --print sysroot");
    let sysroot = String::from_utf8(sysroot.stdout).unwrap();
    let host = env::var("HOST").unwrap();
    format!("{}/lib/rustlib/{host}/bin/gcc-ld", sysroot.trim())
}
