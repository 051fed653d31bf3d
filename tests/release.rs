//! `scripts/release`: the files beside the image, and whether their content is true.

use std::fs;
use std::process::Output;

use serde_json::Value;
use spdx_rs::models::{RelationshipType, SPDX};

use harness::checkout::{COMMIT, Checkout};
use harness::programs::{HOST, Platform, dist, host_platform, pause, platforms, root};
use harness::suite::Suite;
use harness::tests;
use harness::{Folder, VERSION, documentation, refused, sha256};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        says_of_what_and_by_what_it_was_made,
        is_signed,
        a_core_file_is_read_with_the_symbols,
        refuses_bad_keys_and_names,
    ]);
}

/// A platform without pause-switch, if there is one: that takes half a minute to build.
fn small_platform() -> &'static Platform {
    platforms().into_iter().min_by_key(|one| one.switch.is_some()).expect("a platform")
}

/// Two are enough to see that all that are built are described.
fn two_platforms() -> Vec<&'static Platform> {
    let mut all = platforms();
    all.sort_by_key(|one| (one.target != host_platform().target, one.switch.is_some()));
    all.truncate(2);
    all
}

fn release(checkout: &Checkout) -> Output {
    let mut command =
        checkout.command(&["scripts/release", "--source", "https://git.example/pause"]);
    let names: Vec<_> = two_platforms().iter().map(|one| one.architecture.as_str()).collect();
    command.env("PAUSE_ONLY", names.join(",")).output().expect("scripts/release")
}

/// A copy of the project with a commit, as the files may have changes that are not committed.
#[track_caller]
fn committed() -> Checkout {
    let checkout = Checkout::new("release");
    checkout.run(COMMIT);
    checkout
}

