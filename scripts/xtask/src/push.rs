//! Pushes a release to a registry: the image, and what refers to its index and to each manifest
//! (referrers of the OCI distribution specification). What is there already stays as it is: a signature
//! by the same key is the same each time, and so are the digests of what is pushed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;
use serde_json::{Value, json};
use xtask::project::{dist, output, read, say, sha256};

use crate::image::{Blobs, CONFIG, INDEX, MANIFEST, hex_digest};
use crate::release::{PROVENANCE_TYPE, SBOM_TYPE, SIGNED, statement};
use crate::sign::{BUNDLE, Key, STATEMENT};

/// The media type of the SBOM.
const SBOM: &str = "application/spdx+json";
/// The media type of a detached signature: of SHA-256, by ECDSA, in DER, in base64.
const SIGNATURE: &str = "application/vnd.pause.signature.v1+base64";

/// The repository in a registry, by skopeo, which knows the user's credentials.
struct Repository {
    /// With the transport, as skopeo takes it.
    name: String,
    /// The tags that are there. What is there is never taken for missing, whatever error a registry gives.
    tags: Vec<String>,
}

/// A command of skopeo, which waits for a registry for ten minutes at most.
fn skopeo(arguments: &[&str]) -> Command {
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("--command-timeout=10m").args(arguments);
    skopeo
}

impl Repository {
    fn open(name: &Reference) -> Result<Self> {
        let name = format!("docker://{}/{}", name.registry(), name.repository());
        let tags = match output(skopeo(&["list-tags"]).arg(&name)) {
            Ok(list) => {
                let list: Value = serde_json::from_str(&list).context("skopeo list-tags")?;
                serde_json::from_value(list["Tags"].clone()).unwrap_or_default()
            }
            // As the registries say it of a repository into which nothing was pushed yet.
            Err(error) => {
                let text = error.to_string();
                let (_, reason) = text.split_once("fetching tags list").unwrap_or_default();
                let reason = reason.trim_start_matches([':', ' ']);
                let missing = ["repository name not known", "name unknown", "404 (Not Found)"];
                if !missing.iter().any(|start| reason.starts_with(start)) {
                    return Err(error.context(format!("cannot list what is in {name}")));
                }
                Vec::new()
            }
        };
        Ok(Self { name, tags })
    }

    /// Copies something to a tag or a digest (`:TAG`, `@DIGEST`) of the repository.
    fn push(&self, from: &str, to: &str, options: &[&str]) -> Result<()> {
        let mut skopeo = skopeo(&["copy", "--quiet", "--preserve-digests"]);
        let to = format!("{}{to}", self.name);
        let pushed = output(skopeo.args(options).args([from, &to]));
        pushed.map(drop).with_context(|| format!("cannot push {to}"))
    }

    /// Pushes the one manifest or index at the top of a layout.
    fn push_blobs(&self, blobs: Blobs, top: &Value, to: &str, options: &[&str]) -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("blobs/sha256"))?;
        let top = json!({"schemaVersion": 2, "manifests": [top]});
        for (path, content) in blobs.into_layout(&top) {
            fs::write(folder.path().join(path), content)?;
        }
        self.push(&format!("oci:{}", folder.path().display()), to, options)
    }

    /// The manifest or the index at a tag, if there is one.
    fn get(&self, tag: &str, options: &[&str]) -> Result<Option<String>> {
        if !self.tags.iter().any(|one| one == tag) {
            return Ok(None);
        }
        let name = format!("{}:{tag}", self.name);
        let read = output(skopeo(&["inspect", "--raw"]).args(options).arg(&name));
        read.map(Some).with_context(|| format!("cannot read {name}"))
    }

    /// The same as JSON, which has to have a list in a field.
    fn get_json(&self, tag: &str, options: &[&str], list: &str) -> Result<Option<Value>> {
        let Some(text) = self.get(tag, options)? else { return Ok(None) };
        match serde_json::from_str::<Value>(&text) {
            Ok(json) if json.pointer(list).is_some_and(Value::is_array) => Ok(Some(json)),
            _ => bail!(
                "{}:{tag} is none of cosign's or of oras': see what it is, and delete it",
                self.name
            ),
        }
    }
}

