//! `scripts/release`: makes the files of a release, signs them, and pushes them to a registry.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use oci_spec::distribution::Reference;
use serde_json::Value;
use xtask::platforms::{ONLY, platforms};
use xtask::project::{self, dist, read, say};

use crate::push::{push, want_new_skopeo};
use crate::release::{self, SBOM_TYPE, SIGNED, statement};
use crate::sign::{self, Key};
use crate::{image, setup, switch};

#[derive(clap::Args)]
pub struct Options {
    /// Signs with a private key in cosign's format (P-256); --source or `repository` in Cargo.toml
    /// says where the source code is
    #[arg(long, value_name = "KEY", requires = "passphrase_file")]
    sign: Option<PathBuf>,
    /// The passphrase of the key, in the first line of a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Pushes the image, under the version as its tag, with the SBOM and the provenance as its
    /// referrers; with --sign also the signatures. The name in the archives is that of --name
    #[arg(long, value_name = "REGISTRY/NAME", value_parser = parse_push)]
    push: Option<Reference>,
    /// Makes a key, PREFIX.key and PREFIX.pub, and nothing else
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "passphrase_file",
        conflicts_with_all = ["sign", "push", "name", "source"],
        value_parser = NonEmptyStringValueParser::new()
    )]
    new_key: Option<String>,
    #[command(flatten)]
    image: image::Options,
}

fn parse_push(name: &str) -> Result<Reference> {
    let name = format!("{name}:{}", project::package()?.version);
    let parsed = image::parse_name(&name).ok();
    parsed.context("it wants REGISTRY/NAME without a tag, as registry.example/pause")
}

/// Makes all files of a release.
pub fn release(options: &Options) -> Result<()> {
    let phrase = options.passphrase_file.as_deref().unwrap_or(Path::new(""));
    if let Some(prefix) = &options.new_key {
        sign::new_key(prefix, phrase)?;
        say(format!("{prefix}.key: keep it secret; {prefix}.pub: give it to whoever verifies"));
        return Ok(());
    }
    let image = &options.image;
    let (archive, source) = (image.name()?, image.source()?);
    let name = options.push.as_ref().unwrap_or(&archive);
    if options.sign.is_some() && source.is_none() {
        bail!(
            "a signed release says where its source code is: give --source URL, or a repository to Cargo.toml"
        );
    }
    let key = options.sign.as_deref().map(|key| Key::open(key, phrase)).transpose()?;
    release::revision()?;
    if let Ok(only) = std::env::var(ONLY) {
        say(format!("{ONLY}: only {only}; the other platforms are left out"));
    }
    if options.push.is_some() {
        setup::install_lists(&["push"])?;
        want_new_skopeo()?;
    }
    let images = crate::make_image(image)?;
    for platform in platforms() {
        if let Some(target) = &platform.switch {
            switch::build_static(platform, target)?;
        }
    }
    let names = release::Names { image: name, archive: &archive, source: source.as_deref() };
    let mut files = release::describe(&names, &images)?;
    files.push("SHA256SUMS".into());
    if let Some(key) = &key {
        files.extend(sign(key, &images)?);
    }
    if options.push.is_some() {
        push(name, &images, key.as_ref())?;
    }
    for file in files {
        say(format!("dist/{file}: {} bytes", fs::metadata(dist(&file))?.len()));
    }
    let version = project::package()?.version;
    say("next: (cd dist && sha256sum --check --strict SHA256SUMS)");
    say(format!(
        "next: git tag --sign v{version} -m 'pause {version}' && git push origin v{version}"
    ));
    match &options.push {
        Some(_) => {
            say(format!(
                "next: skopeo inspect docker://{name}, and attach the files above to the tag"
            ));
        }
        None => {
            say("next: scripts/release --sign KEY --passphrase-file FILE --push REGISTRY/NAME");
        }
    }
    Ok(())
}

/// Writes the public key, signatures and sigstore bundles. Returns their names.
fn sign(key: &Key, images: &[Value]) -> Result<Vec<String>> {
    let [sums, provenance] = SIGNED;
    let sbom: Value = serde_json::from_slice(&read("pause.spdx.json")?)?;
    let sbom = statement(images, SBOM_TYPE, &sbom)?;
    let bundle = |name: &str, content: Vec<u8>| (format!("{name}.sigstore.json"), content);
    let mut files = vec![
        ("pause.pub".to_string(), key.public()?.into_bytes()),
        bundle(sums, key.bundle_file(&read(sums)?)?),
        bundle(provenance, key.bundle_statement(&read(provenance)?)?),
        bundle("pause.spdx.json", key.bundle_statement(&sbom)?),
    ];
    for file in SIGNED {
        files.push((format!("{file}.sig"), (key.sign(&read(file)?) + "\n").into_bytes()));
    }
    let write = |(name, content): (String, Vec<u8>)| {
        project::replace(&dist(&name), &content)?;
        Ok(name)
    };
    files.into_iter().map(write).collect()
}
