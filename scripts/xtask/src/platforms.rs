//! The platforms of `scripts/platforms.toml`. This is the only reader of that file.

use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::project::root;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Platform {
    /// OCI's name for the architecture. Files and tests are named after it.
    pub architecture: String,
    /// OCI's variant of the architecture.
    pub variant: Option<String>,
    /// Rust's target.
    pub target: String,
    /// Rust's target for pause-switch, which is static, where there is one.
    pub switch: Option<String>,
    /// The largest page of a kernel for this architecture, in bytes.
    pub largest_page: u64,
    /// Debian's name for the architecture of the programs beside pause in a virtual machine.
    pub debian: String,
    /// The suffix of qemu-user.
    pub qemu_user: String,
    /// The suffix of qemu-system.
    pub qemu_system: String,
    /// The machine that qemu-system emulates.
    pub machine: String,
    /// The oldest processor on which pause is tested, with the options of qemu's `-cpu`.
    pub processor: String,
    /// The console of the kernel on this machine.
    pub console: String,
    /// Debian's package of a kernel.
    pub kernel: String,
    /// The release of Debian with this kernel.
    pub suite: String,
    /// What boots this kernel.
    pub booted_by: BootedBy,
    /// The commands that boot it, with their packages, as `scripts/setup` takes them.
    pub boots_with: Vec<String>,
    /// More kernels, which `scripts/e2e kernels` boots.
    #[serde(default)]
    pub other_kernels: Vec<Kernel>,
    /// Debian's packages of Rust's library for it, where Debian has one.
    pub std: Option<String>,
    /// Whether the CPU emulator of `tests/lives` knows the processor.
    #[serde(default = "yes")]
    pub unicorn: bool,
}

/// A kernel that is not that of the platform itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub name: String,
    pub suite: String,
    /// The package and the processor, if they are not those of the platform.
    pub package: Option<String>,
    pub processor: Option<String>,
    /// What the machine shows with this kernel.
    pub shows: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum BootedBy {
    /// `scripts/test`
    Test,
    /// `scripts/e2e kernels`
    E2e,
}

fn yes() -> bool {
    true
}

impl Platform {
    /// The name of the binary in `dist/`.
    pub fn file(&self) -> String {
        format!("pause-linux-{}", self.architecture)
    }

    /// The file in `dist/` with the image of this platform alone.
    pub fn archive(&self) -> String {
        self.file() + ".oci.tar"
    }

    /// The file in `dist/` with pause-switch.
    pub fn switch_file(&self) -> String {
        format!("pause-switch-linux-{}", self.architecture)
    }

    /// The program that cargo makes, with symbols and line tables.
    pub fn linked(&self) -> PathBuf {
        root().join("target").join(&self.target).join("release/pause")
    }

    /// Whether it is the platform of this machine.
    pub fn is_host(&self) -> bool {
        let arch = std::env::consts::ARCH;
        self.target.starts_with(arch) || self.qemu_user == arch // as riscv64gc, and as thumbv7neon
    }
}

/// The name of the platform, such as `linux/arm/v7`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Reads the file, in whose order the platforms are.
pub fn read() -> Result<&'static [Platform]> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        platform: Vec<Platform>,
    }
    static FILE: LazyLock<Result<File, toml::de::Error>> =
        LazyLock::new(|| toml::from_str(include_str!("../../platforms.toml")));
    match &*FILE {
        Ok(file) => Ok(&file.platform),
        Err(error) => bail!("scripts/platforms.toml: {}", error.to_string().trim()),
    }
}

fn all() -> &'static [Platform] {
    read().unwrap_or_else(|error| panic!("{error}"))
}

/// The environment variable with the architectures that `--only` names, with commas between them.
pub const ONLY: &str = "PAUSE_ONLY";

/// The platforms of this run: all of them, or those that `--only` names.
pub fn platforms() -> Vec<&'static Platform> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let wanted = |platform: &&Platform| {
        only.is_empty() || only.split(',').any(|name| name == platform.architecture)
    };
    all().iter().filter(wanted).collect()
}

/// The platform of an architecture.
pub fn find(architecture: &str) -> Result<&'static Platform> {
    let names: Vec<_> = all().iter().map(|platform| platform.architecture.as_str()).collect();
    match names.iter().position(|name| *name == architecture) {
        Some(index) => Ok(&all()[index]),
        None => bail!("there is no '{architecture}'; there are: {}", names.join(" ")),
    }
}

/// The platform of this machine.
pub fn host() -> &'static Platform {
    all().iter().find(|platform| platform.is_host()).expect("a platform of scripts/platforms.toml")
}