/// Ends with one line if skopeo drops a field of an index that is new in version 1.1 of the OCI
/// specification, as that of Debian 12 does.
pub fn want_new_skopeo() -> Result<()> {
    let mut blobs = Blobs::default();
    let mut manifest = blobs.add_json(MANIFEST, &json!({}));
    manifest["artifactType"] = SBOM.into();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    let index = blobs.add_json(INDEX, &index);
    let folder = tempfile::tempdir()?;
    let there = Repository { name: format!("oci:{}", folder.path().display()), tags: vec![] };
    match there.push_blobs(blobs, &index, ":test", &["--multi-arch", "index-only"]) {
        Err(error) if format!("{error:#}").contains("must be converted") => {
            bail!(
                "this skopeo knows no OCI 1.1: use that of Debian 13, or another of 1.18 or later"
            )
        }
        done => done,
    }
}

/// Pushes the image, and what refers to its index and to each manifest: `images` are their descriptors.
pub fn push(name: &Reference, images: &[Value], key: Option<&Key>) -> Result<()> {
    let there = Repository::open(name)?;
    let tag = name.tag().context("a tag")?;
    match there.get(tag, &[])? {
        None => {
            let archive = format!("oci-archive:{}", dist("pause.oci.tar").display());
            there.push(&archive, &format!(":{tag}"), &["--all"])?;
            say(format!("{name}: pushed"));
        }
        Some(index) if sha256(index.as_bytes()) == hex_digest(&images[0])? => {
            say(format!("{name}: it is there already"));
        }
        Some(_) => bail!(
            "{name} is another image, and is not replaced: raise the version, or delete the tag"
        ),
    }
    let referrers = referrers(images, key)?;
    // A registry has no transactions: somebody else who pushes at the same time may replace what was
    // pushed here. It is read again until nothing is missing.
    for _ in 0..5 {
        let there = Repository::open(name)?;
        let new = push_referrers(&there, images, &referrers)?;
        say(format!("{name}: {new} new referrers, of the index and of each manifest"));
        let mut signatures = 0;
        for image in images {
            if let Some(key) = key {
                signatures += push_signature(&there, name, hex_digest(image)?, key)?;
            }
        }
        if key.is_some() {
            say(format!("{name}: {signatures} new signatures, of the index and of each manifest"));
        }
        if new + signatures == 0 {
            return Ok(());
        }
    }
    bail!("{name}: somebody else pushes at the same time; run this again when they have ended")
}

/// The fields that each descriptor has.
fn bare(descriptor: &Value) -> Value {
    json!({
        "mediaType": descriptor["mediaType"],
        "digest": descriptor["digest"],
        "size": descriptor["size"],
    })
}

/// What refers to the image: an artifact of files.
struct Referrer {
    kind: &'static str,
    /// The predicate of the statement in a sigstore bundle.
    predicate: Option<&'static str>,
    /// The media type, the name, and the content of each file.
    files: Vec<(&'static str, &'static str, Vec<u8>)>,
}

/// The SBOM and the provenance and, as cosign keeps them, both of them and a signature of the image in
/// sigstore bundles.
fn referrers(images: &[Value], key: Option<&Key>) -> Result<Vec<Referrer>> {
    let file = |kind, name| Ok::<_, anyhow::Error>((kind, name, read(name)?));
    let of = |kind, predicate, files| Referrer { kind, predicate, files };
    let mut provenance = vec![file(STATEMENT, SIGNED[1])?];
    let sbom = of(SBOM, None, vec![file(SBOM, "pause.spdx.json")?]);
    let Some(key) = key else { return Ok(vec![sbom, of(STATEMENT, None, provenance)]) };
    provenance.push(file(SIGNATURE, "pause.intoto.json.sig")?);
    let signature = "https://sigstore.dev/cosign/sign/v1";
    let signed = key.bundle_statement(&statement(images, signature, &json!({}))?)?;
    let bundle = |predicate, file| of(BUNDLE, Some(predicate), vec![file]);
    Ok(vec![
        sbom,
        of(STATEMENT, None, provenance),
        bundle(PROVENANCE_TYPE, file(BUNDLE, "pause.intoto.json.sigstore.json")?),
        bundle(SBOM_TYPE, file(BUNDLE, "pause.spdx.json.sigstore.json")?),
        bundle(signature, (BUNDLE, "pause.sigstore.json", signed)),
    ])
}

