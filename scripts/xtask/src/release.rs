//! The files beside the image in a release: the programs with symbols, an SBOM, a provenance
//! statement and checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use oci_spec::distribution::Reference;
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use xtask::platforms::platforms;
use xtask::project::{self, hex, read, sha256};

use crate::image::hex_digest;

/// The commit of a release. All files must be committed.
pub fn revision() -> Result<String> {
    match project::revision()? {
        None => bail!(
            "a release is that of a commit, and this is no git clone; see scripts/image --help"
        ),
        Some(revision) if revision.ends_with("-dirty") => {
            bail!("a release is that of a commit: commit or stash what was changed")
        }
        Some(revision) => Ok(revision),
    }
}

/// The files that --sign signs.
pub const SIGNED: [&str; 2] = ["SHA256SUMS", "pause.intoto.json"];

/// Removes the checksums and signatures of an earlier release: they would not match what is made now.
pub fn forget() {
    for file in [SIGNED[0], SIGNED[1], "pause.spdx.json"] {
        for end in ["", ".sig", ".sigstore.json"] {
            let _ = std::fs::remove_file(project::dist(&format!("{file}{end}")));
        }
    }
    let _ = std::fs::remove_file(project::dist("pause.pub"));
}

/// What a release is called, and where its source code is.
pub struct Names<'a> {
    /// The image: as it is pushed, or as the archives have it.
    pub image: &'a Reference,
    /// The image in the archives.
    pub archive: &'a Reference,
    pub source: Option<&'a str>,
}

/// An in-toto statement about the image: `images` are the descriptors of its index and manifests.
pub fn statement(images: &[Value], predicate_type: &str, predicate: &Value) -> Result<Vec<u8>> {
    let subject = |image| Ok(json!({"digest": {"sha256": hex_digest(image)?}}));
    let subjects: Vec<_> = images.iter().map(subject).collect::<Result<_>>()?;
    let statement = json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    Ok(serde_json::to_vec(&statement)?)
}

