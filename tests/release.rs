//! `scripts/release`: the files beside the image, and whether their content is true.

use std::fs;
use std::process::Output;

use serde_json::Value;
use spdx_rs::models::{RelationshipType, SPDX};

use harness::checkout::Checkout;
use harness::debian::Debian;
use harness::programs::{HOST, Platform, dist, host_platform, pause, platforms, root};
use harness::suite::Suite;
use harness::tests;
use harness::{Folder, documentation, refused};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        says_of_what_and_by_what_it_was_made,
        is_signed_and_pushed,
        a_core_file_is_read_with_the_symbols,
        refuses_bad_keys_and_names,
    ]);
}

/// Makes a commit of all files.
const COMMIT: &str = "git init --quiet && git add --all &&
    git -c user.name=t -c user.email=t@t.example commit --quiet --allow-empty -m t";

/// Runs a shell command in the copy of the project, which must succeed.
#[track_caller]
fn run(checkout: &Checkout, line: &str) -> String {
    let mut command = checkout.command(&["sh", "-ec", line]);
    // Without the user's git settings, which may demand signed commits.
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().expect("sh");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").trim().into()
}

/// Two are enough to see that all that are built are described.
fn two_platforms() -> Vec<&'static Platform> {
    platforms().into_iter().take(2).collect()
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
    run(&checkout, COMMIT);
    checkout
}