/// Adds an artifact that refers to an image, and returns its descriptor.
fn refer(referrer: &Referrer, image: &Value, blobs: &mut Blobs) -> Value {
    let mut layers = Vec::new();
    for (kind, name, content) in &referrer.files {
        let mut layer = blobs.add(kind, content.clone());
        layer["annotations"] = json!({"org.opencontainers.image.title": name});
        layers.push(layer);
    }
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": referrer.kind,
        "config": blobs.add("application/vnd.oci.empty.v1+json", b"{}".to_vec()),
        "layers": layers,
        "subject": bare(image),
    });
    if let Some(predicate) = referrer.predicate {
        manifest["annotations"] = json!({
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate,
        });
    }
    // A list of referrers has these fields too, as far as the manifest has them.
    let mut descriptor = blobs.add_json(MANIFEST, &manifest);
    for field in ["artifactType", "annotations"] {
        if let Some(value) = manifest.get(field) {
            descriptor[field] = value.clone();
        }
    }
    descriptor
}

/// Pushes what refers to each image and is not there yet. Returns how many that are.
fn push_referrers(there: &Repository, images: &[Value], referrers: &[Referrer]) -> Result<usize> {
    let (mut blobs, mut new, mut indexes) = (Blobs::default(), Vec::new(), Vec::new());
    for image in images {
        // The tag under which a registry without the referrers API is asked for them. Others may have
        // added theirs.
        let tag = format!("sha256-{}", hex_digest(image)?);
        let empty = || json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
        let mut index = there.get_json(&tag, &[], "/manifests")?.unwrap_or_else(empty);
        let list = index["manifests"].as_array_mut().context("a list")?;
        let before = list.len();
        for referrer in referrers {
            let descriptor = refer(referrer, image, &mut blobs);
            if !list.iter().any(|one| one["digest"] == descriptor["digest"]) {
                new.push(bare(&descriptor));
                list.push(descriptor);
            }
        }
        if list.len() > before {
            indexes.push((tag, index));
        }
    }
    let count = new.len();
    if count > 0 {
        // All in one index, without a tag.
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": new});
        let list = blobs.add_json(INDEX, &list);
        there.push_blobs(blobs, &list, &format!("@sha256:{}", hex_digest(&list)?), &["--all"])?;
    }
    for (tag, index) in indexes {
        let mut blobs = Blobs::default();
        let index = blobs.add_json(INDEX, &index);
        there.push_blobs(blobs, &index, &format!(":{tag}"), &["--multi-arch", "index-only"])?;
    }
    Ok(count)
}

/// Signs an image as cosign did before 3.0, and as podman, skopeo and CRI-O look for it: by a layer of
/// the image at the tag `sha256-<digest>.sig`. Signatures of others stay. Returns how many are new.
fn push_signature(there: &Repository, name: &Reference, digest: &str, key: &Key) -> Result<usize> {
    let tag = format!("sha256-{digest}.sig");
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": name.whole()},
            "image": {"docker-manifest-digest": format!("sha256:{digest}")},
            "type": "cosign container image signature",
        },
        "optional": {},
    });
    let mut blobs = Blobs::default();
    let payload = payload.to_string().into_bytes();
    let signature = key.sign(&payload);
    let mut layer = blobs.add("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let empty = || json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []});
    let mut manifest = there.get_json(&tag, &[], "/layers")?.unwrap_or_else(empty);
    let layers = manifest["layers"].as_array_mut().context("a list")?;
    let is_ours = |one: &Value| {
        one["digest"] == layer["digest"] && one["annotations"] == layer["annotations"]
    };
    if layers.iter().any(is_ours) {
        return Ok(0);
    }
    let mut config = match layers.len() {
        0 => json!({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}}),
        _ => {
            let config = there.get_json(&tag, &["--config"], "/rootfs/diff_ids")?;
            config.context("the configuration of a signature")?
        }
    };
    let ids = config["rootfs"]["diff_ids"].as_array_mut().context("a list")?;
    ids.push(layer["digest"].clone());
    layers.push(layer);
    manifest["config"] = blobs.add_json(CONFIG, &config);
    let manifest = blobs.add_json(MANIFEST, &manifest);
    there.push_blobs(blobs, &manifest, &format!(":{tag}"), &[])?;
    Ok(1)
}