/// The types of what statements say: a provenance, and an SBOM.
pub const PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";
pub const SBOM_TYPE: &str = "https://spdx.dev/Document";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Writes these files for the image that scripts/image left in `dist/`, and returns the names of
/// all that have a checksum. `images` are the descriptors of the index and the manifests.
pub fn describe(names: &Names, images: &[Value]) -> Result<Vec<String>> {
    let revision = revision()?;
    let mut files = vec!["pause.oci.tar".to_string()];
    for platform in platforms() {
        // The program with symbols, for debuggers. It has no path of this machine in it.
        let symbols = format!("{}.debug", platform.file());
        let linked = platform.linked();
        let content = std::fs::read(&linked).with_context(|| linked.display().to_string())?;
        project::replace(&project::dist(&symbols), &content)?;
        files.extend([platform.file(), platform.archive(), symbols]);
        files.extend(platform.switch.is_some().then(|| platform.switch_file()));
    }
    let linked = Linked::new()?;
    let write = |name: &str, document: Value| {
        project::replace(&project::dist(name), &serde_json::to_vec_pretty(&document)?)
    };
    write("pause.spdx.json", sbom(&linked, &revision)?)?;
    let subjects = subjects(names.image, images, &files)?;
    write("pause.intoto.json", provenance(names, &linked, &revision, &subjects)?)?;
    files.extend(["pause.spdx.json".into(), "pause.intoto.json".into()]);
    let line = |file: &String| Ok(format!("{}  {file}\n", sha256(&read(file)?)));
    let sums: String = files.iter().map(line).collect::<Result<_>>()?;
    project::replace(&project::dist("SHA256SUMS"), sums.as_bytes())?;
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

/// A package URL, which scanners use to look up vulnerabilities. The crate that is called pause on
/// crates.io is somebody else's.
fn purl(package: &Package) -> String {
    let kind = if package.source.is_some() { "cargo" } else { "generic" };
    format!("pkg:{kind}/{}@{}", package.name, package.version)
}

fn identifier(package: &Package) -> String {
    format!("SPDXRef-Package-{}-{}", package.name, package.version)
}

/// The SBOM in SPDX 2.3: the package pause, the crates in it, and the binaries that it is built as.
/// It has what NTIA's minimum elements want, such as a supplier of each package.
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
            Some(_) => (
                format!("https://crates.io/crates/{}/{}", package.name, package.version),
                "Organization: crates.io",
            ),
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

/// The version that a compiler of the toolchain of the project reports.
pub fn compiler(program: &str) -> Result<String> {
    project::output(Command::new(program).arg("--version").current_dir(project::root()))
}

/// What the provenance is of: files, the index and each manifest. A package URL tells a manifest from
/// the others; tools look for the digest.
fn subjects(name: &Reference, images: &[Value], files: &[String]) -> Result<Vec<Value>> {
    let of = |name: String, sha256: &str| json!({"name": name, "digest": {"sha256": sha256}});
    let repository = format!("{}/{}", name.registry(), name.repository());
    let image = |image: &Value| {
        let architecture = image["platform"]["architecture"].as_str();
        let arch = architecture.map(|arch| format!("arch={arch}&")).unwrap_or_default();
        let last = repository.rsplit('/').next().unwrap_or_default();
        let tag = name.tag().unwrap_or_default();
        let purl = format!("pkg:oci/{last}?{arch}repository_url={repository}&tag={tag}");
        Ok(of(purl, hex_digest(image)?))
    };
    let mut subjects: Vec<_> = images.iter().map(image).collect::<Result<_>>()?;
    for file in files {
        subjects.push(of(file.clone(), &sha256(&read(file)?)));
    }
    Ok(subjects)
}

/// The checksums of the crates in Cargo.lock, by name and version.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let text = std::fs::read_to_string(project::root().join("Cargo.lock"))?;
    let Lock { package } = toml::from_str(&text).context("Cargo.lock")?;
    let known = |one: Locked| Some(((one.name, one.version), one.checksum?));
    Ok(package.into_iter().filter_map(known).collect())
}

/// An in-toto statement with the SLSA provenance predicate 1.0. It is plain JSON, as no maintained
/// crate has the predicate's types. docs/provenance.md says what each field means.
fn provenance(names: &Names, linked: &Linked, revision: &str, subjects: &[Value]) -> Result<Value> {
    let version = &linked.metadata.root_package().context("the root package")?.version;
    let source = names.source;
    // Where a browser finds a file, at the hosts that have a page for each.
    let page = |path: &str| match source {
        Some(source) if source.starts_with("http") => {
            format!("{}/blob/v{version}/{path}", source.trim_end_matches(".git"))
        }
        _ => format!("urn:x-pause:{path}"),
    };
    let uri = match source {
        Some(source) if source.starts_with("git") => source.into(),
        Some(source) => format!("git+{source}"),
        None => "pkg:generic/pause".into(),
    };
    let mut materials = vec![json!({"uri": uri, "digest": {"gitCommit": revision}})];
    let checksums = checksums()?;
    for package in linked.packages().into_iter().filter(|package| package.source.is_some()) {
        let checksum = checksums.get(&(package.name.to_string(), package.version.to_string()));
        let checksum = checksum.with_context(|| format!("Cargo.lock has no {}", package.name))?;
        materials.push(json!({"uri": purl(package), "digest": {"sha256": checksum}}));
    }
    Ok(json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": page("docs/provenance.md"),
                "externalParameters": {
                    "name": names.image.whole(),
                    "archive": names.archive.whole(),
                    "source": source,
                },
                "internalParameters": {"SOURCE_DATE_EPOCH": project::epoch()?},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {
                "id": page("scripts/release"),
                "version": {"rustc": compiler("rustc")?, "cargo": compiler("cargo")?},
            }},
        },
    }))
}
