//! A release that `scripts/release` makes and `scripts/publish` pushes and signs, and whether others accept it: cosign
//! 3, podman and skopeo with a policy, as docs/verify.md says. podman and skopeo of Debian 12 are built without
//! sigstore, so they run in a root of Debian 13.

use std::fs;
use std::process::Command;

use xtask::project::debian_mirror;

use harness::cell::Cell;
use harness::checkout::{COMMIT, Checkout};
use harness::{Folder, run, text};

use crate::images::Images;
use crate::report::Report;
use crate::work::{Work, bin};

/// The image in the registry of the container environment.
const NAME: &str = "127.0.0.1:5000/pause";

/// A key, whose private half has no password.
const KEY: &str = "COSIGN_PASSWORD= cosign generate-key-pair --output-key-prefix ../key 2>/dev/null";

/// A block of code of docs/verify.md, which begins with `start`, with the registry of this check.
fn block(start: &str) -> String {
    let page = fs::read_to_string(harness::programs::root().join("docs/verify.md")).expect("a page");
    let mut blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let block = blocks.find(|(_, code)| code.starts_with(start));
    let (_, code) = block.unwrap_or_else(|| panic!("docs/verify.md has no block that begins with {start}"));
    code.replace("registry.example/pause", NAME)
}

pub fn check(_: &Work, _: &Images, report: &mut Report) {
    let (environment, checkout, debian) = (Cell::start(), Checkout::new("signed"), Folder::for_all("trixie"));
    environment.registry();
    let inside = |line: &str| {
        let line = format!("cd {} && export PATH={}:$PATH && {line}", text(checkout.path()), text(&bin()));
        environment.run(&line)
    };
    // It takes a minute, in which the release is made.
    let source = format!("deb [check-valid-until=no] {} trixie main", debian_mirror().expect("a mirror"));
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=apt", "--include=podman,skopeo,ca-certificates,mount", "trixie"]);
    let mut debian_made = mmdebstrap.arg(&*debian).arg(source).spawn().expect("mmdebstrap");
    checkout.run(COMMIT);
    report.check("scripts/release makes all files, and a second run the same ones", || {
        checkout
            .run("scripts/release && cp dist/SHA256SUMS .. && scripts/release && cmp dist/SHA256SUMS ../SHA256SUMS");
        checkout.run("wc -l <dist/SHA256SUMS") + " files"
    });
    report.check("scripts/publish pushes and signs it", || {
        inside(&format!("{KEY} && COSIGN_PASSWORD= PAUSE_INSECURE=1 scripts/publish {NAME} --key ../key.key && cp ../key.pub dist/pause.pub"))
    });
    report.check("cosign 3 accepts the files, the image and the SBOM, by the commands of docs/verify.md", || {
        let line = block("cosign verify-blob").replace("cosign verify ", "cosign verify --allow-http-registry ");
        let line = line.replace("verify-attestation ", "verify-attestation --allow-http-registry ");
        inside(&format!("cd dist && {}", line.trim().replace('\n', " && ").replace("\\ && ", "")));
        inside("cosign version 2>&1 | grep GitVersion")
    });
    report.check("cosign 3 refuses another key, and a file that was changed", || {
        inside(&KEY.replace("../key", "../other"));
        let verify = "--insecure-ignore-tlog=true --allow-http-registry";
        inside(&format!("! cosign verify --key ../other.pub {verify} {NAME}:{} 2>/dev/null", env!("PAUSE_VERSION")));
        inside(
            "cd dist && cp SHA256SUMS ../changed && echo >>../changed && ! cosign verify-blob --key pause.pub \
             --insecure-ignore-tlog=true --bundle SHA256SUMS.sigstore.json ../changed 2>/dev/null",
        );
    });
    assert!(debian_made.wait().expect("mmdebstrap").success(), "mmdebstrap failed");
    let write = |path: &str, content: &str| harness::write(&debian.join(path), content);
    write("etc/containers/policy.json", &block("{"));
    write("etc/containers/registries.d/pause.yaml", &block("docker:"));
    write("etc/containers/registries.conf", "[[registry]]\nlocation = '127.0.0.1:5000'\ninsecure = true\n");
    run("cp", &[text(&checkout.parent().join("key.pub")), text(&debian.join("etc/containers/pause.pub"))]);
    let enter = |line: &str| {
        // podman remounts its root, which has to be a mount.
        let into = "mount --bind \"$0\" \"$0\"; exec chroot \"$0\" sh -c \"$1\"";
        let mut unshare: Command = environment.command("unshare");
        let line = format!(
            "mount -t proc p /proc; mount -t sysfs s /sys; mount -t cgroup2 c /sys/fs/cgroup; mount -t tmpfs t /run; mkdir /run/tmp; {line}"
        );
        let output = unshare.args(["--mount", "sh", "-ec", into]).arg(&*debian).arg(&line).output().expect("unshare");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let version = env!("PAUSE_VERSION");
    for (tool, pull) in [
        ("podman", "podman --storage-driver vfs pull --quiet"),
        ("skopeo", "rm -rf /copy; skopeo copy --quiet --dest-compress=false"),
    ] {
        let (prefix, to) = if tool == "skopeo" { ("docker://", " dir:/copy") } else { ("", "") };
        report.check(&format!("{tool} with the policy of docs/verify.md pulls it, and no unsigned image"), || {
            let (accepted, says) = enter(&format!("{pull} {prefix}{NAME}:{version}{to}"));
            assert!(accepted, "{says}");
            // In another format it is another manifest, which nobody has signed.
            inside(&format!("skopeo copy --quiet --format v2s2 --dest-tls-verify=false oci-archive:dist/pause.oci.tar docker://{NAME}:unsigned"));
            let (accepted, says) = enter(&format!("{pull} {prefix}{NAME}:unsigned{to}"));
            assert!(!accepted && says.contains("no signature exists"), "{says}");
            enter(&format!("{tool} --version")).1.trim().to_string()
        });
    }
}
