//! The files beside the image in a release: the programs with symbols, an SBOM, a provenance
//! statement and checksums.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use xtask::platforms::platforms;
use xtask::project::{self, hex, read, sha256};

use crate::image::Options;

/// The commit of a release. All files must be committed.
pub fn revision() -> Result<String> {
    match project::revision() {
        None => bail!("a release is that of a commit, and this is no git clone"),
        Some(revision) if revision.ends_with("-dirty") => {
            bail!("a release is that of a commit: commit or stash what was changed")
        }
        Some(revision) => Ok(revision),
    }
}

/// Writes these files for the image that scripts/image left in `dist/`, and returns the names of
/// all that have a checksum.
pub fn describe(options: &Options) -> Result<Vec<String>> {
    let revision = revision()?;
    let mut files: Vec<_> = platforms().iter().map(|platform| platform.file()).collect();
    files.push("pause.oci.tar".into());
    for platform in platforms() {
        // The program with symbols, for debuggers. It has no path of this machine in it.
        let name = format!("{}.debug", platform.file());
        let linked = platform.linked();
        let content = std::fs::read(&linked).with_context(|| linked.display().to_string())?;
        project::replace(&project::dist(&name), &content)?;
        files.push(name);
    }
    let linked = Linked::new()?;
    let write = |name: &str, document: Value| {
        project::replace(&project::dist(name), &serde_json::to_vec_pretty(&document)?)
    };
    write("pause.spdx.json", sbom(&linked, &revision)?)?;
    write("pause.intoto.json", provenance(options, &linked, &revision, &files)?)?;
    files.extend(["pause.spdx.json".into(), "pause.intoto.json".into()]);
    let line = |file: &String| Ok(format!("{}  {file}\n", sha256(&read(file)?)));
    let sums: String = files.iter().map(line).collect::<Result<_>>()?;
    project::replace(&project::dist("SHA256SUMS"), sums.as_bytes())?;
    // Signatures of other files would not match these.
    for file in ["pause.intoto.json.sig", "SHA256SUMS.sig", "pause.pub"] {
        let _ = std::fs::remove_file(project::dist(file));
    }
    Ok(files)
}

/// pause and the crates that are linked into it, as cargo resolves them.
struct Linked {
    metadata: Metadata,
    ids: BTreeSet<PackageId>,
}

impl Linked {
    fn new() -> Result<Self> {
        // The crates are the same on every platform.
        let metadata = project::metadata(Some(&platforms()[0].target))?;
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
        let normal = dependencies.filter(|dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
        });
        normal.map(|dependency| dependency.pkg.clone()).collect()
    }

    /// Sorted by name.
    fn packages(&self) -> Vec<&Package> {
        let mut packages: Vec<_> = self.ids.iter().map(|id| &self.metadata[id]).collect();
        packages.sort_by_key(|package| &package.name);
        packages
    }
}

/// A package URL, which scanners use to look up vulnerabilities.
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn identifier(package: &Package) -> String {
    format!("SPDXRef-Package-{}-{}", package.name, package.version)
}

/// The SBOM in SPDX 2.3: the binaries, and the crates that they contain.
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
        let location = match &package.source {
            Some(_) => format!("https://crates.io/crates/{}/{}", package.name, package.version),
            None => "NOASSERTION".into(),
        };
        packages.push(json!({
            "SPDXID": identifier(package),
            "name": package.name,
            "versionInfo": package.version,
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
        let content = project::pause(platform)?;
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
        relate("SPDXRef-DOCUMENT", "DESCRIBES", &id);
        relate(&id, "GENERATED_FROM", &identifier(pause));
    }
    let created = project::timestamp(project::epoch()?);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "dataLicense": "CC0-1.0",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{revision}"),
        "creationInfo": {
            "created": created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
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

/// The version that a compiler reports.
fn version(program: &str) -> Result<String> {
    project::output(Command::new(program).arg("--version").current_dir(project::root()))
}

/// An unsigned in-toto statement with the SLSA provenance predicate 1.0. It is plain JSON, as
/// no maintained crate has the predicate's types.
fn provenance(
    options: &Options,
    linked: &Linked,
    revision: &str,
    files: &[String],
) -> Result<Value> {
    let subject =
        |file: &String| Ok(json!({"name": file, "digest": {"sha256": sha256(&read(file)?)}}));
    let subjects: Vec<_> = files.iter().map(subject).collect::<Result<_>>()?;
    let uri = match &options.source()? {
        Some(source) => format!("git+{source}"),
        None => "pkg:generic/pause".into(),
    };
    let source = json!({"uri": uri, "digest": {"gitCommit": revision}});
    let packages = linked.packages().into_iter();
    let crates = packages.filter(|package| package.source.is_some());
    let crates = crates.map(|package| json!({"uri": purl(package)}));
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:x-pause:scripts/release",
                "externalParameters": {"name": options.name()?.whole(), "source": options.source()?},
                "internalParameters": {"SOURCE_DATE_EPOCH": project::epoch()?},
                "resolvedDependencies": std::iter::once(source).chain(crates).collect::<Vec<_>>(),
            },
            "runDetails": {"builder": {
                "id": "urn:x-pause:scripts/release",
                "version": {"rustc": version("rustc")?, "cargo": version("cargo")?},
            }},
        },
    }))
}
