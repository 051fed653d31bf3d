//! `scripts/release`: the files beside the image, and whether their content is true. `scripts/e2e signed` runs all of
//! it, and `scripts/publish`.

use std::fs;
use std::process::Output;

use spdx_rs::models::SPDX;

use harness::checkout::{COMMIT, Checkout};
use harness::programs::{HOST, dist, host_platform, pause, root};
use harness::{Folder, refused, sha256};

/// A release of two platforms, which is enough to see that each has its files.
const PLATFORMS: [&str; 2] = ["amd64", "s390x"];

fn release(checkout: &Checkout) -> Output {
    let mut command = checkout.command(&["scripts/release", "--only", "amd64,s390x"]);
    command.output().expect("scripts/release")
}

pub fn describes_what_it_has() {
    let checkout = Checkout::new("release");
    checkout.run(COMMIT);
    let output = release(&checkout);
    assert!(output.status.success(), "{output:?}");

    let mut files = vec!["pause-switch-linux-amd64".to_string(), "pause.oci.tar".into(), "pause.spdx.json".into()];
    let ends = ["", ".debug", ".oci.tar"];
    files.extend(PLATFORMS.iter().flat_map(|one| ends.map(|end| format!("pause-linux-{one}{end}"))));
    let sums = checkout.run("cd dist && sha256sum --check --strict SHA256SUMS");
    let right = |file: &String| sums.lines().filter(|line| *line == format!("{file}: OK")).count() == 1;
    assert!(files.iter().all(right) && sums.lines().count() == files.len(), "{sums}");
    assert_eq!(checkout.run("ls dist | wc -l"), (files.len() + 1).to_string(), "and no other");

    // A library for SPDX reads the SBOM, and it agrees with the files and with Cargo.lock.
    let text = fs::read_to_string(checkout.path().join("dist/pause.spdx.json")).expect("the SBOM");
    let sbom: SPDX = serde_json::from_str(&text).expect("SPDX 2.3");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let packages = ["bitflags", "linux-raw-sys", "pause", "rustix"];
    assert!(sbom.package_information.iter().map(|package| package.package_name.as_str()).eq(packages));
    for (package, name) in sbom.package_information.iter().zip(packages) {
        let version = package.package_version.as_ref().expect("a version");
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
        assert!(package.declared_license.as_ref().expect("a licence").to_string().contains("Apache-2.0"));
        // The crate that is called pause is another project's.
        let kind = if name == "pause" { "generic" } else { "cargo" };
        assert_eq!(package.external_reference[0].reference_locator, format!("pkg:{kind}/{name}@{version}"));
        // NTIA's minimum elements have a supplier of each package.
        assert!(package.package_supplier.as_ref().expect("a supplier").starts_with("Organization: "));
    }
    for (file, name) in sbom.file_information.iter().zip(PLATFORMS) {
        let sum = checkout.run(&format!("sha256sum dist/pause-linux-{name}"));
        assert_eq!(file.file_name, format!("./pause-linux-{name}"));
        assert!(file.file_checksum.iter().any(|checksum| sum.starts_with(&checksum.value)));
    }

    // pause-switch is static, and knows what it compares a node with.
    let file = fs::read(checkout.path().join("dist/pause-switch-linux-amd64")).expect("pause-switch");
    assert!(file.len() < 3_000_000, "{} bytes", file.len());
    let elf = goblin::elf::Elf::parse(&file).expect("ELF");
    assert!(elf.interpreter.is_none() && elf.libraries.is_empty());
    let sum = sha256(&dist("amd64"));
    assert!(file.windows(64).any(|part| part == sum.as_bytes()), "it has no {sum}");

    // A second run at another time gives the same files.
    let before = checkout.run("cat dist/SHA256SUMS");
    assert!(release(&checkout).status.success());
    assert_eq!(checkout.run("cat dist/SHA256SUMS"), before);
    // With uncommitted changes there is no commit that it could be the release of.
    checkout.run("echo >>README.md");
    refused(&release(&checkout), "commit or stash what was changed");
    assert_eq!(checkout.run("cat dist/SHA256SUMS"), before);
}

/// A core file holds the whole program, and the one with symbols shows where pause was.
pub fn a_core_file_is_read_with_the_symbols() {
    let folder = Folder::new("core");
    let core = folder.join("core").display().to_string();
    let symbols = host_platform().linked().display().to_string();
    let running = pause().init().start().settled();
    let gdb = |arguments: &[&str]| harness::run("gdb", &[&["--batch", "--quiet", "-nx"], arguments].concat());
    gdb(&["-p", &running.pid().to_string(), "-ex", &format!("generate-core-file {core}")]);
    let [bytes, program] = [core.as_ref(), dist(&HOST).as_path()].map(|file| fs::read(file).expect("a file"));
    assert!(bytes.windows(program.len()).any(|part| part == program), "the program is not in it");
    let stack = gdb(&[&symbols, &core, "-ex", "backtrace"]);
    assert!(stack.contains("src/main.rs:"), "{stack}");
}
