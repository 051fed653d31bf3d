//! Signs the files of a release, and pushes the image to a registry. The SBOM and the provenance
//! go there as artifacts that refer to the image (referrers of the OCI distribution
//! specification).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xtask::project::{self, dist, output, read, say};

use crate::image::{self, Blobs, INDEX, MANIFEST};
use crate::sign::{self, Key};
use crate::{release, setup};

#[derive(clap::Args)]
pub struct Options {
    /// Signs with a private key in cosign's format (sigstore)
    #[arg(long, value_name = "KEY", requires = "passphrase_file")]
    sign: Option<PathBuf>,
    /// The passphrase of the key, in the first line of a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Pushes the image, under the version as its tag, with the SBOM and the provenance as its
    /// referrers; with --sign also the signature
    #[arg(long, value_name = "REGISTRY/NAME", value_parser = parse_push)]
    push: Option<String>,
    /// Makes a key, PREFIX.key and PREFIX.pub, and nothing else
    #[arg(long, value_name = "PREFIX", requires = "passphrase_file")]
    new_key: Option<String>,
    #[command(flatten)]
    image: image::Options,
}

fn parse_push(name: &str) -> Result<String> {
    let known = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let (registry, path) = name.split_once('/').unwrap_or_default();
    let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let host_is = |letter: char| known(letter) || ".-".contains(letter);
    let path_is = |letter: char| known(letter) || "._-/".contains(letter);
    let right = [host, port, path].iter().all(|part| !part.is_empty())
        && host.chars().all(host_is)
        && port.chars().all(|letter| letter.is_ascii_digit())
        && path.chars().all(path_is);
    if !right {
        bail!("it wants REGISTRY/NAME without a tag, as registry.example/pause");
    }
    Ok(name.into())
}

/// Makes all files of a release.
pub fn release(options: &Options) -> Result<()> {
    let phrase = options.passphrase_file.as_deref().unwrap_or(Path::new(""));
    if let Some(prefix) = &options.new_key {
        sign::new_key(prefix, phrase)?;
        say(format!("{prefix}.key: keep it secret; {prefix}.pub: give it to whoever verifies"));
        return Ok(());
    }
    if options.push.is_some() {
        setup::install_lists(&["push"])?;
    }
    if options.push.is_some() && options.sign.is_some() && !skopeo_signs()? {
        bail!(
            "this skopeo cannot sign by sigstore: use that of Debian 13, or any of version 1.13 or later"
        );
    }
    let key = options.sign.as_deref().map(|key| Key::open(key, phrase)).transpose()?;
    release::revision()?;
    crate::make_image(&options.image)?;
    let mut files = release::describe(&options.image)?;
    files.push("SHA256SUMS".into());
    if let Some(key) = key {
        let signed = ["SHA256SUMS", "pause.intoto.json"];
        key.sign(&dist("pause.pub"), &signed.map(dist))?;
        files.extend(["SHA256SUMS.sig", "pause.intoto.json.sig", "pause.pub"].map(String::from));
    }
    let version = project::package()?.version.to_string();
    if let Some(name) = &options.push {
        push(name, &version, options.sign.as_deref(), phrase)?;
    }
    for file in files {
        say(format!("dist/{file}: {} bytes", fs::metadata(dist(&file))?.len()));
    }
    say("next: (cd dist && sha256sum --check --strict SHA256SUMS)");
    say(format!(
        "next: git tag --sign v{version} -m 'pause {version}' && git push origin v{version}"
    ));
    match &options.push {
        Some(name) => say(format!(
            "next: skopeo inspect docker://{name}:{version}, and attach the files above to the tag"
        )),
        None => {
            say("next: scripts/release --sign KEY --passphrase-file FILE --push REGISTRY/NAME");
        }
    }
    Ok(())
}

