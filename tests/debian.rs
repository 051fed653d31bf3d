//! README's commands on other releases of Debian. Each runs in a fresh root filesystem made
//! by mmdebstrap, with the rustup of this machine.

use std::path::Path;

use harness::debian::Debian;
use harness::programs::{HOST, root};
use harness::suite::Suite;
use harness::tests;
use harness::{TERMINATED, run};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![debian_13_runs_a_pod_and_packs_the_same_image, debian_sid_runs_a_pod,]);
}

/// The digests of the manifests in an archive. They cover the configs and layers as well.
fn manifests(archive: &Path) -> Vec<String> {
    let from = format!("oci-archive:{}", archive.display());
    let index: serde_json::Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--raw", &from])).expect("JSON");
    let manifests = index["manifests"].as_array().expect("manifests").iter();
    let digests = manifests.map(|one| one["digest"].as_str().expect("a digest").to_string());
    digests.collect()
}

/// Runs README's first command.
#[track_caller]
fn runs_a_pod(debian: &Debian) {
    let steps = debian.run("scripts/pod");
    assert!(steps.contains(&format!("6. SIGTERM: {TERMINATED}")), "{steps}");
}

/// The packer is the one that was built here; the compiler and the rest are Debian 13's.
fn debian_13_runs_a_pod_and_packs_the_same_image() {
    let debian = Debian::new("trixie", &[]);
    runs_a_pod(&debian);
    debian.take_xtask();
    // The copy has no history, from which the image here has its time.
    let epoch = xtask::project::epoch().expect("the time of the commit");
    debian.run(&format!("SOURCE_DATE_EPOCH={epoch} scripts/image --only {}", *HOST));
    let there = manifests(&debian.join("project/dist/pause.oci.tar"));
    let [manifest] = &there[..] else {
        panic!("one platform: {there:?}");
    };
    assert!(manifests(&root().join("dist/pause.oci.tar")).contains(manifest), "{manifest}");
}

fn debian_sid_runs_a_pod() {
    runs_a_pod(&Debian::new("sid", &[]));
}
