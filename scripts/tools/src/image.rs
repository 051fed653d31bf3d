//! Packs the image for all platforms and all engines: an OCI layout in a tar archive that also
//! contains manifest.json, which `docker load` reads.

use std::collections::HashMap;
use std::ffi::OsString;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, ValueExt};
use oci_spec::distribution::Reference;
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder,
    Sha256Digest,
};
use platforms::{Platform, platforms};
use serde::Serialize;
use serde_json::json;
use tar::{EntryType, Header};

use crate::project::{self, say, sha256};

/// The arguments of scripts/image and scripts/release.
pub struct Options {
    /// The image name that engines store.
    pub name: Reference,
    /// The URL of the source code, if it is known.
    pub source: Option<String>,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let (mut name, mut source) = (None, None);
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let (flag, value) = match argument {
                Arg::Long("name") => ("--name", &mut name),
                Arg::Long("source") => ("--source", &mut source),
                Arg::Long(other) => bail!("unknown argument '--{other}'; see --help"),
                Arg::Short(other) => bail!("unknown argument '-{other}'; see --help"),
                Arg::Value(other) => bail!("unknown argument '{}'; see --help", other.display()),
            };
            let given = parser.value().ok().filter(|given| !given.is_empty());
            let given = given.with_context(|| format!("{flag} wants a value; see --help"))?;
            *value = Some(given.string()?);
        }
        let package = project::package()?;
        let name = name.unwrap_or(format!("localhost/pause:{}", package.version));
        let source = source.or(package.repository);
        if let Some(source) = &source {
            let scheme = source.split_once("://").map(|(scheme, _)| scheme);
            let scheme = scheme
                .filter(|s| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c == '+'));
            if scheme.is_none() || source.contains(' ') {
                bail!("--source wants a URL, not '{source}'");
            }
        }
        project::epoch()?;
        Ok(Self {
            name: parse_name(&name)?,
            source,
        })
    }
}

/// Checks that a name has a host and a tag. Engines would fill in different ones.
fn parse_name(name: &str) -> Result<Reference> {
    let parsed = Reference::from_str(name).ok();
    let whole = parsed.filter(|parsed| {
        parsed.whole() == name && parsed.digest().is_none() && parsed.tag().is_some()
    });
    whole.with_context(|| {
        format!("--name wants HOST/NAME:TAG in lower case, as localhost/pause:1, not '{name}'")
    })
}

/// The blobs of an OCI layout and their descriptors.
#[derive(Default)]
struct Blobs(Vec<(Descriptor, Vec<u8>)>);

impl Blobs {
    fn add(&mut self, media_type: MediaType, content: Vec<u8>) -> Result<Descriptor> {
        let descriptor = descriptor(media_type, &content)?;
        self.0.push((descriptor.clone(), content));
        Ok(descriptor)
    }
}

/// The descriptor of a blob.
pub fn descriptor(media_type: MediaType, content: &[u8]) -> Result<Descriptor> {
    Ok(DescriptorBuilder::default()
        .media_type(media_type)
        .size(content.len() as u64)
        .digest(Sha256Digest::from_str(&sha256(content))?)
        .build()?)
}

/// JSON without white space, with sorted keys.
pub fn json_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_value(value)?.to_string().into_bytes())
}

/// An entry of a tar archive that does not depend on the machine, the user and the time.
fn entry(mut header: Header, path: &str, mode: u32, time: u64, content: &[u8]) -> Result<Vec<u8>> {
    let kind = if path.ends_with('/') {
        EntryType::Directory
    } else {
        EntryType::Regular
    };
    header.set_path(path)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, content)?;
    // The two blocks of zeros at the end of an archive are left out here.
    let mut bytes = archive.into_inner()?;
    bytes.truncate(bytes.len() - END.len());
    Ok(bytes)
}

/// The end of a tar archive.
const END: [u8; 1024] = [0; 1024];

/// The layer, with `/pause` as its only entry. The oldest tar format (v7) has the shortest
/// header, and the time is 0, so that the layer depends on the binary alone.
fn layer(pause: &[u8]) -> Result<Vec<u8>> {
    let mut layer = entry(Header::new_old(), "pause", 0o755, 0, pause)?;
    layer.extend(END);
    Ok(layer)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut compressed = Vec::new();
    let options = zopfli::Options::default();
    zopfli::compress(options, zopfli::Format::Gzip, bytes, &mut compressed)?;
    Ok(compressed)
}

/// Adds what a node pulls for one platform, and returns the descriptor of the manifest.
struct Image {
    manifest: Descriptor,
    config: Descriptor,
    layer: Descriptor,
}

