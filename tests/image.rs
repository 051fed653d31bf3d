//! `scripts/image` and its archive: the content to the byte, the same digests anywhere, and
//! tools that read it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};
use serde_json::Value;

use harness::checkout::Checkout;
use harness::programs::{self, dist, root};
use harness::{Folder, VERSION, refused, run, sha256};

/// An archive that was unpacked.
struct Archive(Folder);

impl Archive {
    /// Unpacks the archive in `dist/`.
    #[track_caller]
    fn ours() -> Self {
        Self::of(&root().join("dist/pause.oci.tar"))
    }

    #[track_caller]
    fn of(file: &Path) -> Self {
        let folder = Folder::new("archive");
        run("tar", &["-xf", text(file), "-C", text(&folder)]);
        Self(folder)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).expect(name)).expect("JSON")
    }

    /// The path of a blob, after its size and digest were checked.
    #[track_caller]
    fn blob(&self, of: &Descriptor) -> PathBuf {
        let path = self.0.join("blobs/sha256").join(of.digest().digest());
        assert_eq!(fs::metadata(&path).expect("a blob").len(), of.size());
        assert_eq!(sha256(&path), of.digest().digest());
        path
    }

    /// The descriptor of the index, which carries the image name.
    fn root(&self) -> Descriptor {
        let index = ImageIndex::from_file(self.0.join("index.json")).expect("index.json");
        let [root] = index.manifests().as_slice() else {
            panic!("skopeo and podman want one: {index:?}");
        };
        root.clone()
    }

    fn index(&self) -> ImageIndex {
        ImageIndex::from_file(self.blob(&self.root())).expect("the index")
    }

    /// For each platform the descriptor of the manifest, the manifest and the config.
    fn platforms(&self) -> Vec<(Descriptor, ImageManifest, ImageConfiguration)> {
        let index = self.index();
        let read = |of: &Descriptor| {
            let manifest = ImageManifest::from_file(self.blob(of)).expect("a manifest");
            let config = self.blob(manifest.config());
            let config = ImageConfiguration::from_file(config).expect("a config");
            (of.clone(), manifest, config)
        };
        index.manifests().iter().map(read).collect()
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let index = self.index();
        let all = index.annotations().as_ref().expect("annotations");
        all.iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The image names, in each of the forms that readers expect.
    fn names(&self) -> [String; 3] {
        let root = self.root();
        let all = root.annotations().as_ref().expect("annotations");
        [
            all["io.containerd.image.name"].clone(),
            all["org.opencontainers.image.ref.name"].clone(),
            self.json("manifest.json")[0]["RepoTags"][0]
                .as_str()
                .expect("a tag")
                .into(),
        ]
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Runs `scripts/image` in a copy of the project.
fn image(checkout: &Checkout, arguments: &[&str]) -> Output {
    let mut command = checkout.command(&["scripts/image"]);
    command.args(arguments).output().expect("scripts/image")
}

/// The same, which must succeed. Returns the archive.
#[track_caller]
fn made(checkout: &Checkout, arguments: &[&str]) -> PathBuf {
    let output = image(checkout, arguments);
    assert!(output.status.success(), "{output:?}");
    checkout.path().join("dist/pause.oci.tar")
}

limited! {
    #[ignore = "needs scripts/test"]
    fn holds_pause_alone_for_each_platform() {
        let archive = Archive::ours();
        assert_eq!(archive.json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let platforms = archive.platforms();
        let wanted = programs::platforms();
        assert_eq!(platforms.len(), wanted.len());
        for ((descriptor, manifest, config), wanted) in platforms.iter().zip(wanted) {
            let (name, variant) = (wanted.architecture, wanted.variant.map(String::from));
            let arch = Arch::from(name);
            // With mediaType no client can take a manifest for an index (CVE-2021-41190).
            assert_eq!(manifest.media_type(), &Some(MediaType::ImageManifest));
            let platform = descriptor.platform().as_ref().expect("a platform");
            assert_eq!((platform.os(), platform.architecture(), platform.variant()), (&Os::Linux, &arch, &variant));
            assert_eq!((config.os(), config.architecture(), config.variant()), (&Os::Linux, &arch, &variant));

            let execution = config.config().as_ref().expect("how to run it");
            assert_eq!(execution.user().as_deref(), Some("65535:65535"));
            assert_eq!(execution.entrypoint().as_deref(), Some(["/pause".to_string()].as_slice()));
            // containerd warns of a config with the label that pins an image, so there is no label.
            assert_eq!((execution.cmd(), execution.env(), execution.labels()), (&None, &None, &None));

            let [layer] = manifest.layers().as_slice() else { panic!("not one layer") };
            assert_eq!(*layer.media_type(), MediaType::ImageLayerGzip);
            let layer = archive.blob(layer);
            let tar = archive.0.join("layer.tar");
            fs::write(&tar, Command::new("gzip").arg("-dc").arg(&layer).output().expect("gzip").stdout).expect("the layer");
            let [diff_id] = config.rootfs().diff_ids().as_slice() else { panic!("not one diff_id") };
            assert_eq!(run_sha256(&tar), *diff_id);
            let list = run("tar", &["--numeric-owner", "--utc", "-tvf", text(&tar)]);
            assert_eq!(list.split_whitespace().collect::<Vec<_>>(),
                ["-rwxr-xr-x", "0/0", &fs::metadata(dist(name)).expect("pause").len().to_string(), "1970-01-01", "00:00", "pause"]);
            let pause = Command::new("tar").args(["-xOf", text(&tar), "pause"]).output().expect("tar");
            assert_eq!(pause.stdout, fs::read(dist(name)).expect("pause"));
        }
    }

    #[ignore = "needs scripts/test"]
    fn annotations_cost_a_platform_nothing() {
        let archive = Archive::ours();
        let annotations = archive.annotations();
        let found: Vec<_> = annotations.keys().map(|key| key.strip_prefix("org.opencontainers.image.").expect(key)).collect();
        // A copy without the history has no revision. It has a source only if Cargo.toml names a
        // repository.
        let (manifest, clone) = (fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml"), root().join(".git").exists());
        let known = |key: &&str| match *key {
            "revision" => clone,
            "source" => manifest.contains("\nrepository = "),
            _ => true,
        };
        let all = ["created", "description", "licenses", "revision", "source", "title", "version"];
        assert_eq!(found, all.into_iter().filter(known).collect::<Vec<_>>());
        assert_eq!(annotations["org.opencontainers.image.version"], VERSION);
        for (descriptor, manifest, _) in archive.platforms() {
            assert_eq!((descriptor.annotations(), manifest.annotations()), (&None, &None));
        }
    }

    /// manifest.json, which Docker reads, names the same blobs. Docker's own image store knows no
    /// platforms, so all platforms but the first have names of their own.
    #[ignore = "needs scripts/test"]
    fn names_the_same_blobs_for_docker() {
        let archive = Archive::ours();
        let list = archive.json("manifest.json");
        assert_eq!(list.as_array().map(Vec::len), Some(archive.platforms().len()));
        for (entry, (_, manifest, _)) in list.as_array().expect("a list").iter().zip(archive.platforms()) {
            let path = |of: &Descriptor| format!("blobs/sha256/{}", of.digest().digest());
            assert_eq!(entry["Config"], path(manifest.config()));
            assert_eq!(entry["Layers"][0], path(&manifest.layers()[0]));
        }
        let name = format!("localhost/pause:{VERSION}");
        assert_eq!(archive.names(), [&name, VERSION, &name]);
        for (entry, platform) in list.as_array().expect("a list").iter().zip(programs::platforms()).skip(1) {
            assert_eq!(entry["RepoTags"][0], format!("{name}-{}", platform.architecture));
        }
    }

    /// In another folder, with another umask, time zone, locale and user.
    #[ignore = "needs scripts/test"]
    fn is_the_same_elsewhere() {
        let checkout = Checkout::new("another image");
        let output = checkout
            .command(&["unshare", "--user", "--map-user=1000", "--map-group=1000"])
            .args(["sh", "-c", "umask 077; exec scripts/image"])
            .env("TZ", "Pacific/Chatham")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("unshare");
        assert!(output.status.success(), "{output:?}");
        let (new, old) = (checkout.path().join("dist/pause.oci.tar"), root().join("dist/pause.oci.tar"));
        assert!(fs::read(new).expect("new") == fs::read(old).expect("old"));
    }

    #[ignore = "needs scripts/test"]
    fn takes_a_name_a_source_and_a_time() {
        let checkout = Checkout::new("arguments");
        let source = "https://git.example/pause";
        let name = "registry.example:5000/infra/pause:3.10";
        let mut command = checkout.command(&["scripts/image", "--name", name, "--source", source]);
        let output = command.env("SOURCE_DATE_EPOCH", "1000000000").output().expect("scripts/image");
        assert!(output.status.success(), "{output:?}");
        let file = checkout.path().join("dist/pause.oci.tar");
        let archive = Archive::of(&file);
        assert_eq!(archive.names(), [name, "3.10", name]);
        assert_eq!(archive.annotations()["org.opencontainers.image.source"], source);
        assert_eq!(archive.annotations()["org.opencontainers.image.created"], "2001-09-09T01:46:40Z");
        assert!(run("tar", &["--utc", "-tvf", text(&file)]).lines().all(|line| line.contains("2001-09-09 01:46")));
        // A commit on another day does not change the image of a platform.
        let digests = |archive: &Archive| archive.platforms().iter().map(|p| p.0.digest().to_string()).collect::<Vec<_>>();
        assert_eq!(digests(&archive), digests(&Archive::ours()));

        for wrong in ["pause", "pause:1", "localhost/pause", "localhost/Pause:1", "localhost/pause:", "localhost//pause:1",
            "/pause:1", "localhost/pause:1 2", "localhost/pause@sha256:00", "https://localhost/pause:1", "--source"] {
            refused(&image(&checkout, &["--name", wrong]), &format!("'{wrong}'"));
        }
        refused(&image(&checkout, &["--name"]), "--name wants a value");
        refused(&image(&checkout, &["--source", "here"]), "wants a URL, not 'here'");
        refused(&image(&checkout, &["--only", "mips"]), "there is no 'mips'");
        refused(&image(&checkout, &["--only"]), "--only wants a list of architectures");
        refused(&image(&checkout, &["--frob"]), "unknown argument '--frob'");
        let output = checkout.command(&["scripts/image"]).env("SOURCE_DATE_EPOCH", "today").output();
        refused(&output.expect("scripts/image"), "not 'today'");
        assert_eq!(fs::read_dir(checkout.path().join("dist")).expect("dist").count(), programs::platforms().len() + 1);
        assert_eq!(archive.names(), Archive::of(&file).names());

        // An image name as it would be in a registry.
        made(&checkout, &["--name", "registry.example/pause:v1_2-x"]);
    }

    #[ignore = "needs scripts/test"]
    fn skopeo_and_umoci_read_it() {
        let tag = VERSION;
        let from = format!("oci-archive:{}:{tag}", text(&root().join("dist/pause.oci.tar")));
        for platform in programs::platforms() {
            let name = platform.architecture;
            let folder = Folder::new("umoci");
            let (layout, bundle) = (format!("{}/oci:{tag}", text(&folder)), format!("{}/bundle", text(&folder)));
            run("skopeo", &["--override-arch", name, "--override-variant", platform.variant.unwrap_or(""), "copy", "--quiet", &from, &format!("oci:{layout}")]);
            run("umoci", &["unpack", "--image", &layout, &bundle]);
            let files = run("find", &[&format!("{bundle}/rootfs"), "-mindepth", "1", "-printf", "%P %m %U:%G %s"]);
            assert_eq!(files, format!("pause 755 0:0 {}", fs::metadata(dist(name)).expect("pause").len()));
            let config: Value = serde_json::from_slice(&fs::read(format!("{bundle}/config.json")).expect("a config")).expect("JSON");
            assert_eq!(config["process"]["args"], serde_json::json!(["/pause"]));
            assert_eq!(config["process"]["user"]["uid"], 65535);
        }
    }
}

fn run_sha256(file: &Path) -> String {
    format!("sha256:{}", sha256(file))
}