/// Whether this skopeo is built with sigstore, as that of Debian 12 is not.
fn skopeo_signs() -> Result<bool> {
    if !output(Command::new("skopeo").args(["copy", "--help"]))?
        .contains("--sign-by-sigstore-private-key")
    {
        return Ok(false);
    }
    let which = output(Command::new("sh").args(["-c", "command -v skopeo"]))?;
    let program = fs::read(which)?;
    let refusal = b"sigstore disabled";
    Ok(!program.windows(refusal.len()).any(|window| window == refusal))
}

/// Pushes the image, and what refers to it.
fn push(name: &str, version: &str, key: Option<&Path>, phrase: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let registries = work.path().join("registries.d");
    fs::create_dir(&registries)?;
    // Signatures are images beside the image, as cosign keeps them.
    let attachments = "default-docker:\n  use-sigstore-attachments: true\n";
    fs::write(registries.join("default.yaml"), attachments)?;
    let copy = |from: String, tag: &str, key: Option<&Path>| {
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("--registries.d").arg(&registries);
        skopeo.args(["copy", "--quiet", "--all", "--preserve-digests"]);
        if let Some(key) = key {
            skopeo.arg("--sign-by-sigstore-private-key").arg(key);
            skopeo.arg("--sign-passphrase-file").arg(phrase);
        }
        output(skopeo.args([from, format!("docker://{name}:{tag}")]))
            .with_context(|| format!("cannot push {name}:{tag}"))
    };
    copy(format!("oci-archive:{}", dist("pause.oci.tar").display()), version, key)?;
    say(format!("{name}:{version}{}", if key.is_some() { ", signed" } else { "" }));
    // The tag under which a registry without the referrers API is asked for them.
    let subject = subject()?;
    let tag = subject["digest"].as_str().context("a digest")?.replace(':', "-");
    let layout = work.path().join("referrers");
    write_referrers(&layout, &subject)?;
    copy(format!("oci:{}", layout.display()), &tag, None)?;
    say(format!("{name}:{tag}: the SBOM and the provenance, which refer to the image"));
    Ok(())
}

/// The descriptor of the index in the archive that scripts/image made.
fn subject() -> Result<Value> {
    let file = fs::File::open(dist("pause.oci.tar"))?;
    for entry in tar::Archive::new(file).entries()? {
        let entry = entry?;
        if entry.path()? == Path::new("index.json") {
            let mut top: Value = serde_json::from_reader(entry)?;
            let mut index = top["manifests"][0].take();
            index.as_object_mut().context("an index")?.remove("annotations");
            return Ok(index);
        }
    }
    bail!("dist/pause.oci.tar has no index.json")
}

/// Writes an OCI layout with the SBOM and the provenance as artifacts that refer to `subject`.
fn write_referrers(folder: &Path, subject: &Value) -> Result<()> {
    let mut blobs = Blobs::default();
    let mut artifact = |kind: &str, files: &[&str]| -> Result<Value> {
        let mut layers = Vec::new();
        for file in files {
            let mut layer = blobs.add(kind, read(file)?);
            layer["annotations"] = json!({"org.opencontainers.image.title": file});
            layers.push(layer);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": blobs.add("application/vnd.oci.empty.v1+json", b"{}".to_vec()),
            "layers": layers,
            "subject": subject,
        });
        let mut descriptor = blobs.add_json(MANIFEST, &manifest);
        descriptor["artifactType"] = kind.into();
        Ok(descriptor)
    };
    let provenance = ["pause.intoto.json", "pause.intoto.json.sig"];
    let signed = dist(provenance[1]).exists();
    let manifests = [
        artifact("application/spdx+json", &["pause.spdx.json"])?,
        artifact("application/vnd.in-toto+json", &provenance[..1 + usize::from(signed)])?,
    ];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = blobs.add_json(INDEX, &index);
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    for (path, content) in blobs.into_layout(&json!({"schemaVersion": 2, "manifests": [index]})) {
        fs::write(folder.join(path), content)?;
    }
    Ok(())
}
