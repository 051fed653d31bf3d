//! The platforms that pause is built for. A new one is an entry of [`ALL`], and what CONTRIBUTING.md says.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::project::{dist, root};

#[derive(Debug)]
pub struct Platform {
    /// OCI's name for the architecture. Files and tests are named after it.
    pub architecture: &'static str,
    /// OCI's variant of the architecture.
    pub variant: Option<&'static str>,
    /// Rust's target.
    pub target: &'static str,
    /// Rust's target for pause-switch, which is static, where rustup has one.
    pub switch: Option<&'static str>,
    /// The largest page of a kernel for this architecture, in bytes.
    pub largest_page: u64,
    /// Debian's name for the architecture of the programs beside pause in a virtual machine.
    pub debian: &'static str,
    pub qemu: Qemu,
    /// The kernels that are booted: the first by `scripts/test` on amd64 and arm64, the others by `scripts/e2e
    /// kernels`.
    pub kernels: &'static [Kernel],
}

/// What qemu calls the architecture and what it emulates.
#[derive(Debug)]
pub struct Qemu {
    /// The suffixes of qemu-user and of qemu-system.
    pub user: &'static str,
    pub system: &'static str,
    pub machine: &'static str,
    /// The oldest processor on which pause is tested, with the options of `-cpu`.
    pub cpu: &'static str,
    /// What the command line of a kernel needs on this machine.
    pub append: &'static str,
}

/// A kernel of Debian.
#[derive(Debug)]
pub struct Kernel {
    /// The folder below `target/machine`.
    pub name: &'static str,
    pub suite: &'static str,
    /// Its package, with the architecture if that is not `debian`.
    pub package: &'static str,
    /// The processor, if it is not the platform's oldest.
    pub processor: Option<&'static str>,
    /// What the machine shows with this kernel.
    pub shows: &'static str,
}

const fn kernel(name: &'static str, suite: &'static str, package: &'static str, shows: &'static str) -> Kernel {
    Kernel { name, suite, package, processor: None, shows }
}

// Debian has no kernel for arm64 with pages of 64 KiB.
pub const ALL: [Platform; 6] = [
    Platform {
        architecture: "amd64",
        variant: None,
        target: "x86_64-unknown-linux-gnu",
        switch: Some("x86_64-unknown-linux-musl"),
        largest_page: 4096,
        debian: "amd64",
        // Under emulation on a busy host Linux finds that the timer does not work, and panics.
        qemu: Qemu {
            user: "x86_64",
            system: "x86_64",
            machine: "pc",
            cpu: "qemu64",
            append: "console=ttyS0 no_timer_check",
        },
        kernels: &[
            kernel("amd64", "bookworm", "linux-image-cloud-amd64", "Linux 6.1."),
            kernel("amd64-5.10", "bullseye", "linux-image-cloud-amd64", "Linux 5.10."),
            kernel("amd64-6.12", "trixie", "linux-image-cloud-amd64", "Linux 6.12."),
            kernel("amd64-newest", "sid", "linux-image-cloud-amd64", "argc 0 becomes 1"),
        ],
    },
    Platform {
        architecture: "arm64",
        variant: None,
        target: "aarch64-unknown-linux-gnu",
        switch: Some("aarch64-unknown-linux-musl"),
        largest_page: 65536,
        debian: "arm64",
        qemu: Qemu {
            user: "aarch64",
            system: "aarch64",
            machine: "virt",
            cpu: "cortex-a53",
            append: "console=ttyAMA0",
        },
        kernels: &[
            kernel("arm64", "bookworm", "linux-image-cloud-arm64", "Linux 6.1."),
            kernel("arm64-5.10", "bullseye", "linux-image-cloud-arm64", "Linux 5.10."),
            kernel("arm64-6.12", "trixie", "linux-image-cloud-arm64", "Linux 6.12."),
            kernel("arm64-newest", "sid", "linux-image-cloud-arm64", "argc 0 becomes 1"),
            Kernel {
                processor: Some("max,pauth-impdef=on"),
                ..kernel("arm64-16k", "trixie", "linux-image-arm64-16k", "pages: 16 kB")
            },
        ],
    },
    Platform {
        architecture: "arm",
        variant: Some("v7"),
        target: "thumbv7neon-unknown-linux-gnueabihf",
        switch: None,
        largest_page: 65536,
        debian: "armel",
        qemu: Qemu {
            user: "arm",
            system: "arm",
            machine: "virt",
            cpu: "cortex-a7,neon=off,vfp=off",
            append: "console=ttyAMA0",
        },
        kernels: &[
            kernel("arm", "bookworm", "linux-image-armmp:armhf", "Linux 6.1."),
            // With the floating-point unit.
            Kernel {
                processor: Some("cortex-a7"),
                ..kernel("arm", "bookworm", "linux-image-armmp:armhf", "Linux 6.1.")
            },
        ],
    },
    Platform {
        architecture: "riscv64",
        variant: None,
        target: "riscv64gc-unknown-linux-gnu",
        switch: None,
        largest_page: 4096,
        debian: "riscv64",
        qemu: Qemu { user: "riscv64", system: "riscv64", machine: "virt", cpu: "rv64", append: "console=ttyS0" },
        kernels: &[kernel("riscv64", "trixie", "linux-image-riscv64", "Linux 6.12.")],
    },
    Platform {
        architecture: "ppc64le",
        variant: None,
        target: "powerpc64le-unknown-linux-gnu",
        switch: None,
        largest_page: 65536,
        debian: "ppc64el",
        qemu: Qemu { user: "ppc64le", system: "ppc64", machine: "pseries", cpu: "power8", append: "console=hvc0" },
        kernels: &[kernel("ppc64le", "bookworm", "linux-image-powerpc64le", "pages: 64 kB")],
    },
    Platform {
        architecture: "s390x",
        variant: None,
        target: "s390x-unknown-linux-gnu",
        switch: None,
        largest_page: 4096,
        debian: "s390x",
        qemu: Qemu {
            user: "s390x",
            system: "s390x",
            machine: "s390-ccw-virtio",
            cpu: "max",
            append: "console=ttysclp0",
        },
        kernels: &[kernel("s390x", "bookworm", "linux-image-s390x", "Linux 6.1.")],
    },
];

