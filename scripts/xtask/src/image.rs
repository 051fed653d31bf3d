//! Packs the image: an archive with all platforms, and one for each. An archive is an OCI layout that also contains
//! manifest.json, as `docker save` writes it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, bail};
use oci_spec::distribution::Reference;
use serde_json::{Value, json};
use tar::{EntryType, Header};
use xtask::platforms::{Platform, platforms};
use xtask::project::{self, REVISION, say, sha256};

/// The media types of the OCI image specification.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(clap::Args, Default)]
#[group(skip)]
pub struct Options {
    /// The image name, with host and tag; the default is localhost/pause:<version>
    #[arg(long, value_parser = parse_name)]
    name: Option<Reference>,
    /// The URL of the source code, for an annotation; the default is `repository` in Cargo.toml
    #[arg(long, value_name = "URL", value_parser = parse_source)]
    source: Option<String>,
}

impl Options {
    /// The image name that engines store.
    fn name(&self) -> Result<Reference> {
        Ok(match &self.name {
            Some(name) => name.clone(),
            None => format!("localhost/pause:{}", project::package()?.version).parse()?,
        })
    }

    /// The URL of the source code, if it is known.
    fn source(&self) -> Result<Option<String>> {
        Ok(self.source.clone().or(project::package()?.repository))
    }
}

/// Checks that a name has a host and a tag. Engines would fill in different ones.
fn parse_name(name: &str) -> Result<Reference> {
    match Reference::from_str(name) {
        // A tag has 128 characters at most, and Docker's image store gets one with the architecture.
        Ok(parsed) if parsed.tag().is_some_and(|tag| tag.len() > 120) => {
            bail!("expected a tag of at most 120 characters")
        }
        Ok(parsed) if parsed.whole() == name && parsed.digest().is_none() && parsed.tag().is_some() => Ok(parsed),
        _ => bail!("expected HOST/NAME:TAG in lower case, such as localhost/pause:1"),
    }
}

fn parse_source(source: &str) -> Result<String> {
    let rest = source.strip_prefix("https://").unwrap_or_default();
    match rest.is_empty() || rest.contains(|letter: char| !letter.is_ascii_graphic() || "?#\"<>".contains(letter)) {
        true => bail!("expected a URL such as https://git.example/pause"),
        false => Ok(source.trim_end_matches('/').into()),
    }
}

/// The blobs of an OCI layout, by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Adds a blob, and returns its descriptor.
    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = sha256(&content);
        let descriptor = json!({
            "mediaType": media_type,
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        });
        self.0.insert(digest, content);
        descriptor
    }

    /// Adds a document: without white space, and with sorted keys, as serde_json has them.
    fn add_json(&mut self, media_type: &str, content: &Value) -> Value {
        self.add(media_type, content.to_string().into_bytes())
    }

    /// All files of the layout, with the index that is at the top.
    fn into_layout(self, top: &Value) -> Vec<(String, Vec<u8>)> {
        let version = json!({"imageLayoutVersion": "1.0.0"});
        let mut files = vec![
            ("oci-layout".to_string(), version.to_string().into_bytes()),
            ("index.json".into(), top.to_string().into_bytes()),
        ];
        let named = |(digest, content)| (format!("blobs/sha256/{digest}"), content);
        files.extend(self.0.into_iter().map(named));
        files
    }
}

/// Adds an entry to a tar archive that does not depend on the machine, the user and the time.
fn add(
    archive: &mut tar::Builder<Vec<u8>>,
    mut header: Header,
    (path, mode, time): (&str, u32, u64),
    content: &[u8],
) -> Result<()> {
    let is_folder = path.ends_with('/');
    header.set_path(path)?;
    header.set_entry_type(if is_folder { EntryType::Directory } else { EntryType::Regular });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(content.len() as u64);
    header.set_cksum();
    Ok(archive.append(&header, content)?)
}

/// The layer, with `/pause` as its only entry. The oldest tar format (v7) has the shortest header, and the time is 0,
/// so that the layer depends on the binary alone.
pub fn layer(pause: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, Header::new_old(), ("pause", 0o755, 0), pause)?;
    Ok(layer.into_inner()?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut compressed = Vec::new();
    zopfli::compress(zopfli::Options::default(), zopfli::Format::Gzip, bytes, &mut compressed)?;
    Ok(compressed)
}

/// Adds what a node pulls for one platform, and returns the manifest and its descriptor.
fn image(platform: &Platform, created: &str, blobs: &mut Blobs) -> Result<(Value, Value)> {
    let layer = layer(&platform.program()?)?;
    let mut described = json!({"architecture": platform.architecture, "os": "linux"});
    if let Some(variant) = platform.variant {
        described["variant"] = variant.into();
    }
    let mut config = described.clone();
    // The user is not root, for runAsNonRoot; any other number would do. There is no Cmd, because `kubeadm upgrade`
    // runs the image with -v in its place.
    config["config"] = json!({"User": "65535:65535", "Entrypoint": ["/pause"]});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]});
    // Without these Docker shows an image of 1970, and tools that convert it want an entry for each layer.
    config["created"] = created.into();
    config["history"] = json!([{}]);
    let manifest = json!({
        "schemaVersion": 2,
        // With it no client can take the manifest for an index (CVE-2021-41190).
        "mediaType": MANIFEST,
        "config": blobs.add_json(CONFIG, &config),
        "layers": [blobs.add(LAYER, gzip(&layer)?)],
    });
    let mut descriptor = blobs.add_json(MANIFEST, &manifest);
    descriptor["platform"] = described;
    Ok((manifest, descriptor))
}

