//! Hands the linker `linker.ld`, for pause and the programs of the tests alone:
//! flags for the whole build would break build scripts and the tests themselves.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // The programs of the tests are packages below the root, where linker.ld is.
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
/// Debian's compiler has none: then it is that of the toolchain that is pinned.
fn gcc_ld() -> String {
    let host = env::var("HOST").unwrap();
    let folder = |rustc: String| {
        let sysroot = Command::new(rustc)
            .args(["--print", "sysroot"])
            .output()
            .expect("rustc --print sysroot");
        let sysroot = String::from_utf8(sysroot.stdout).unwrap();
        format!("{}/lib/rustlib/{host}/bin/gcc-ld", sysroot.trim())
    };
    let own = folder(env::var("RUSTC").unwrap());
    if Path::new(&own).exists() {
        own
    } else {
        folder("rustc".into())
    }
}