fn says_of_what_and_by_what_it_was_made() {
    let checkout = committed();
    let output = release(&checkout);
    assert!(output.status.success(), "{output:?}");
    let revision = checkout.run("git rev-parse HEAD");

    let sums = checkout.run("cd dist && sha256sum --check --strict SHA256SUMS && ls");
    let binaries: Vec<_> = two_platforms().iter().map(|platform| platform.file()).collect();
    let others = ["pause.intoto.json", "pause.oci.tar", "pause.spdx.json"];
    for file in &binaries {
        assert!(sums.contains(&format!("{file}.debug: OK\n")), "{sums}");
        assert!(sums.contains(&format!("{file}.oci.tar: OK\n")), "{sums}");
    }
    for file in binaries.iter().map(String::as_str).chain(others) {
        assert!(sums.contains(&format!("{file}: OK\n")), "{sums}");
    }
    let switch = host_platform().switch_file();
    assert!(sums.contains(&format!("{switch}: OK\n")), "{sums}");
    let switches = two_platforms().iter().filter(|one| one.switch.is_some()).count();
    let count = 3 * binaries.len() + switches + others.len();
    assert_eq!(sums.lines().count(), count + count + 1, "and no other: {sums}");

    // A library for SPDX reads it, and it agrees with the files and with Cargo.lock.
    let text = fs::read_to_string(checkout.path().join("dist/pause.spdx.json")).expect("the SBOM");
    let sbom: SPDX = serde_json::from_str(&text).expect("SPDX 2.3");
    let lock: toml::Table =
        fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock").parse().expect("TOML");
    let locked = |name: &str| {
        let mut packages = lock["package"].as_array().expect("packages").iter();
        let package =
            packages.find(|package| package["name"].as_str() == Some(name)).expect("the package");
        package["version"].as_str().expect("its version").to_string()
    };
    let exception = "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT";
    for (package, (name, licence)) in sbom.package_information.iter().zip([
        ("bitflags", "MIT OR Apache-2.0"),
        ("linux-raw-sys", exception),
        ("pause", "Apache-2.0"),
        ("rustix", exception),
    ]) {
        assert_eq!(
            (package.package_name.as_str(), package.package_version.clone()),
            (name, Some(locked(name)))
        );
        assert_eq!(package.declared_license.as_ref().expect("a licence").to_string(), licence);
        // The crate of this name is somebody else's.
        let kind = if name == "pause" { "generic" } else { "cargo" };
        let purl = format!("pkg:{kind}/{name}@{}", locked(name));
        assert_eq!(package.external_reference[0].reference_locator, purl);
        assert!(
            package.package_supplier.as_ref().expect("a supplier").starts_with("Organization: ")
        );
    }
    assert_eq!(sbom.package_information.len(), 4);
    assert_eq!(sbom.file_information.len(), binaries.len());
    for (file, name) in sbom.file_information.iter().zip(&binaries) {
        assert_eq!(file.file_name, format!("./{name}"));
        let sum = checkout.run(&format!("sha256sum dist/{name}"));
        assert!(file.file_checksum.iter().any(|checksum| sum.starts_with(&checksum.value)));
    }
    let depends = sbom
        .relationships
        .iter()
        .filter(|relationship| relationship.relationship_type == RelationshipType::DependsOn);
    assert_eq!(depends.count(), 4, "pause on two, rustix on two");

    let text =
        fs::read_to_string(checkout.path().join("dist/pause.intoto.json")).expect("the provenance");
    let statement: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    // The index and the manifests, as in the image, then each file.
    let subjects = statement["subject"].as_array().expect("subjects");
    let index = checkout.run("tar -xOf dist/pause.oci.tar index.json");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let index = index["manifests"][0]["digest"].as_str().expect("a digest");
    let blob = format!("tar -xOf dist/pause.oci.tar blobs/{}", index.replace(':', "/"));
    let images: Value = serde_json::from_str(&checkout.run(&blob)).expect("JSON");
    let manifests = images["manifests"].as_array().expect("manifests").iter();
    let mut digests = vec![index.to_string()];
    digests.extend(manifests.map(|one| one["digest"].as_str().expect("a digest").into()));
    for line in checkout
        .run("cd dist && sha256sum pause.oci.tar pause-linux-* pause-switch-linux-*")
        .lines()
    {
        digests.push(format!("sha256:{}", &line[..64]));
    }
    let digest = |one: &Value| format!("sha256:{}", one["digest"]["sha256"].as_str().expect("one"));
    let mut named: Vec<_> = subjects.iter().map(digest).collect();
    named.sort();
    digests.sort();
    assert_eq!(named, digests);
    assert!(subjects.iter().any(|one| one["name"] == "pause.oci.tar"));
    let purl = format!("pkg:oci/pause?repository_url=localhost/pause&tag={VERSION}");
    assert_eq!(subjects[0]["name"], purl);

    let definition = &statement["predicate"]["buildDefinition"];
    let source = &definition["resolvedDependencies"][0];
    assert_eq!(
        (&source["uri"], &source["digest"]["gitCommit"]),
        (&"git+https://git.example/pause".into(), &revision.as_str().into())
    );
    let materials = definition["resolvedDependencies"].as_array().expect("materials");
    assert_eq!(materials.len(), 4);
    let digests = materials[1..].iter().map(|one| one["digest"]["sha256"].as_str());
    assert!(digests.into_iter().all(|digest| digest.is_some_and(|digest| digest.len() == 64)));
    // It leads to the page that describes it.
    let page = format!("https://git.example/pause/blob/v{VERSION}/docs/provenance.md");
    assert_eq!(definition["buildType"], page);
    assert!(root().join("docs/provenance.md").exists());
    assert_eq!(
        statement["predicate"]["runDetails"]["builder"]["version"]["rustc"],
        checkout.run("rustc --version")
    );

    // pause-switch is static, and knows what it compares a node with.
    let file = fs::read(checkout.path().join("dist").join(&switch)).expect("pause-switch");
    assert!(file.len() < 3_000_000, "{} bytes", file.len());
    let elf = goblin::elf::Elf::parse(&file).expect("ELF");
    assert!(elf.interpreter.is_none() && elf.libraries.is_empty());
    let sum = sha256(&dist(&HOST));
    assert!(file.windows(64).any(|part| part == sum.as_bytes()), "it has no {sum}");

    // A second run at another time gives the same files.
    let before = checkout.run("cat dist/SHA256SUMS");
    assert!(release(&checkout).status.success());
    assert_eq!(checkout.run("cat dist/SHA256SUMS"), before);
    for name in binaries {
        assert_eq!(
            fs::read(checkout.path().join("dist").join(&name)).expect("new"),
            fs::read(root().join("dist").join(name)).expect("old")
        );
    }

    // With uncommitted changes there is no revision that the provenance could name.
    checkout.run("echo >>README.md");
    refused(&release(&checkout), "commit or stash what was changed");
    assert_eq!(checkout.run("cat dist/SHA256SUMS"), before);
}