impl Platform {
    /// The name of the program in `dist/`.
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

    /// The program that cargo linked, with symbols and line tables.
    pub fn linked(&self) -> PathBuf {
        root().join("target").join(self.target).join("release/pause")
    }

    /// The content of the program in `dist/`.
    pub fn program(&self) -> Result<Vec<u8>> {
        let path = dist(&self.file());
        std::fs::read(&path).with_context(|| format!("{}: run scripts/build", path.display()))
    }

    /// Whether it is the platform of this machine.
    pub fn is_host(&self) -> bool {
        let arch = std::env::consts::ARCH;
        self.target.starts_with(arch) || self.qemu.user == arch // as riscv64gc, and as thumbv7neon
    }

    /// The kernels that `scripts/test` boots, or that `scripts/e2e kernels` does.
    pub fn booted(&self, by_test: bool) -> &'static [Kernel] {
        let count = usize::from(["amd64", "arm64"].contains(&self.architecture));
        if by_test { &self.kernels[..count] } else { &self.kernels[count..] }
    }
}

/// The name of the platform, such as `linux/arm/v7`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// The environment variable that passes `--only` on to the programs of the tests.
pub const ONLY: &str = "PAUSE_ONLY";

static LIMITED: OnceLock<Vec<&'static Platform>> = OnceLock::new();

/// Limits this run to some platforms, unless there are none.
pub fn limit(only: &[&'static Platform]) {
    let wanted = |one: &&Platform| only.iter().any(|other| other.architecture == one.architecture);
    if !only.is_empty() {
        let _ = LIMITED.set(ALL.iter().filter(wanted).collect());
    }
}

/// The platforms of this run: all of them, or those that `--only` names.
pub fn platforms() -> Vec<&'static Platform> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let wanted = |one: &&Platform| only.is_empty() || only.split(',').any(|name| name == one.architecture);
    LIMITED.get_or_init(|| ALL.iter().filter(wanted).collect()).clone()
}

/// Their architectures.
pub fn names(platforms: &[&Platform]) -> Vec<&'static str> {
    platforms.iter().map(|one| one.architecture).collect()
}

/// The platform of an architecture.
pub fn find(architecture: &str) -> Result<&'static Platform> {
    match ALL.iter().find(|one| one.architecture == architecture) {
        Some(platform) => Ok(platform),
        None => bail!("expected one of: {}", names(&ALL.iter().collect::<Vec<_>>()).join(" ")),
    }
}

/// The platform of this machine.
pub fn host() -> &'static Platform {
    ALL.iter().find(|platform| platform.is_host()).expect("pause is not built for this architecture")
}
