//! The programs that are measured: pause, a program that does nothing, and other pauses and
//! inits.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use xtask::elf::Parts;

use harness::launch::Launch;
use harness::programs::{HOST, dist, host_platform, platforms, program, root};
use harness::{Folder, run, text};

/// The size of an image for one platform.
#[derive(Clone, Copy)]
pub struct Image {
    /// The bytes that are pulled: manifest, config and layers.
    pub pulled: u64,
    /// The bytes of its files.
    pub unpacked: u64,
}

pub struct Subject {
    pub name: String,
    /// The command that holds a pod, with argv\[0\].
    argv: Vec<String>,
    path: Option<PathBuf>,
    /// The program and the argument that print the version.
    version: Option<(PathBuf, &'static str)>,
    /// Whether the program runs without a child, also when it is not PID 1.
    pub alone: bool,
    images: Vec<(String, Image)>,
}

impl Subject {
    fn new(name: &str, path: &Path, arguments: &[&str], version: &'static str) -> Self {
        let argv = std::iter::once("pause").chain(arguments.iter().copied());
        Self {
            name: name.into(),
            argv: argv.map(String::from).collect(),
            path: Some(path.into()),
            version: Some((path.into(), version)),
            alone: arguments.is_empty(),
            images: Vec::new(),
        }
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub fn version(&self) -> Option<&(PathBuf, &'static str)> {
        self.version.as_ref()
    }

    /// A launch of the command that holds a pod.
    pub fn launch(&self) -> Launch {
        let argv: Vec<_> = self.argv.iter().map(String::as_str).collect();
        Launch::new(self.path().expect("a program")).argv(&argv)
    }

    pub fn image(&self, architecture: &str) -> Option<Image> {
        let mut images = self.images.iter();
        images.find(|(name, _)| name == architecture).map(|(_, image)| *image)
    }

    /// The size of the file, in bytes. Only pause is here for other architectures.
    pub fn file(&self, architecture: &str) -> Option<u64> {
        let path = match self.name.as_str() {
            "pause" => dist(architecture),
            _ if architecture == *HOST => self.path.clone()?,
            _ => return None,
        };
        Some(fs::metadata(path).expect("a program").len())
    }

    /// The bytes of headers, of code and of strings.
    pub fn parts(&self) -> Option<[u64; 3]> {
        let file = fs::read(self.path()?).expect("a program");
        let target = root().join("target").join(&host_platform().target).join("release");
        let linked = match self.name.as_str() {
            "pause" => fs::read(target.join("pause")).expect("scripts/build made it"),
            "no-op" => fs::read(target.join("noop")).expect("it was built"),
            _ => file.clone(),
        };
        let Parts { headers, code, strings } = Parts::of(&file, &linked).expect("an ELF file");
        Some([headers, code, strings])
    }
}

/// The temporary folder of a run, which unpacks images and compiles programs there.
pub struct Work(Folder);

impl Deref for Work {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Work {
    pub fn new() -> Self {
        Self(Folder::new("bench"))
    }

    /// Reads the image that skopeo finds under a reference; leaves its files in `bundle/rootfs`.
    fn image(&self, from: &str, architecture: &str) -> Image {
        let folder = self.join("image");
        let _ = fs::remove_dir_all(&folder);
        let layout = format!("{}:1", folder.join("oci").display());
        fs::create_dir(&folder).expect("a folder");
        let copy = ["copy", "--quiet", from, &format!("oci:{layout}")];
        run("skopeo", &[&["--override-arch", architecture][..], &copy].concat());
        run("umoci", &["unpack", "--image", &layout, text(&folder.join("bundle"))]);
        let size = |path: &str| -> u64 {
            let files = ["-type", "f", "-printf", "%s\n"];
            let sizes = run("find", &[&[text(&folder.join(path))][..], &files].concat());
            sizes.lines().map(|line| line.parse::<u64>().expect("a size")).sum()
        };
        Image { pulled: size("oci/blobs"), unpacked: size("bundle/rootfs") }
    }

    /// Compiles `pause.c` as a static program, by the given compiler.
    fn c(&self, compiler: &str) -> PathBuf {
        let path = self.join(format!("pause-{compiler}"));
        let source = root().join("tests/bench/pause.c");
        run(compiler, &["-Os", "-static", "-s", "-o", text(&path), text(&source)]);
        path
    }

    /// One of the programs in `tests/programs`, without debugging information.
    fn stripped(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::copy(program(name), &path).expect("a copy");
        run("llvm-objcopy", &["--strip-sections", text(&path)]);
        path
    }
}

/// pause and the program that does nothing.
pub fn ours_and_floor(work: &Work) -> Vec<Subject> {
    let mut ours = Subject::new("pause", &dist(&HOST), &[], "-v");
    let archive = format!("oci-archive:{}", root().join("dist/pause.oci.tar").display());
    let names = platforms().into_iter().map(|platform| platform.architecture.clone());
    ours.images = names.map(|name| (name.clone(), work.image(&archive, &name))).collect();
    let mut floor = Subject::new("no-op", &work.stripped("noop"), &[], "-v");
    floor.version = Some((work.stripped("exit"), "-v")); // which only exits
    vec![ours, floor]
}

/// All subjects; the first two are those of `ours_and_floor`.
pub fn all(work: &Work, upstream: Option<&str>) -> Vec<Subject> {
    let mut all = ours_and_floor(work);
    let child = work.join("noop").display().to_string();
    let [catatonit, tini, dumb_init] =
        ["catatonit", "tini", "dumb-init"].map(|name| Path::new("/usr/bin").join(name));
    all.extend([
        Subject::new("C, glibc", &work.c("gcc"), &[], "-v"),
        Subject::new("C, musl", &work.c("musl-gcc"), &[], "-v"),
        Subject::new("catatonit -P", &catatonit, &["-P"], "--version"),
        Subject::new("tini", &tini, &["--", &child], "--version"),
        Subject::new("dumb-init", &dumb_init, &[&child], "--version"),
        upstream_image(work, upstream),
    ]);
    all
}

/// Upstream's image, if there is a reference to one; else the published sizes of version 3.10.
fn upstream_image(work: &Work, reference: Option<&str>) -> Subject {
    if let Some(reference) = reference {
        let image = work.image(reference, &HOST);
        let path = work.join("pause-upstream");
        fs::copy(work.join("image/bundle/rootfs/pause"), &path).expect("/pause of the image");
        let mut subject = Subject::new("upstream", &path, &[], "-v");
        subject.images = vec![(HOST.to_string(), image)];
        return subject;
    }
    let published = |pulled, unpacked| Image { pulled, unpacked };
    let mut subject = Subject::new("upstream (published)", Path::new(""), &[], "-v");
    (subject.path, subject.version, subject.alone) = (None, None, false);
    subject.images = vec![
        ("amd64".into(), published(320_000, 742_000)),
        ("arm64".into(), published(268_000, 514_000)),
    ];
    subject
}
