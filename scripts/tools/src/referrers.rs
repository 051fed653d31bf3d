//! The SBOM and the provenance as artifacts that refer to the image in a registry (referrers of
//! the OCI distribution specification).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, ImageManifestBuilder, MediaType};
use serde_json::json;

use crate::image::{descriptor, json_bytes};
use crate::project;
use crate::release::read;

/// An OCI layout in a folder.
struct Layout(PathBuf);

impl Layout {
    fn add(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor> {
        let descriptor = descriptor(media_type, content)?;
        let path = self
            .0
            .join("blobs/sha256")
            .join(descriptor.digest().digest());
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(descriptor)
    }

    /// Adds files of `dist/` as the layers of an artifact that refers to `subject`.
    fn artifact(&self, kind: &str, files: &[&str], subject: &Descriptor) -> Result<Descriptor> {
        let kind = MediaType::Other(kind.into());
        let mut layers = Vec::new();
        for file in files {
            let mut layer = self.add(kind.clone(), &read(file)?)?;
            let title = ("org.opencontainers.image.title".into(), file.to_string());
            layer.set_annotations(Some([title].into()));
            layers.push(layer);
        }
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .artifact_type(kind.clone())
            .config(self.add(MediaType::EmptyJSON, b"{}")?)
            .layers(layers)
            .subject(subject.clone())
            .build()?;
        let mut manifest = self.add(MediaType::ImageManifest, &json_bytes(&manifest)?)?;
        manifest.set_artifact_type(Some(kind));
        Ok(manifest)
    }
}

/// The descriptor of the index in the archive that scripts/image made.
fn subject() -> Result<Descriptor> {
    let path = project::dist("pause.oci.tar");
    let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
    for entry in tar::Archive::new(file).entries()? {
        let entry = entry?;
        if entry.path()? == Path::new("index.json") {
            let top = ImageIndex::from_reader(entry)?;
            let mut index = top.manifests().first().context("an index")?.clone();
            index.set_annotations(None);
            return Ok(index);
        }
    }
    bail!("{} has no index.json", path.display())
}

/// Writes an OCI layout with these artifacts to a new folder, and prints the tag under which a
/// registry without the referrers API is asked for them: that of the image's digest.
pub fn write(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let folder = arguments.next().context("referrers wants a folder")?;
    let layout = Layout(folder.into());
    fs::create_dir_all(layout.0.join("blobs/sha256"))?;
    let subject = subject()?;
    let mut provenance = vec!["pause.intoto.json"];
    if project::dist("pause.intoto.json.sig").exists() {
        provenance.push("pause.intoto.json.sig");
    }
    let artifacts = [
        layout.artifact("application/spdx+json", &["pause.spdx.json"], &subject)?,
        layout.artifact("application/vnd.in-toto+json", &provenance, &subject)?,
    ];
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(artifacts)
        .build()?;
    let index = layout.add(MediaType::ImageIndex, &json_bytes(&index)?)?;
    let top = ImageIndexBuilder::default()
        .schema_version(2u32)
        .manifests([index])
        .build()?;
    fs::write(layout.0.join("index.json"), json_bytes(&top)?)?;
    let version = json!({"imageLayoutVersion": "1.0.0"});
    fs::write(layout.0.join("oci-layout"), json_bytes(&version)?)?;
    println!("{}", subject.digest().to_string().replace(':', "-"));
    Ok(())
}
