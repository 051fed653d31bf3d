//! The programs that are measured: pause, a program that does nothing, and other pauses and
//! inits.

use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;
use goblin::elf::section_header::SHF_EXECINSTR;

use crate::map;
use harness::launch::Launch;
use harness::programs::{HOST, Platform, dist, platforms, program, root};
use harness::run;

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
    /// The command that holds a pod, with argv\[0\]; empty for a subject with published figures
    /// only.
    argv: Vec<String>,
    path: Option<PathBuf>,
    version: Option<(PathBuf, &'static str)>,
    /// Whether the program runs without a child, also when it is not PID 1.
    pub alone: bool,
    images: Vec<(&'static str, Image)>,
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

    pub fn ours() -> Self {
        let image =
            |platform: Platform| (platform.architecture, Image::ours(platform.architecture));
        let mut ours = Self::new("pause", &dist(&HOST), &[], "-v");
        ours.images = platforms().into_iter().map(image).collect();
        ours
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

    pub fn image(&self, arch: &str) -> Option<Image> {
        self.images
            .iter()
            .find(|(name, _)| *name == arch)
            .map(|(_, image)| *image)
    }

    /// The size of the file, in bytes. Only pause is here for other architectures.
    pub fn file(&self, arch: &str) -> Option<u64> {
        let path = match self.name.as_str() {
            "pause" => dist(arch),
            _ if arch == *HOST => self.path.clone()?,
            _ => return None,
        };
        Some(fs::metadata(path).expect("a program").len())
    }

    /// The bytes of headers, of code and of strings.
    pub fn parts(&self) -> Option<[u64; 3]> {
        if self.name == "pause" {
            return Some(map::parts(&HOST));
        }
        let bytes = fs::read(self.path()?).expect("a program");
        let elf = Elf::parse(&bytes).expect("an ELF file");
        let header = &elf.header;
        let headers = u64::from(header.e_ehsize)
            + u64::from(header.e_phnum) * u64::from(header.e_phentsize)
            + u64::from(header.e_shnum) * u64::from(header.e_shentsize);
        let size = |wanted: &dyn Fn(&str, u64) -> bool| -> u64 {
            let sections = elf.section_headers.iter();
            let named = sections.map(|s| (elf.shdr_strtab.get_at(s.sh_name).unwrap_or(""), s));
            named
                .filter(|(name, s)| wanted(name, s.sh_flags))
                .map(|(_, s)| s.sh_size)
                .sum()
        };
        let code = size(&|_, flags| flags & u64::from(SHF_EXECINSTR) != 0);
        let strings = size(&|name, _| name == ".rodata");
        match elf.section_headers.len() {
            0 => Some([headers, bytes.len() as u64 - headers, 0]), // the no-op
            _ => Some([headers, code, strings]),
        }
    }
}

impl Image {
    /// The image that `scripts/image` packed.
    fn ours(arch: &str) -> Self {
        let from = format!(
            "oci-archive:{}",
            root().join("dist/pause.oci.tar").display()
        );
        Self::of(&from, arch)
    }

    /// Reads the image that skopeo finds under a reference.
    fn of(from: &str, arch: &str) -> Self {
        let (layout, root) = unpack(from, arch);
        let sizes = |folder: &Path| -> u64 {
            let files = run(
                "find",
                &[
                    folder.to_str().expect("UTF-8"),
                    "-type",
                    "f",
                    "-printf",
                    "%s\n",
                ],
            );
            files
                .lines()
                .map(|line| line.parse::<u64>().expect("a size"))
                .sum()
        };
        Self {
            pulled: sizes(&layout.join("blobs")),
            unpacked: sizes(&root),
        }
    }
}

/// The temporary folder of this run, which `main` removes. Two runs may run at once.
pub fn folder() -> PathBuf {
    let name = format!("bench-{}", std::process::id());
    let folder = root().join("target/tests").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Copies one platform of an image to an OCI layout, and unpacks its files.
fn unpack(from: &str, arch: &str) -> (PathBuf, PathBuf) {
    let folder = folder().join("image");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let layout = format!("{}:1", folder.join("oci").display());
    run(
        "skopeo",
        &[
            "--override-arch",
            arch,
            "copy",
            "--quiet",
            from,
            &format!("oci:{layout}"),
        ],
    );
    let bundle = folder.join("bundle");
    run(
        "umoci",
        &[
            "unpack",
            "--image",
            &layout,
            bundle.to_str().expect("UTF-8"),
        ],
    );
    (folder.join("oci"), bundle.join("rootfs"))
}

/// Compiles `pause.c` as a static program, by the given compiler.
fn c(compiler: &str) -> PathBuf {
    let path = folder().join(format!("pause-{compiler}"));
    let source = root().join("tests/bench/pause.c");
    run(
        compiler,
        &[
            "-Os",
            "-static",
            "-s",
            "-o",
            path.to_str().expect("UTF-8"),
            source.to_str().expect("UTF-8"),
        ],
    );
    path
}

/// pause and the program that does nothing.
pub fn ours_and_floor() -> Vec<Subject> {
    let mut floor = Subject::new("no-op", &stripped("noop"), &[], "-v");
    floor.version = Some((stripped("exit"), "-v")); // which only exits
    vec![Subject::ours(), floor]
}

/// One of the programs in `tests/programs`, without debugging information.
fn stripped(name: &str) -> PathBuf {
    let path = folder().join(name);
    fs::copy(program(name), &path).expect("a copy");
    run(
        "llvm-objcopy",
        &["--strip-sections", path.to_str().expect("UTF-8")],
    );
    path
}

/// All subjects; the first two are those of `ours_and_floor`.
pub fn all() -> Vec<Subject> {
    let mut all = ours_and_floor();
    let child = all[1].path().expect("a program").to_owned();
    let child = child.to_str().expect("UTF-8");
    all.extend([
        Subject::new("C, glibc", &c("gcc"), &[], "-v"),
        Subject::new("C, musl", &c("musl-gcc"), &[], "-v"),
        Subject::new(
            "catatonit -P",
            Path::new("/usr/bin/catatonit"),
            &["-P"],
            "--version",
        ),
        Subject::new(
            "tini",
            Path::new("/usr/bin/tini"),
            &["--", child],
            "--version",
        ),
        Subject::new(
            "dumb-init",
            Path::new("/usr/bin/dumb-init"),
            &[child],
            "--version",
        ),
        upstream(),
    ]);
    all
}

/// Upstream's image, if scripts/bench was given a reference to one; else the published sizes
/// of version 3.10.
fn upstream() -> Subject {
    if let Ok(reference) = std::env::var("PAUSE_UPSTREAM") {
        let path = folder().join("pause-upstream");
        fs::copy(unpack(&reference, &HOST).1.join("pause"), &path).expect("/pause of the image");
        let mut subject = Subject::new("upstream", &path, &[], "-v");
        subject.images = vec![(*HOST, Image::of(&reference, &HOST))];
        return subject;
    }
    let published = |pulled, unpacked| Image { pulled, unpacked };
    Subject {
        name: "upstream (published)".into(),
        argv: Vec::new(),
        path: None,
        version: None,
        alone: false,
        images: vec![
            ("amd64", published(320_000, 742_000)),
            ("arm64", published(268_000, 514_000)),
        ],
    }
}
