//! The files beside the image in a release: the programs with symbols, an SBOM, a provenance
//! statement and checksums.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use platforms::{Platform, platforms};
use serde_json::json;
use sha1::{Digest, Sha1};
use spdx_rs::models::{
    Algorithm, Checksum, ExternalPackageReference, ExternalPackageReferenceCategory,
    FileInformation, FileType, PackageInformation, Relationship, RelationshipType, SPDX,
    SpdxExpression,
};

use crate::image::Options;
use crate::project::{self, hex, sha256};

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

/// Writes these files for the image that scripts/image left in `dist/`.
pub fn describe(options: &Options) -> Result<()> {
    let revision = revision()?;
    let mut files: Vec<_> = platforms().iter().map(|platform| platform.file()).collect();
    files.push("pause.oci.tar".into());
    for platform in platforms() {
        let name = debug_file(&platform);
        let target = project::root().join("target").join(platform.target);
        let path = target.join("release/pause");
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        project::replace(&name, &content)?;
        files.push(name);
    }
    let linked = Linked::new()?;

    let sbom = serde_json::to_vec_pretty(&serde_json::to_value(sbom(&linked, &revision)?)?)?;
    project::replace("pause.spdx.json", &sbom)?;
    let provenance = provenance(options, &linked, &revision, &files)?;
    project::replace(
        "pause.intoto.json",
        &serde_json::to_vec_pretty(&provenance)?,
    )?;

    files.extend(["pause.spdx.json".into(), "pause.intoto.json".into()]);
    let line = |file: &String| Ok(format!("{}  {file}\n", sha256(&read(file)?)));
    let sums: String = files.iter().map(line).collect::<Result<_>>()?;
    project::replace("SHA256SUMS", sums.as_bytes())?;
    // Signatures of other files would not match these.
    for file in ["pause.intoto.json.sig", "SHA256SUMS.sig", "pause.pub"] {
        let _ = std::fs::remove_file(project::dist(file));
    }
    Ok(())
}

/// The name of the program with symbols, for debuggers. It has no path of this machine in it.
fn debug_file(platform: &Platform) -> String {
    format!("{}.debug", platform.file())
}

/// The content of a file of `dist/`.
pub fn read(file: &str) -> Result<Vec<u8>> {
    let path = project::dist(file);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// pause and the crates that are linked into it, as cargo resolves them.
struct Linked {
    metadata: Metadata,
    ids: BTreeSet<PackageId>,
}

impl Linked {
    fn new() -> Result<Self> {
        // The crates are the same on every platform; a test of the SBOM checks that.
        let metadata = project::metadata(Some(platforms()[0].target))?;
        let mut linked = Self {
            metadata,
            ids: BTreeSet::new(),
        };
        let mut left = vec![
            linked
                .metadata
                .root_package()
                .context("the root package")?
                .id
                .clone(),
        ];
        while let Some(id) = left.pop() {
            left.extend(linked.dependencies(&id));
            linked.ids.insert(id);
        }
        Ok(linked)
    }

    /// The dependencies that are linked, without those of build scripts.
    fn dependencies(&self, id: &PackageId) -> Vec<PackageId> {
        let nodes = self
            .metadata
            .resolve
            .iter()
            .flat_map(|resolve| &resolve.nodes);
        let dependencies = nodes
            .filter(|node| node.id == *id)
            .flat_map(|node| &node.deps);
        let normal = dependencies.filter(|d| {
            d.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
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
fn sbom(linked: &Linked, revision: &str) -> Result<SPDX> {
    let pause = linked.metadata.root_package().context("the root package")?;
    let name = format!("pause-{}", pause.version);
    let mut sbom = SPDX::new(&name);
    let document = &mut sbom.document_creation_information;
    document.spdx_version = "SPDX-2.3".into();
    document.spdx_document_namespace = format!("https://spdx.org/spdxdocs/{name}-{revision}");
    document.creation_info.created = project::timestamp(project::epoch()?);
    document.creation_info.creators = vec!["Tool: scripts/release".into()];
    document.creation_info.license_list_version = None;

    let relation = |from: &str, kind, to: &str| Relationship::new(from, to, kind, None);
    for package in linked.packages() {
        let licence = package
            .license
            .as_deref()
            .context("a crate without a licence")?;
        // `/` is an old form of OR in Cargo.toml that SPDX does not know.
        let licence = SpdxExpression::parse(&licence.replace('/', " OR "))?;
        let mut information = PackageInformation::new(&package.name, &mut 0);
        information.package_spdx_identifier = identifier(package);
        information.package_version = Some(package.version.to_string());
        information.package_download_location = match &package.source {
            Some(_) => format!(
                "https://crates.io/crates/{}/{}",
                package.name, package.version
            ),
            None => "NOASSERTION".into(),
        };
        information.files_analyzed = Some(false);
        information.package_verification_code = None;
        information.concluded_license = Some(licence.clone());
        information.declared_license = Some(licence);
        information.copyright_text = Some("NOASSERTION".into());
        information.external_reference = vec![ExternalPackageReference::new(
            ExternalPackageReferenceCategory::PackageManager,
            "purl".into(),
            purl(package),
            None,
        )];
        sbom.package_information.push(information);
        for dependency in linked.dependencies(&package.id) {
            let to = identifier(&linked.metadata[&dependency]);
            sbom.relationships.push(relation(
                &identifier(package),
                RelationshipType::DependsOn,
                &to,
            ));
        }
    }
    for platform in platforms() {
        let (file, content) = (platform.file(), project::pause(&platform)?);
        let mut information = FileInformation::new(&format!("./{file}"), &mut 0);
        information.file_spdx_identifier = format!("SPDXRef-File-{file}");
        information.file_type = vec![FileType::Binary];
        information.file_checksum = vec![
            Checksum::new(Algorithm::SHA1, &hex(&Sha1::digest(&content))),
            Checksum::new(Algorithm::SHA256, &sha256(&content)),
        ];
        information.concluded_license = None;
        information.license_information_in_file = vec![];
        information.copyright_text = None;
        let id = information.file_spdx_identifier.clone();
        sbom.file_information.push(information);
        sbom.relationships.push(relation(
            "SPDXRef-DOCUMENT",
            RelationshipType::Describes,
            &id,
        ));
        sbom.relationships.push(relation(
            &id,
            RelationshipType::GeneratedFrom,
            &identifier(pause),
        ));
    }
    Ok(sbom)
}

/// The version that a compiler reports.
fn version(program: &str) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .current_dir(project::root())
        .output();
    let output = output.with_context(|| program.to_string())?;
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// An unsigned in-toto statement with the SLSA provenance predicate 1.0. It is plain JSON, as
/// no maintained crate has the predicate's types.
fn provenance(
    options: &Options,
    linked: &Linked,
    revision: &str,
    files: &[String],
) -> Result<serde_json::Value> {
    let subject =
        |file: &String| Ok(json!({"name": file, "digest": {"sha256": sha256(&read(file)?)}}));
    let subjects: Vec<_> = files.iter().map(subject).collect::<Result<_>>()?;
    let uri = match &options.source {
        Some(source) => format!("git+{source}"),
        None => "pkg:generic/pause".into(),
    };
    let source = json!({"uri": uri, "digest": {"gitCommit": revision}});
    let crates = linked
        .packages()
        .into_iter()
        .filter(|package| package.source.is_some());
    let crates = crates.map(|package| json!({"uri": purl(package)}));
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:x-pause:scripts/release",
                "externalParameters": {"name": options.name.whole(), "source": options.source},
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
