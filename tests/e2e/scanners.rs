//! What scanners and validators that others have written say of the files of a release. There is no
//! database of vulnerabilities in it: none can be had from the registries of packages.

use std::path::Path;

use serde_json::{Value, json};

use harness::checkout::{COMMIT, Checkout};
use harness::programs::root;
use harness::{Folder, run, text};

use crate::Work;
use crate::images::Images;
use crate::report::Report;

/// The packages in the SBOM.
const PACKAGES: [&str; 4] = ["bitflags", "linux-raw-sys", "pause", "rustix"];

/// Packages of Python in a folder, at the versions of requirements.txt.
fn python(folder: &Path) -> String {
    let bin = folder.join("bin").display().to_string();
    let requirements = root().join("tests/e2e/tools/requirements.txt");
    run("python3", &["-m", "venv", text(folder)]);
    let pip = format!("{bin}/pip");
    run(&pip, &["install", "--quiet", "--disable-pip-version-check", "-r", text(&requirements)]);
    bin
}

/// The names of the packages in a document in CycloneDX, without those of files.
fn packages(document: &Value) -> Vec<&str> {
    let components = document["components"].as_array().expect("components").iter();
    // trivy has the package that the SBOM describes here.
    let all = components.chain([&document["metadata"]["component"]]);
    let mut names: Vec<_> = all.filter_map(|one| one["name"].as_str()).collect();
    names.retain(|name| !name.contains("pause-linux") && !name.contains(".json"));
    names.sort_unstable();
    names
}

pub fn check(_: &Work, _: &Images, report: &mut Report) {
    let (checkout, folder) = (Checkout::new("scanners"), Folder::new("python"));
    checkout.run(&format!(
        "{COMMIT}; export PAUSE_ONLY=amd64,arm64; echo secret >../phrase
        scripts/release --new-key ../key --passphrase-file ../phrase
        scripts/release --source https://git.example/pause --sign ../key.key --passphrase-file ../phrase"
    ));
    let sh = |line: &str| checkout.run(&format!("cd dist; {line}"));
    let json = |line: &str| serde_json::from_str::<Value>(&sh(line)).expect("JSON");

    let bin = python(&folder);
    report.check(
        "the SBOM has NTIA's minimum elements (ntia-checker), and is SPDX 2.3 (pyspdxtools)",
        || {
            sh(&format!("{bin}/pyspdxtools --infile pause.spdx.json"));
            sh(&format!("{bin}/ntia-checker pause.spdx.json | grep '^Conformant: True'"))
        },
    );
    report.check(
        "the SBOM and the provenance are valid by the schema of SPDX and the types of in-toto",
        || {
            let tools = root().join("tests/e2e/tools");
            let syft = "go list -m -f '{{.Dir}}' github.com/anchore/syft";
            let schema = run("sh", &["-ec", &format!("cd {}; {syft}", tools.display())]);
            let schema = format!("{}/schema/spdx-json/spdx-schema-2.3.json", schema.trim());
            let validate = tools.join("validate.py");
            sh(&format!(
                "{bin}/python {} {schema} pause.spdx.json pause.intoto.json",
                validate.display()
            ));
        },
    );
    sh("empty-db ../database/6");
    let grype = "GRYPE_DB_CACHE_DIR=../database GRYPE_DB_AUTO_UPDATE=false GRYPE_CHECK_FOR_APP_UPDATE=false grype --quiet";
    report.check("syft, grype and trivy list the four packages of the SBOM", || {
        for line in [
            "syft convert --quiet --output cyclonedx-json pause.spdx.json",
            &format!("{grype} --output cyclonedx-json sbom:pause.spdx.json"),
            "trivy sbom --quiet --offline-scan --scanners license --format cyclonedx pause.spdx.json",
        ] {
            assert_eq!(packages(&json(line)), PACKAGES, "{line}");
        }
        PACKAGES.join(", ")
    });
    let images = [
        "docker-archive:pause-linux-amd64.oci.tar",
        "docker-archive:pause-linux-arm64.oci.tar",
        "oci-archive:pause.oci.tar",
    ];
    let symbols = ["file:pause-linux-amd64.debug", "file:pause-linux-arm64.debug"];
    report.check(
        "syft and grype find nothing in an image, and nothing in a program with symbols",
        || {
            for source in images.iter().chain(&symbols) {
                let found = json(&format!("syft scan --quiet --output syft-json {source}"));
                assert_eq!(found["artifacts"], json!([]), "{source}");
                let found = json(&format!("{grype} --output json {source}"));
                assert_eq!(found["matches"], json!([]), "{source}");
            }
        },
    );
    report.check(
        "trivy finds no secret and no licence in an image, and none in the programs with symbols",
        || {
            let options = "--quiet --offline-scan --scanners secret,license --format json";
            // It takes an archive with one image only.
            let archives = ["amd64", "arm64"]
                .map(|arch| format!("image {options} --input pause-linux-{arch}.oci.tar"));
            sh("mkdir ../symbols && cp *.debug ../symbols");
            for line in archives.into_iter().chain([format!("rootfs {options} ../symbols")]) {
                let found = json(&format!("trivy {line}"));
                let results = found["Results"].as_array().cloned().unwrap_or_default();
                assert!(
                    results.iter().all(|one| one["Secrets"].is_null() && one["Licenses"].is_null()),
                    "{found}"
                );
            }
        },
    );
    report.check("cosign 2 accepts the bundles, with an empty file of roots", || {
        let verify = "--key pause.pub --insecure-ignore-tlog=true --trusted-root ../root.json";
        sh(&format!(
            "echo '{{\"mediaType\": \"application/vnd.dev.sigstore.trustedroot+json;version=0.1\"}}' >../root.json
            cosign-2 verify-blob {verify} --bundle SHA256SUMS.sigstore.json SHA256SUMS
            cosign-2 verify-blob-attestation {verify} --type slsaprovenance1 --bundle pause.intoto.json.sigstore.json pause-linux-arm64
            echo >>SHA256SUMS
            ! cosign-2 verify-blob {verify} --bundle SHA256SUMS.sigstore.json SHA256SUMS
            cosign-2 version 2>&1 | grep GitVersion"
        ))
    });
}