/// The sizes in bytes of what a node pulls for a platform: manifest, config and layer.
fn sizes(manifest: &Value, descriptor: &Value) -> [u64; 3] {
    [descriptor, &manifest["config"], &manifest["layers"][0]].map(size)
}

/// The bytes that a node pulls for a platform.
pub fn pulled(platform: &Platform) -> Result<u64> {
    // Each time has the same length.
    let (manifest, descriptor) = image(platform, &project::time(0), &mut Blobs::default())?;
    Ok(sizes(&manifest, &descriptor).iter().sum())
}

/// The annotations. They are in the index, so that no manifest grows by them.
fn annotations(options: &Options, created: &str) -> Result<Value> {
    let package = project::package()?;
    let all = [
        ("title", Some(package.name.to_string())),
        ("description", package.description),
        ("source", options.source()?),
        ("version", Some(package.version.to_string())),
        ("revision", project::revision()?),
        ("licenses", package.license),
        ("created", Some(created.into())),
    ];
    let known = all
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), Value::from(value?))));
    Ok(Value::Object(known.collect()))
}

/// The bytes of a blob, by its descriptor.
fn size(descriptor: &Value) -> u64 {
    descriptor["size"].as_u64().unwrap_or(0)
}

/// The entry of an image in manifest.json.
fn load(manifest: &Value, tag: &str) -> Value {
    let path = |of: &Value| {
        let digest = of["digest"].as_str().unwrap_or_default();
        format!("blobs/{}", digest.replace(':', "/"))
    };
    let layer = path(&manifest["layers"][0]);
    json!({"Config": path(&manifest["config"]), "Layers": [layer], "RepoTags": [tag]})
}

/// Writes an archive in `dist/` with one image, or one index, under a name.
fn write(file: &str, name: &Reference, epoch: u64, blobs: Blobs, mut image: Value, loads: &[Value]) -> Result<()> {
    // containerd, podman and Docker read the image name from the first annotation. The second is the one of the
    // specification, which skopeo uses for `oci-archive:FILE:TAG`.
    image["annotations"] = json!({
        "io.containerd.image.name": name.whole(),
        "org.opencontainers.image.ref.name": name.tag(),
    });
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]});
    let mut files = blobs.into_layout(&top);
    let more = [
        ("manifest.json".into(), json!(loads).to_string().into_bytes()),
        ("blobs/".into(), vec![]),
        ("blobs/sha256/".into(), vec![]),
    ];
    files.splice(2..2, more); // before the blobs
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mode = if path.ends_with('/') { 0o755 } else { 0o644 };
        add(&mut archive, Header::new_ustar(), (&path, mode, epoch), &content)?;
    }
    let archive = archive.into_inner()?;
    project::replace(&project::dist(file), 0o644, &archive)?;
    say(format!("dist/{file}: {}, {} bytes", name.whole(), archive.len()));
    Ok(())
}

/// Packs the files of `dist/` into `dist/pause.oci.tar`, and into an archive for each platform.
pub fn pack(options: &Options) -> Result<()> {
    let (reference, epoch) = (options.name()?, project::epoch()?);
    if project::revision()?.is_none() {
        say(format!(
            "without the history of git the image has other digests than that of the commit: set \
             SOURCE_DATE_EPOCH to its time, and {REVISION} to its hash"
        ));
    }
    let (name, created) = (reference.whole(), project::time(epoch));
    let (mut all, mut manifests, mut loads) = (Blobs::default(), vec![], vec![]);
    for platform in platforms() {
        let mut alone = Blobs::default();
        let (manifest, descriptor) = image(platform, &created, &mut alone)?;
        let [of_manifest, config, layer] = sizes(&manifest, &descriptor);
        say(format!(
            "{platform}: {} bytes to pull: manifest {of_manifest}, config {config}, layer {layer}",
            of_manifest + config + layer
        ));
        all.0.extend(alone.0.clone());
        // Docker's own image store holds one platform under a name: the last one that it reads, even if that is not the
        // platform of the machine. The first platform has the plain name.
        let tag = match &loads[..] {
            [] => name.clone(),
            _ => format!("{name}-{}", platform.architecture),
        };
        loads.push(load(&manifest, &tag));
        let load = [load(&manifest, &name)];
        write(&platform.archive(), &reference, epoch, alone, descriptor.clone(), &load)?;
        manifests.push(descriptor);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": annotations(options, &created)?,
    });
    let index = all.add_json(INDEX, &index);
    write("pause.oci.tar", &reference, epoch, all, index, &loads)
}
