//! `scripts/release`: the image, and the files beside it: the programs with symbols, pause-switch, an SBOM and
//! checksums.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use xtask::platforms::platforms;
use xtask::project::{self, dist, hex, say, sha256};

use crate::{build, image};

/// Makes all files of a release.
pub fn release(options: &image::Options) -> Result<()> {
    let revision = match project::revision()? {
        None => bail!("a release is made from a commit, and this is no git clone; see scripts/image --help"),
        Some(revision) if revision.ends_with("-dirty") => {
            bail!("a release is made from a commit: commit or stash what was changed")
        }
        Some(revision) => revision,
    };
    project::epoch()?;
    // The checksums of an earlier release would not match what is made now.
    for file in ["SHA256SUMS", "SHA256SUMS.sigstore.json"] {
        let _ = fs::remove_file(dist(file));
    }
    build::all()?;
    image::pack(options)?;
    build::switches()?;
    let mut files = vec!["pause.oci.tar".to_string()];
    for platform in platforms() {
        // The program with symbols, for debuggers. It has no path of this machine in it.
        let symbols = format!("{}.debug", platform.file());
        project::replace(&dist(&symbols), 0o755, &fs::read(platform.linked())?)?;
        files.extend([platform.file(), platform.archive(), symbols]);
        files.extend(platform.switch.map(|_| platform.switch_file()));
    }
    let sbom = serde_json::to_vec_pretty(&sbom(&Linked::new()?, &revision)?)?;
    project::replace(&dist("pause.spdx.json"), 0o644, &sbom)?;
    files.push("pause.spdx.json".into());
    let line = |file: &String| Ok(format!("{}  {file}\n", sha256(&fs::read(dist(file))?)));
    let sums: String = files.iter().map(line).collect::<Result<_>>()?;
    project::replace(&dist("SHA256SUMS"), 0o644, sums.as_bytes())?;
    say(format!("dist/SHA256SUMS has the checksums of {} files; next: scripts/publish REGISTRY/NAME", files.len()));
    Ok(())
}

/// pause and the crates that are linked into it, as cargo resolves them.
struct Linked {
    metadata: Metadata,
    ids: BTreeSet<PackageId>,
}

impl Linked {
    fn new() -> Result<Self> {
        // The crates are the same on every platform.
        let metadata = project::metadata(Some(platforms()[0].target))?;
        let mut left = vec![metadata.root_package().context("the root package")?.id.clone()];
        let mut linked = Self { metadata, ids: BTreeSet::new() };
        while let Some(id) = left.pop() {
            left.extend(linked.dependencies(&id));
            linked.ids.insert(id);
        }
        Ok(linked)
    }

    /// The dependencies that are linked, without those of build scripts.
    fn dependencies(&self, id: &PackageId) -> Vec<PackageId> {
        let nodes = self.metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let dependencies = nodes.filter(|node| node.id == *id).flat_map(|node| &node.deps);
        let normal = dependencies
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        normal.map(|dependency| dependency.pkg.clone()).collect()
    }

    /// Sorted by name.
    fn packages(&self) -> Vec<&Package> {
        let mut packages: Vec<_> = self.ids.iter().map(|id| &self.metadata[id]).collect();
        packages.sort_by_key(|package| &package.name);
        packages
    }
}

/// A package URL, which scanners use to look up vulnerabilities. The crate that is called pause on crates.io is
/// somebody else's.
fn purl(package: &Package) -> String {
    let kind = if package.source.is_some() { "cargo" } else { "generic" };
    format!("pkg:{kind}/{}@{}", package.name, package.version)
}

fn identifier(package: &Package) -> String {
    format!("SPDXRef-Package-{}-{}", package.name, package.version)
}

/// The SBOM in SPDX 2.3: the package pause, the crates in it, and the binaries that it is built as. It has what NTIA's
/// minimum elements want, such as a supplier of each package.
fn sbom(linked: &Linked, revision: &str) -> Result<Value> {
    let pause = linked.metadata.root_package().context("the root package")?;
    let name = format!("pause-{}", pause.version);
    let mut relationships = Vec::new();
    let mut relate = |from: &str, kind: &str, to: &str| {
        relationships.push(json!({
            "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to,
        }));
    };
    let (mut packages, mut files) = (Vec::new(), Vec::new());
    for package in linked.packages() {
        let licence = package.license.as_deref().context("a crate without a licence")?;
        // `/` is an old form of OR in Cargo.toml that SPDX does not know.
        let licence = licence.replace('/', " OR ");
        let (location, supplier) = match &package.source {
            Some(_) => {
                (format!("https://crates.io/crates/{}/{}", package.name, package.version), "Organization: crates.io")
            }
            None => ("NOASSERTION".into(), "Organization: pause"),
        };
        packages.push(json!({
            "SPDXID": identifier(package),
            "name": package.name,
            "versionInfo": package.version,
            "supplier": supplier,
            "downloadLocation": location,
            "filesAnalyzed": false,
            "licenseConcluded": licence,
            "licenseDeclared": licence,
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(package),
            }],
        }));
        for dependency in linked.dependencies(&package.id) {
            let to = identifier(&linked.metadata[&dependency]);
            relate(&identifier(package), "DEPENDS_ON", &to);
        }
    }
    for platform in platforms() {
        let content = platform.program()?;
        let id = format!("SPDXRef-File-{}", platform.file());
        files.push(json!({
            "SPDXID": id,
            "fileName": format!("./{}", platform.file()),
            "fileTypes": ["BINARY"],
            "checksums": [
                {"algorithm": "SHA1", "checksumValue": hex(&Sha1::digest(&content))},
                {"algorithm": "SHA256", "checksumValue": sha256(&content)},
            ],
        }));
        relate(&identifier(pause), "GENERATES", &id);
    }
    relate("SPDXRef-DOCUMENT", "DESCRIBES", &identifier(pause));
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "dataLicense": "CC0-1.0",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{revision}"),
        "creationInfo": {
            "created": project::time(project::epoch()?),
            "creators": ["Tool: scripts/release"],
        },
        "packages": packages,
        "files": files,
        "relationships": relationships,
        "annotations": [],
        "hasExtractedLicensingInfos": [],
        "snippets": [],
    }))
}