fn image(platform: &Platform, blobs: &mut Blobs) -> Result<Image> {
    let layer = layer(&project::pause(platform)?)?;
    let diff_id = format!("sha256:{}", sha256(&layer));
    let architecture = Arch::from(platform.architecture);
    let mut config = ImageConfigurationBuilder::default()
        .architecture(architecture.clone())
        .os(Os::Linux)
        // The user is not root, for runAsNonRoot; any other number would do. There is no CMD,
        // because `kubeadm upgrade` runs the image with -v in its place.
        .config(
            ConfigBuilder::default()
                .user("65535:65535")
                .entrypoint(["/pause".to_string()])
                .build()?,
        )
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids([diff_id])
                .build()?,
        )
        .build()?;
    config.set_variant(platform.variant.map(String::from));
    let layer = blobs.add(MediaType::ImageLayerGzip, gzip(&layer)?)?;
    let config = blobs.add(MediaType::ImageConfig, json_bytes(&config)?)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config.clone())
        .layers([layer.clone()])
        .build()?;
    let mut manifest = blobs.add(MediaType::ImageManifest, json_bytes(&manifest)?)?;
    let mut described = PlatformBuilder::default()
        .architecture(architecture)
        .os(Os::Linux)
        .build()?;
    described.set_variant(platform.variant.map(String::from));
    manifest.set_platform(Some(described));
    Ok(Image {
        manifest,
        config,
        layer,
    })
}

/// The annotations. They are in the index, so that no manifest grows by them.
fn annotations(options: &Options, epoch: u64) -> Result<HashMap<String, String>> {
    let package = project::package()?;
    let time = project::timestamp(epoch).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let all = [
        ("title", Some(package.name.to_string())),
        ("description", package.description),
        ("source", options.source.clone()),
        ("version", Some(package.version.to_string())),
        ("revision", project::revision()),
        ("licenses", package.license),
        ("created", Some(time)),
    ];
    let named = |(key, value): (&str, Option<String>)| {
        Some((format!("org.opencontainers.image.{key}"), value?))
    };
    Ok(all.into_iter().filter_map(named).collect())
}

/// Packs the files of `dist/` into `dist/pause.oci.tar`.
pub fn pack(options: &Options) -> Result<()> {
    let (name, epoch) = (options.name.whole(), project::epoch()?);
    let (mut blobs, mut manifests, mut loads, mut report) =
        (Blobs::default(), vec![], vec![], vec![]);
    for platform in platforms() {
        let Image {
            manifest,
            config,
            layer,
        } = image(&platform, &mut blobs)?;
        let path = |of: &Descriptor| format!("blobs/sha256/{}", of.digest().digest());
        // Docker's own image store holds one platform under a name: the last one that it reads,
        // even if that is not the platform of the machine. The first platform has the plain name.
        let tag = match &loads[..] {
            [] => name.clone(),
            _ => format!("{name}-{}", platform.architecture),
        };
        loads.push(json!({"Config": path(&config), "Layers": [path(&layer)], "RepoTags": [tag]}));
        let sizes = [manifest.size(), config.size(), layer.size()];
        report.push(format!(
            "{platform}: {} bytes to pull: manifest {}, config {}, layer {}",
            sizes.iter().sum::<u64>(),
            sizes[0],
            sizes[1],
            sizes[2]
        ));
        manifests.push(manifest);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .annotations(annotations(options, epoch)?)
        .build()?;
    let mut index = blobs.add(MediaType::ImageIndex, json_bytes(&index)?)?;
    let size = index.size();
    // containerd, podman and Docker read the image name from the first annotation. The second is
    // the one of the specification, which skopeo uses for `oci-archive:FILE:TAG`.
    index.set_annotations(Some(HashMap::from([
        ("io.containerd.image.name".into(), name.clone()),
        (
            "org.opencontainers.image.ref.name".into(),
            options.name.tag().unwrap_or_default().into(),
        ),
    ])));
    let top = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests([index])
        .build()?;

    let mut files = vec![
        (
            "oci-layout".to_string(),
            json_bytes(&json!({"imageLayoutVersion": "1.0.0"}))?,
        ),
        ("index.json".into(), json_bytes(&top)?),
        ("manifest.json".into(), json_bytes(&loads)?),
        ("blobs/".into(), vec![]),
        ("blobs/sha256/".into(), vec![]),
    ];
    blobs
        .0
        .sort_by_key(|(descriptor, _)| descriptor.digest().to_string());
    let path = |(of, content): (Descriptor, Vec<u8>)| {
        (format!("blobs/sha256/{}", of.digest().digest()), content)
    };
    files.extend(blobs.0.into_iter().map(path));
    let mut archive = Vec::new();
    for (path, content) in files {
        let mode = if path.ends_with('/') { 0o755 } else { 0o644 };
        archive.extend(entry(Header::new_ustar(), &path, mode, epoch, &content)?);
    }
    archive.extend(END);
    project::replace("pause.oci.tar", &archive)?;
    say(&format!(
        "dist/pause.oci.tar: {name}, {} bytes; its index {size}",
        archive.len()
    ));
    report.iter().for_each(|line| say(line));
    Ok(())
}