/// The same key signs the same files in the same way each time. openssl verifies the files by the
/// commands of the documentation, and refuses an altered one.
fn is_signed() {
    let checkout = committed();
    let line = format!(
        "echo secret >../phrase
        scripts/release --new-key ../key --passphrase-file ../phrase
        [ \"$(stat -c %a ../key.key)\" = 600 ]
        export PAUSE_ONLY={}
        sign() {{ scripts/release --source https://git.example/pause --sign ../key.key --passphrase-file ../phrase; }}
        [ \"$(sign | tail -n3 | grep -c '^scripts/release: next: ')\" = 3 ]
        cmp dist/pause.pub ../key.pub
        cp -r dist ../first
        sign
        diff -r dist ../first",
        small_platform().architecture
    );
    checkout.run(&line);
    let verify = documentation::block("The files", "sh");
    fs::write(checkout.parent().join("verify"), verify).expect("a file");
    checkout.run("cd dist && bash -e ../../verify");
    checkout.run("sed -i s/a/b/ dist/SHA256SUMS && cd dist && ! bash -e ../../verify");
}

/// A core file holds the whole program, and the one with symbols shows where pause was.
fn a_core_file_is_read_with_the_symbols() {
    let folder = Folder::new("core");
    let core = folder.join("core").display().to_string();
    let symbols = root().join("target").join(&host_platform().target).join("release/pause");
    let running = pause().init().start().settled();
    let gdb = |arguments: &[&str]| {
        harness::run("gdb", &[&["--batch", "--quiet", "-nx"], arguments].concat())
    };
    gdb(&["-p", &running.pid().to_string(), "-ex", &format!("generate-core-file {core}")]);
    let (core_bytes, program) =
        (fs::read(&core).expect("a core file"), fs::read(dist(&HOST)).expect("pause"));
    assert!(
        core_bytes.windows(program.len()).any(|part| part == program),
        "the program is not in it"
    );
    let stack = gdb(&[symbols.to_str().expect("UTF-8"), &core, "-ex", "backtrace"]);
    assert!(stack.contains("src/main.rs:"), "{stack}");
}

fn refuses_bad_keys_and_names() {
    let checkout = committed();
    let folder = Folder::new("keys");
    let file = |name: &str| folder.join(name).display().to_string();
    let release = |arguments: &[&str]| {
        let mut command = checkout.command(&["scripts/release"]);
        command.args(arguments).output().expect("scripts/release")
    };
    let [key, phrase, other, none] = ["key.key", "phrase", "other", "none"].map(file);
    fs::write(&phrase, "one\n").expect("a file");
    fs::write(&other, "two\n").expect("a file");
    let new_key = |prefix: &str| release(&["--new-key", prefix, "--passphrase-file", &phrase]);
    assert!(new_key(&file("key")).status.success());
    refused(&new_key(&file("key")), "exists, and is not replaced");
    refused(&new_key(""), "a value is required");
    fs::write(&none, "\n").expect("a file");
    let without = release(&["--new-key", &file("empty"), "--passphrase-file", &none]);
    refused(&without, "has no passphrase");
    fs::remove_file(&none).expect("the file");
    // On a full disk no half of a pair is left.
    let full = "mount -t tmpfs -o size=4k none \"$1\" && ! scripts/release --new-key \"$1/key\" --passphrase-file \"$2\"; ls \"$1\"";
    fs::create_dir(file("full")).expect("a folder");
    let mut unshare = checkout.command(&["unshare", "--mount", "sh", "-c", full, "sh"]);
    let output = unshare.args([&file("full"), &phrase]).output().expect("unshare");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    fs::create_dir(file("half.pub")).expect("a folder");
    refused(&new_key(&file("half")), "exists, and is not replaced");
    assert!(!folder.join("half.key").exists(), "it has a key without its other half");

    refused(&release(&["--sign", &key]), "not provided: --passphrase-file <FILE>");
    let sign = |key: &str, phrase: &str, source: &[&str]| {
        release(&[&["--sign", key, "--passphrase-file", phrase], source].concat())
    };
    refused(&sign(&key, &phrase, &[]), "says where its source code is");
    let source = ["--source", "https://git.example/pause"];
    refused(&sign(&none, &phrase, &source), "cannot read");
    refused(&sign(&key, &other, &source), "is not its passphrase");
    let push = release(&["--push", "https://registry.example/pause:1"]);
    refused(&push, "it wants REGISTRY/NAME without a tag");
    assert!(!checkout.path().join("dist").exists(), "something was built");
}
