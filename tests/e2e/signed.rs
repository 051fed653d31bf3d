//! A release that is signed and pushed, as others have it: verified by the commands and policies of
//! docs/verify.md, mirrored by each command of its table, and pulled by CRI-O and containerd.

use std::fs;

use harness::checkout::COMMIT;
use harness::debian::Debian;
use harness::{documentation, run, text};

use crate::Work;
use crate::images::{Images, PAUSE};
use crate::node::{Node, Runtime, bin};
use crate::report::Report;

/// The image in the registry of the cell.
const THERE: &str = "127.0.0.1:5000/pause";

/// The podman and skopeo of Debian 12 are built without sigstore.
const PACKAGES: &str =
    "git skopeo podman docker-registry iproute2 curl openssl gcc libc6-dev ca-certificates";

const TOOLS: [&str; 4] = ["cosign", "crane", "oras", "regctl"];

/// A block of docs/verify.md, with the registry of the tests.
fn block(heading: &str, language: &str) -> String {
    documentation::block(heading, language).replace("registry.example", "127.0.0.1:5000")
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let debian = debian();
    for (what, script) in [
        ("a release is pushed beside what others have signed, and pushed again", "push"),
        ("the commands and policies of docs/verify.md accept it, and no other", "verify"),
        ("mirrors have what docs/verify.md says, and a mirror is signed again", "mirror"),
    ] {
        report.check(what, || {
            let output = debian.run(&format!("unshare --net tests/e2e/signed/{script}"));
            output.lines().last().unwrap_or_default().to_string()
        });
    }
    on_crio(&debian, work, images, report);
    on_containerd(&debian, work, images, report);
}

/// Debian 13 with the tools, the scripts, and the blocks of docs/verify.md.
fn debian() -> Debian {
    let debian = Debian::new("trixie", &PACKAGES.split(' ').collect::<Vec<_>>());
    debian.take_xtask();
    debian.run(COMMIT);
    for tool in TOOLS {
        fs::copy(bin().join(tool), debian.join(&format!("usr/local/bin/{tool}"))).expect(tool);
    }
    let podman = "With podman, skopeo and CRI-O";
    let rows = documentation::table("Mirror a release");
    let rows: Vec<_> = rows.iter().map(|row| row.join("\t") + "\n").collect();
    fs::create_dir(debian.join("docs")).expect("a folder");
    for (name, content) in [
        ("version", env!("PAUSE_VERSION").into()),
        ("files.sh", block("The files", "sh")),
        ("cosign.sh", block("With cosign", "sh")),
        ("policy.json", block(podman, "json")),
        ("pause.yaml", block(podman, "yaml")),
        ("mirror.json", documentation::block("Mirror a release", "json")),
        ("sign.sh", block("Mirror a release", "sh")),
        ("mirrors", rows.concat()),
    ] {
        fs::write(debian.join("docs").join(name), content).expect(name);
    }
    let registries = "[[registry]]\nlocation = '127.0.0.1'\ninsecure = true\n";
    fs::write(debian.join("etc/containers/registries.conf"), registries).expect("a file");
    debian.run("sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/registry.yml");
    debian
}

/// Starts a registry with the release in the cell of a node, and brings the key.
fn serve(node: &Node, debian: &Debian) {
    let from = debian.join("var/lib/docker-registry/docker");
    run("cp", &["-r", text(&from), text(&node.path("/var/lib/docker-registry"))]);
    node.cell().registry();
    node.write(
        "/etc/containers/pause.pub",
        &fs::read_to_string(debian.join("key.pub")).expect("it"),
    );
}

/// The reason why an image is not pulled.
fn refusal(node: &Node, tag: &str) -> String {
    let output = node.crictl_output(&format!("pull {THERE}:{tag}"));
    assert!(!output.status.success(), "it was taken");
    String::from_utf8_lossy(&output.stderr).trim().into()
}

fn on_crio(debian: &Debian, work: &Work, images: &Images, report: &mut Report) {
    let node = Node::new(Runtime::Crio, PAUSE, work, images);
    report.versions(&node.programs);
    serve(&node, debian);
    let podman = "With podman, skopeo and CRI-O";
    node.write("/etc/containers/policy.json", &block(podman, "json"));
    node.write("/etc/containers/registries.d/pause.yaml", &block(podman, "yaml"));
    let refused = |tag: &str, why: &str| {
        let stderr = refusal(&node, tag);
        let reason = stderr.split("Source image rejected: ").nth(1);
        let reason = reason.unwrap_or_else(|| panic!("not for its signature: {stderr}"));
        assert!(reason.contains(why), "{reason}");
        reason.split(';').next().unwrap_or_default().to_string()
    };
    report.check("CRI-O pulls an image with the signature that the policy demands", || {
        node.crictl(&format!("pull {THERE}:{}", env!("PAUSE_VERSION")));
    });
    report.check("CRI-O refuses an altered image with the signature of ours beside it", || {
        refused("unsigned", "does not match")
    });
    report.check("CRI-O refuses an unsigned image", || {
        let alone = harness::programs::root().join("dist/pause-linux-arm64.oci.tar");
        node.sh(&format!(
            "skopeo copy --quiet --format v2s2 --dest-tls-verify=false oci-archive:{} docker://{THERE}:other",
            alone.display()
        ));
        refused("other", "no signature exists")
    });
}

fn on_containerd(debian: &Debian, work: &Work, images: &Images, report: &mut Report) {
    let node = Node::new(Runtime::Containerd2, PAUSE, work, images);
    report.versions(&node.programs);
    serve(&node, debian);
    let config = node.path("/etc/containerd/config.toml");
    let config =
        fs::read_to_string(config).expect("a configuration") + &block("With containerd", "toml");
    let verifier = "/opt/containerd/image-verifier/bin/pause";
    node.write(verifier, &block("With containerd", "sh"));
    node.sh(&format!("chmod 755 {verifier}"));
    let restart = |config: &str| {
        node.write("/etc/containerd/config.toml", config);
        node.sh("pkill -x containerd; while pgrep -x containerd; do sleep 0.1; done");
        node.start();
    };
    restart(&config);
    report.check("containerd with the verifier of docs/verify.md pulls a signed image", || {
        node.crictl(&format!("pull {THERE}:{}", env!("PAUSE_VERSION")));
    });
    report.check("containerd refuses an altered image, by the verifier", || {
        let stderr = refusal(&node, "unsigned");
        assert!(stderr.contains("verifier pause rejected image"), "{stderr}");
        "verifier pause rejected image".to_string()
    });
    let images = "[plugins.'io.containerd.cri.v1.images'";
    let mirrors = format!(
        "{images}.registry.mirrors.'127.0.0.1:5000']\nendpoint = ['http://127.0.0.1:5000']\n"
    );
    for (name, config) in [
        ("DiscardUnpackedLayers", format!("{config}{images}]\ndiscard_unpacked_layers = true\n")),
        ("Registry.Mirrors", config.replace("config_path =", "# config_path =") + &mirrors),
    ] {
        report.check(
            &format!("containerd with {name} skips the verifier, and says so in its log"),
            || {
                restart(&config);
                node.crictl(&format!("pull {THERE}:unsigned"));
                node.crictl(&format!("rmi {THERE}:unsigned"));
                let says =
                    format!("Found '{name}' in CRI config.*Falling back to local image pull mode");
                node.sh(&format!("grep -o \"{says}\" /run/containerd.log"))
            },
        );
    }
}
