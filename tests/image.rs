//! `scripts/image` and its archive: the content to the byte, the same digests anywhere, and tools that read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use harness::checkout::{COMMIT, Checkout};
use harness::programs::{HOST, Platform, dist, platforms, root, size};
use harness::{Folder, VERSION, refused, run, sha256, text};

/// An archive that was unpacked.
struct Archive(Folder);

impl Archive {
    /// Unpacks the archive in `dist/`.
    fn ours() -> Self {
        Self::of(&root().join("dist/pause.oci.tar"))
    }

    fn of(file: &Path) -> Self {
        let folder = Folder::new("archive");
        run("tar", &["-xf", text(file), "-C", text(&folder)]);
        Self(folder)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).expect(name)).expect("JSON")
    }

    /// The path of a blob, after its size and digest were checked.
    fn blob(&self, of: &Value) -> String {
        let digest = of["digest"].as_str().expect("a digest").strip_prefix("sha256:");
        let path = format!("blobs/sha256/{}", digest.expect("a digest"));
        assert_eq!(fs::metadata(self.0.join(&path)).expect("a blob").len(), of["size"]);
        assert_eq!(Some(sha256(&self.0.join(&path)).as_str()), digest);
        path
    }

    /// The descriptor of the index, which carries the image name.
    fn root(&self) -> Value {
        let index = self.json("index.json");
        let [root] = &index["manifests"].as_array().expect("manifests")[..] else {
            panic!("skopeo and podman want one: {index}");
        };
        root.clone()
    }

    fn index(&self) -> Value {
        self.json(&self.blob(&self.root()))
    }

    /// The descriptors of the platforms' manifests.
    fn manifests(&self) -> Vec<Value> {
        self.index()["manifests"].as_array().expect("manifests").clone()
    }

    fn annotation(&self, name: &str) -> Value {
        self.index()["annotations"][format!("org.opencontainers.image.{name}")].clone()
    }

    /// The image names, in each of the forms that readers expect.
    fn names(&self) -> [Value; 3] {
        let root = &self.root()["annotations"];
        let name = |key: &str| root[key].clone();
        let docker = self.json("manifest.json")[0]["RepoTags"][0].clone();
        [name("io.containerd.image.name"), name("org.opencontainers.image.ref.name"), docker]
    }
}

/// Runs `scripts/image` in a copy of the project.
fn image(checkout: &Checkout, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = checkout.command(&["scripts/image"]);
    command.args(arguments).envs(environment.iter().copied()).output().expect("scripts/image")
}

fn archive_of(checkout: &Checkout) -> PathBuf {
    checkout.path().join("dist/pause.oci.tar")
}

pub fn holds_pause_alone(platform: &'static Platform) {
    let archive = Archive::ours();
    let position = platforms().iter().position(|one| one.target == platform.target);
    let descriptor = archive.manifests()[position.expect("one of them")].clone();
    let mut described = json!({"os": "linux", "architecture": platform.architecture});
    if let Some(variant) = platform.variant {
        described["variant"] = variant.into();
    }
    assert_eq!(descriptor["platform"], described);
    let manifest = archive.json(&archive.blob(&descriptor));
    // With mediaType no client can take a manifest for an index (CVE-2021-41190).
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!((&descriptor["annotations"], &manifest["annotations"]), (&Value::Null, &Value::Null));

    let [layer] = &manifest["layers"].as_array().expect("layers")[..] else {
        panic!("not one layer");
    };
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let layer = archive.0.join(archive.blob(layer));
    let tar = archive.0.join("layer.tar");
    let unpacked = Command::new("gzip").arg("-dc").arg(&layer).output().expect("gzip").stdout;
    fs::write(&tar, unpacked).expect("the layer");
    // containerd warns of a config with the label that pins an image, so there is no label.
    let mut config = described.clone();
    config["config"] = json!({"User": "65535:65535", "Entrypoint": ["/pause"]});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))]});
    config["created"] = archive.annotation("created");
    config["history"] = json!([{}]);
    assert_eq!(archive.json(&archive.blob(&manifest["config"])), config);
    let list = run("tar", &["--numeric-owner", "--utc", "-tvf", text(&tar)]);
    let words: Vec<_> = list.split_whitespace().collect();
    let bytes = size(platform.architecture).to_string();
    assert_eq!(words, ["-rwxr-xr-x", "0/0", &bytes, "1970-01-01", "00:00", "pause"]);
    let pause = Command::new("tar").args(["-xOf", text(&tar), "pause"]).output().expect("tar");
    assert_eq!(pause.stdout, fs::read(dist(platform.architecture)).expect("pause"));
}

/// Tools that take one image only read the image from it, with its own name.
pub fn has_an_archive_of_its_own(platform: &'static Platform) {
    let all = Archive::ours();
    let archive = Archive::of(&root().join("dist").join(platform.archive()));
    let mut manifest = archive.root();
    let path = archive.blob(&manifest);
    let number = archive.0.join("blobs/sha256").read_dir().expect("blobs").count();
    assert_eq!(number, 3, "a manifest, a config and a layer");
    manifest["annotations"].take();
    manifest.as_object_mut().expect("a descriptor").remove("annotations");
    assert!(all.manifests().contains(&manifest), "it is not what pause.oci.tar has");
    let manifest = archive.json(&path);
    let [config, layer] = [&manifest["config"], &manifest["layers"][0]].map(|of| archive.blob(of));
    let name = format!("localhost/pause:{VERSION}");
    let load = json!([{"Config": config, "Layers": [layer], "RepoTags": [name]}]);
    assert_eq!(archive.json("manifest.json"), load);
    assert_eq!(archive.names(), [&name, VERSION, &name]);
}

