//! CRI-O with the policy of docs/verify.md takes the image with its signature, and refuses one without and
//! one that is not what was signed.

use harness::documentation;

use crate::Work;
use crate::images::{Images, PAUSE, archive};
use crate::node::{Node, Runtime, bin};
use crate::report::Report;

/// The image in the registry of the cell.
const THERE: &str = "127.0.0.1:5000/pause";

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let node = Node::new(Runtime::Crio, PAUSE, work, images);
    report.versions(&node.programs);
    node.cell().registry();
    let ours = |text: String| text.replace("registry.example", "127.0.0.1:5000");
    let policy = ours(documentation::block("Verify a release", "json"));
    node.write("/etc/containers/policy.json", &policy);
    let lookaside = ours(documentation::block("Verify a release", "yaml"));
    node.write("/etc/containers/registries.d/pause.yaml", &lookaside);
    let digest_of = |tag: &str| {
        let raw = format!("skopeo inspect --raw --tls-verify=false docker://{THERE}:{tag}");
        node.sh(&format!("{raw} | sha256sum | cut -c 1-64"))
    };
    let refusal = |tag: &str| {
        let output = node.crictl_output(&format!("pull {THERE}:{tag}"));
        assert!(!output.status.success(), "it was taken");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = stderr.split("Source image rejected: ").nth(1);
        let reason = reason.unwrap_or_else(|| panic!("not for its signature: {stderr}"));
        reason.split(';').next().unwrap_or_default().to_string()
    };

    report.check("an image with the signature that the policy demands is pulled", || {
        let push = bin().join("push-signed");
        node.sh(&format!(
            "{} /etc/containers oci-archive:{} docker://{THERE}:signed",
            push.display(),
            archive()
        ));
        node.crictl(&format!("pull {THERE}:signed"));
        format!("sha256:{}", digest_of("signed"))
    });
    report.check("an unsigned image is refused", || {
        // In another format it is another manifest, which nobody has signed.
        node.sh(&format!(
            "skopeo copy --quiet --format v2s2 --dest-tls-verify=false oci-archive:{} docker://{THERE}:unsigned",
            archive()
        ));
        let reason = refusal("unsigned");
        assert!(reason.contains("no signature exists"), "{reason}");
        reason
    });
    report.check("an altered image, with the signature of ours beside it, is refused", || {
        let [signed, other] = ["signed", "unsigned"].map(digest_of);
        node.sh(&format!(
            "skopeo --insecure-policy copy --quiet --src-tls-verify=false --dest-tls-verify=false \
             docker://{THERE}:sha256-{signed}.sig docker://{THERE}:sha256-{other}.sig"
        ));
        let reason = refusal("unsigned");
        assert!(reason.contains("does not match"), "{reason}");
        reason
    });
}
