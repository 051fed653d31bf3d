//! The platforms of `scripts/platforms`, for the tools and the tests.

use std::fmt;

/// A line of the list.
#[derive(Clone, Debug)]
pub struct Platform {
    /// OCI's name for the architecture. Files and tests are named after it.
    pub architecture: &'static str,
    /// OCI's variant of the architecture.
    pub variant: Option<&'static str>,
    /// Rust's target.
    pub target: &'static str,
    /// The largest page of a kernel for this architecture, in bytes.
    pub page: u64,
    /// Debian's name for the architecture of the programs beside pause in a virtual machine.
    pub debian: &'static str,
    /// The suffix of qemu-user.
    pub user: &'static str,
    /// The suffix of qemu-system.
    pub system: &'static str,
    /// The machine that qemu-system emulates.
    pub machine: &'static str,
    /// The oldest processor on which pause is tested, with the options of qemu's `-cpu`.
    pub processor: &'static str,
    /// The console of the kernel on this machine.
    pub console: &'static str,
    /// Debian's package of a kernel.
    pub kernel: &'static str,
    /// The release of Debian with this kernel.
    pub suite: &'static str,
    /// What boots this kernel: `test` for `scripts/test`, `e2e` for `scripts/e2e kernels`.
    pub booted_by: &'static str,
}

impl Platform {
    /// Reads a line of the list; nothing for a comment.
    fn parse(line: &'static str) -> Option<Self> {
        let mut words = line.split('#').next()?.split_whitespace();
        let mut word = || words.next();
        Some(Self {
            architecture: word()?,
            variant: word().filter(|variant| *variant != "-"),
            target: word()?,
            page: word()?.parse::<u64>().ok()? * 1024,
            debian: word()?,
            user: word()?,
            system: word()?,
            machine: word()?,
            processor: word()?,
            console: word()?,
            kernel: word()?,
            suite: word()?,
            booted_by: word()?,
        })
    }

    /// The name of the binary in `dist/`.
    pub fn file(&self) -> String {
        format!("pause-linux-{}", self.architecture)
    }
}

/// The name of the platform, such as `linux/arm/v7`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// All lines of the list.
fn list() -> impl Iterator<Item = Platform> {
    let lines = include_str!("../../platforms").lines();
    lines.filter_map(Platform::parse)
}

/// The platforms in the order of the list: all of them, or those with an architecture in
/// PAUSE_ONLY, which has commas between the names.
pub fn platforms() -> Vec<Platform> {
    let only = std::env::var("PAUSE_ONLY").unwrap_or_default();
    let wanted = |platform: &Platform| {
        only.is_empty() || only.split(',').any(|name| name == platform.architecture)
    };
    list().filter(wanted).collect()
}

/// The platform of an architecture.
#[track_caller]
pub fn platform(architecture: &str) -> Platform {
    let found = list().find(|platform| platform.architecture == architecture);
    found.unwrap_or_else(|| panic!("scripts/platforms has no {architecture}"))
}

/// The architecture of this machine.
pub fn host() -> Platform {
    let prefix = format!("{}-", std::env::consts::ARCH);
    let found = list().find(|platform| platform.target.starts_with(&prefix));
    found.expect("a platform of scripts/platforms")
}