pub fn has_each_platform_and_annotations_that_cost_a_platform_nothing() {
    let archive = Archive::ours();
    assert_eq!(archive.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    assert_eq!(archive.manifests().len(), platforms().len());
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    // A copy without the history has no revision. It has a source only if Cargo.toml names a repository.
    let known = |key: &&str| match *key {
        "revision" => root().join(".git").exists(),
        "source" => manifest.contains("\nrepository = "),
        _ => true,
    };
    let all = ["created", "description", "licenses", "revision", "source", "title", "version"];
    let all = all.into_iter().filter(known).map(|key| format!("org.opencontainers.image.{key}"));
    let index = archive.index();
    assert!(index["annotations"].as_object().expect("annotations").keys().eq(all.collect::<Vec<_>>().iter()));
    assert_eq!(archive.annotation("version"), VERSION);
}

/// manifest.json, which Docker reads, names the same blobs. Docker's own image store knows no platforms, so all
/// platforms but the first have names of their own.
pub fn names_the_same_blobs_for_docker() {
    let archive = Archive::ours();
    let name = format!("localhost/pause:{VERSION}");
    let entry = |(number, descriptor): (usize, &Value)| {
        let manifest = archive.json(&archive.blob(descriptor));
        let architecture = &platforms()[number].architecture;
        let tag = if number == 0 { name.clone() } else { format!("{name}-{architecture}") };
        let layer = archive.blob(&manifest["layers"][0]);
        json!({"Config": archive.blob(&manifest["config"]), "Layers": [layer], "RepoTags": [tag]})
    };
    let list: Vec<_> = archive.manifests().iter().enumerate().map(entry).collect();
    assert_eq!(archive.json("manifest.json"), json!(list));
    assert_eq!(archive.names(), [&name, VERSION, &name]);
}

pub fn takes_a_name_and_a_source() {
    let checkout = Checkout::new("arguments");
    let source = "https://git.example/pause";
    let name = "registry.example:5000/infra/pause:v3_10-x";
    let arguments = ["--only", *HOST, "--name", name, "--source", source];
    let output = image(&checkout, &arguments, &[]);
    assert!(output.status.success(), "{output:?}");
    let archive = Archive::of(&archive_of(&checkout));
    assert_eq!(archive.names(), [name, "v3_10-x", name]);
    assert_eq!(archive.annotation("source"), source);
    // Neither changes the image of a platform.
    let ours = Archive::ours().manifests();
    assert!(archive.manifests().iter().all(|manifest| ours.contains(manifest)));
}

/// Without the history of git, the image is that of the commit if the environment names the commit and its time;
/// without them it says that it is another one.
pub fn is_the_same_from_a_source_archive() {
    let checkout = Checkout::new("source");
    let arguments = ["--only", *HOST];
    let index = |environment: &[(&str, &str)], says: bool| {
        let output = image(&checkout, &arguments, environment);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(stdout.contains("other digests than that of the commit"), says, "{stdout}");
        Archive::of(&archive_of(&checkout)).root()
    };
    let output = checkout.run(&format!("{COMMIT}; git log -1 --format='%H %ct'"));
    let (revision, time) = output.split_once(' ').expect("a commit and its time");
    let of_the_commit = index(&[], false);
    fs::remove_dir_all(checkout.path().join(".git")).expect("the history");
    assert_ne!(index(&[], true), of_the_commit);
    let environment = [("SOURCE_DATE_EPOCH", time), ("PAUSE_REVISION", revision)];
    assert_eq!(index(&environment, false), of_the_commit);
    let list = run("tar", &["--utc", "--full-time", "-tvf", text(&archive_of(&checkout))]);
    let created = Archive::of(&archive_of(&checkout)).annotation("created");
    let stamp = created.as_str().expect("a time").replace(['T', 'Z'], " ");
    assert!(list.lines().all(|line| line.contains(&stamp)), "{list}");
}

pub fn refuses_bad_names_sources_and_times() {
    let checkout = Checkout::new("refusals");
    let names = "pause,pause:1,localhost/pause,localhost/Pause:1,localhost/pause:,localhost//pause:1,/pause:1,\
        localhost/pause:1 2,localhost/pause@sha256:00,https://localhost/pause:1";
    for name in names.split(',') {
        refused(&image(&checkout, &["--name", name], &[]), &format!("'{name}'"));
    }
    for (arguments, reason) in [
        (&["--source", "here"][..], "expected a URL"),
        (&["--source", "https://"], "expected a URL"),
        (&["--source", "https://git.example/pause?x#y"], "expected a URL"),
        (&["--only", "mips"], "expected one of: amd64"),
    ] {
        refused(&image(&checkout, arguments, &[]), reason);
    }
    let _ = fs::remove_dir_all(checkout.path().join(".git"));
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (environment, reason) in [
        (&[("SOURCE_DATE_EPOCH", "today")][..], "not 'today'"),
        (&[("PAUSE_REVISION", "main"), ("SOURCE_DATE_EPOCH", "1")], "not 'main'"),
        (&[("PAUSE_REVISION", commit)], "SOURCE_DATE_EPOCH to the time of that commit"),
    ] {
        refused(&image(&checkout, &[], environment), reason);
    }
    assert!(!checkout.path().join("dist").exists(), "something was built");
}