fn says_of_what_and_by_what_it_was_made() {
    let checkout = committed();
    let output = release(&checkout);
    assert!(output.status.success(), "{output:?}");
    let revision = run(&checkout, "git rev-parse HEAD");

    let sums = run(&checkout, "cd dist && sha256sum --check --strict SHA256SUMS && ls");
    let binaries: Vec<_> = two_platforms().iter().map(|platform| platform.file()).collect();
    let others = ["pause.intoto.json", "pause.oci.tar", "pause.spdx.json"];
    for file in &binaries {
        assert!(sums.contains(&format!("{file}.debug: OK\n")), "{sums}");
    }
    for file in binaries.iter().map(String::as_str).chain(others) {
        assert!(sums.contains(&format!("{file}: OK\n")), "{sums}");
    }
    let count = 2 * binaries.len() + others.len();
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
    }
    assert_eq!(sbom.package_information.len(), 4);
    assert_eq!(sbom.file_information.len(), binaries.len());
    for (file, name) in sbom.file_information.iter().zip(&binaries) {
        assert_eq!(file.file_name, format!("./{name}"));
        let sum = run(&checkout, &format!("sha256sum dist/{name}"));
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
    let subjects = statement["subject"].as_array().expect("subjects");
    assert_eq!(subjects.len(), 2 * binaries.len() + 1);
    let debug: Vec<_> = binaries.iter().map(|file| format!("{file}.debug")).collect();
    let files = binaries
        .iter()
        .map(String::as_str)
        .chain(["pause.oci.tar"])
        .chain(debug.iter().map(String::as_str));
    for (subject, file) in subjects.iter().zip(files) {
        assert_eq!(subject["name"], file);
        assert_eq!(
            subject["digest"]["sha256"],
            run(&checkout, &format!("sha256sum dist/{file}"))[..64]
        );
    }
    let definition = &statement["predicate"]["buildDefinition"];
    let source = &definition["resolvedDependencies"][0];
    assert_eq!(
        (&source["uri"], &source["digest"]["gitCommit"]),
        (&"git+https://git.example/pause".into(), &revision.as_str().into())
    );
    assert_eq!(definition["resolvedDependencies"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        statement["predicate"]["runDetails"]["builder"]["version"]["rustc"],
        run(&checkout, "rustc --version")
    );

    // A second run at another time gives the same files.
    let before = run(&checkout, "cat dist/SHA256SUMS");
    assert!(release(&checkout).status.success());
    assert_eq!(run(&checkout, "cat dist/SHA256SUMS"), before);
    for name in binaries {
        assert_eq!(
            fs::read(checkout.path().join("dist").join(&name)).expect("new"),
            fs::read(root().join("dist").join(name)).expect("old")
        );
    }

    // With uncommitted changes there is no revision that the provenance could name.
    run(&checkout, "echo >>README.md");
    refused(&release(&checkout), "commit or stash what was changed");
    assert_eq!(run(&checkout, "cat dist/SHA256SUMS"), before);
}

/// Pushes and verifies a signed release on Debian 13, in a network namespace of its own, as podman
/// and skopeo of Debian 12 are built without sigstore. podman and skopeo, with the policy of the
/// documentation, take this image and no other; openssl verifies the files.
fn is_signed_and_pushed() {
    let packages =
        "git skopeo podman docker-registry iproute2 curl openssl gcc libc6-dev ca-certificates";
    let debian = Debian::new("trixie", &packages.split(' ').collect::<Vec<_>>());
    debian.take_xtask();
    debian.run(COMMIT);
    let ours = |text: String| text.replace("registry.example", "127.0.0.1:5000");
    for (name, language) in [("verify", "sh"), ("policy.json", "json"), ("pause.yaml", "yaml")] {
        let text = ours(documentation::block("Verify a release", language));
        fs::write(debian.join(name), text).expect("a file");
    }
    fs::write(debian.join("check"), PUSH_AND_VERIFY).expect("a file");
    let output = debian.run("unshare --net bash -e /check");
    assert!(output.ends_with("all is as it should be\n"), "{output}");
}

const PUSH_AND_VERIFY: &str = r#"
set -o pipefail
trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
there=127.0.0.1:5000/pause
fails() { ! "$@" >/log 2>&1 || { echo "it should have failed: $*" >&2 && exit 1; }; }
ip link set lo up
sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/registry.yml
docker-registry serve /registry.yml >/registry.log 2>&1 &
trap 'kill %1' EXIT
until curl --silent --fail 127.0.0.1:5000/v2/ >/log; do sleep 0.2; done
printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' >/etc/containers/registries.conf
echo secret >/phrase
export PAUSE_ONLY=amd64,arm64
scripts/release --new-key /key --passphrase-file /phrase
scripts/release --sign /key.key --passphrase-file /phrase --push "$there" >/out
[ "$(tail -n3 /out | grep -c '^scripts/release: next: ')" = 3 ]
version=$(sed -n "s|.* $there:\([0-9.]*\), signed|\1|p" /out)

# The files, by the commands of the documentation; an altered one is refused.
cmp dist/pause.pub /key.pub
(cd dist && bash -e /verify)
base64 -d dist/pause.intoto.json.sig >/sig
openssl dgst -sha256 -verify /key.pub -signature /sig dist/pause.intoto.json
cp -r dist /altered
sed -i s/a/b/ /altered/SHA256SUMS
(cd /altered && fails bash -e /verify)

# The image, by its policy.
mkdir -p /etc/containers/registries.d
cp /key.pub /etc/containers/pause.pub
cp /policy.json /etc/containers/policy.json
cp /pause.yaml /etc/containers/registries.d/pause.yaml
pull() { podman --storage-driver vfs pull --quiet "$1"; }
copies() { rm -rf /copy && skopeo copy --quiet "docker://$1" dir:/copy; }
digest_of() { skopeo inspect --raw "docker://$1" | sha256sum | cut -c 1-64; }
pull "$there:$version"
copies "$there:$version"
refused() { for command in pull copies; do fails $command "$there:unsigned" && grep -q "$1" /log; done; }
# In another format it is another manifest, which nobody has signed.
skopeo copy --quiet --format v2s2 oci-archive:dist/pause.oci.tar "docker://$there:unsigned"
refused 'no signature exists'
# With the signature of ours beside it, it is an altered image.
digest=$(digest_of "$there:$version")
other=$(digest_of "$there:unsigned")
skopeo --insecure-policy copy --quiet "docker://$there:sha256-$digest.sig" "docker://$there:sha256-$other.sig"
refused 'does not match'

# What refers to the image, as a registry without the referrers API shows it.
index=$(skopeo inspect --raw "docker://$there:sha256-$digest")
for file in pause.spdx.json pause.intoto.json pause.intoto.json.sig; do
    sum=$(sha256sum "dist/$file" | cut -c 1-64)
    curl --silent --fail "127.0.0.1:5000/v2/pause/blobs/sha256:$sum" | cmp - "dist/$file"
done
mapfile -t manifests < <(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$index")
[ ${#manifests[@]} = 2 ]
for manifest in "${manifests[@]}"; do
    [[ $(skopeo inspect --raw "docker://$there@$manifest") == *"\"subject\":{"*"sha256:$digest"* ]]
done
[[ $index == *application/spdx+json* && $index == *application/vnd.in-toto+json* ]]
echo "all is as it should be"
"#;

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
    let says = |arguments: &[&str], text: &str| {
        let mut command = checkout.command(&["scripts/release"]);
        refused(&command.args(arguments).output().expect("scripts/release"), text);
    };
    fs::write(file("phrase"), "one\n").expect("a file");
    fs::write(file("other"), "two\n").expect("a file");
    let key = file("key");
    let mut command = checkout.command(&[
        "scripts/release",
        "--new-key",
        &key,
        "--passphrase-file",
        &file("phrase"),
    ]);
    assert!(command.output().expect("scripts/release").status.success());
    let key = file("key.key");
    says(&["--sign", &key], "not provided: --passphrase-file <FILE>");
    says(&["--sign", &file("none"), "--passphrase-file", &file("phrase")], "cannot read");
    says(&["--sign", &key, "--passphrase-file", &file("other")], "is not its passphrase");
    says(
        &["--new-key", &file("key"), "--passphrase-file", &file("phrase")],
        "exists, and is not replaced",
    );
    says(&["--push", "https://registry.example/pause:1"], "it wants REGISTRY/NAME without a tag");
    assert!(!checkout.path().join("dist").exists(), "something was built");
}
