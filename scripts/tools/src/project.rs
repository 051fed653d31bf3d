//! The project: its folders and platforms, and what git and Cargo.toml say of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use sha2::{Digest, Sha256};

/// The root of the project, which the scripts know.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| std::env::var_os("PAUSE_ROOT").unwrap_or_default().into())
}

/// Where what is built is left.
pub fn dist(file: &str) -> PathBuf {
    root().join("dist").join(file)
}

/// The script that runs this, for what is said to its user.
pub fn script() -> String {
    std::env::var("PAUSE_SCRIPT").unwrap_or_else(|_| "scripts/tools".into())
}

/// Says what was done: one line.
pub fn say(text: &str) {
    println!("{}: {text}", script());
}

/// A platform: its name in OCI, and Rust's target for it.
pub struct Platform {
    pub architecture: &'static str,
    pub target: &'static str,
}

impl Platform {
    /// The name of its file in `dist/`.
    pub fn file(&self) -> String {
        format!("pause-linux-{}", self.architecture)
    }

    /// The content of its file, which scripts/build made.
    pub fn pause(&self) -> Result<Vec<u8>> {
        let path = dist(&self.file());
        fs::read(&path).with_context(|| format!("{}: run scripts/build", path.display()))
    }
}

/// Every platform of `scripts/platforms`, in its order.
pub fn platforms() -> Vec<Platform> {
    let lines = include_str!("../../platforms").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let platform = |line: &'static str| {
        let mut words = line.split_whitespace();
        Some(Platform {
            architecture: words.next()?,
            target: words.next()?,
        })
    };
    lines.filter_map(platform).collect()
}

/// What cargo says of the project, with what is linked for `target`, if one is given.
pub fn metadata(target: Option<&str>) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    match target {
        Some(target) => {
            command.other_options(["--locked", "--filter-platform", target].map(String::from))
        }
        None => command.no_deps(),
    };
    command.exec().context("cargo metadata")
}

/// What Cargo.toml says of pause.
pub fn package() -> Result<Package> {
    let package = metadata(None)?.root_package().cloned();
    package.context("Cargo.toml has no package")
}

/// Runs git here, whoever the clone belongs to and whatever the user's settings are.
/// Nothing, where this is no clone.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(root())
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

/// The commit, with `-dirty` where the files are not those of the commit; nothing
/// outside a clone.
pub fn revision() -> Option<String> {
    // A copy of the files below another project's clone is no clone.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root()).ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain"])?.is_empty();
    Some(if clean { commit } else { commit + "-dirty" })
}

/// The time of the source, in seconds since 1970: SOURCE_DATE_EPOCH, else that of the
/// commit, else 0.
pub fn epoch() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return match epoch.parse() {
            Ok(seconds) if seconds < 1 << 33 => Ok(seconds), // what a tar header holds
            _ => bail!("SOURCE_DATE_EPOCH wants seconds since 1970, not '{epoch}'"),
        };
    }
    let commit = revision().and_then(|_| git(&["log", "-1", "--format=%ct"]));
    Ok(commit.and_then(|seconds| seconds.parse().ok()).unwrap_or(0))
}

/// A time as OCI and SPDX want it.
pub fn timestamp(epoch: u64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(epoch as i64, 0).unwrap_or_default()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file of `dist/` in one step: who reads it meanwhile finds the old or the new.
pub fn replace(file: &str, content: &[u8]) -> Result<()> {
    let path = dist(file);
    let new = dist(&format!(".{file}.{}", std::process::id()));
    let written = fs::write(&new, content).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| path.display().to_string())
}
