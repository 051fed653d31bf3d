//! The project: its folders, and what git and Cargo.toml say about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use platforms::Platform;
use sha2::{Digest, Sha256};

/// The root folder of the project. The scripts set PAUSE_ROOT.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| std::env::var_os("PAUSE_ROOT").unwrap_or_default().into())
}

/// The folder for everything that is built.
pub fn dist(file: &str) -> PathBuf {
    root().join("dist").join(file)
}

/// The name of the script that runs this program, for messages.
pub fn script() -> String {
    std::env::var("PAUSE_SCRIPT").unwrap_or_else(|_| "scripts/tools".into())
}

/// Prints one line that says what was done.
pub fn say(text: &str) {
    println!("{}: {text}", script());
}

/// The content of the binary that scripts/build made for a platform.
pub fn pause(platform: &Platform) -> Result<Vec<u8>> {
    let path = dist(&platform.file());
    fs::read(&path).with_context(|| format!("{}: run scripts/build", path.display()))
}

/// The output of `cargo metadata`, limited to the dependencies for `target` if one is given.
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

/// The package of pause in Cargo.toml.
pub fn package() -> Result<Package> {
    let package = metadata(None)?.root_package().cloned();
    package.context("Cargo.toml has no package")
}

/// Runs git in the project, whoever owns the clone, and without the settings of the user.
/// Returns nothing if this is no clone.
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

/// The commit, with the suffix `-dirty` if files differ from it. Returns nothing outside of a
/// clone.
pub fn revision() -> Option<String> {
    // A copy of the files inside the clone of another project is not a clone of this one.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root()).ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain"])?.is_empty();
    Some(if clean { commit } else { commit + "-dirty" })
}

/// The time of the source in seconds since 1970: SOURCE_DATE_EPOCH if it is set, else the time
/// of the commit, else 0.
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

/// A time in the format of OCI and SPDX.
pub fn timestamp(epoch: u64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(epoch as i64, 0).unwrap_or_default()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file of `dist/` and renames it into place, so that readers find the old or the new.
pub fn replace(file: &str, content: &[u8]) -> Result<()> {
    let path = dist(file);
    let new = dist(&format!(".{file}.{}", std::process::id()));
    let written = fs::write(&new, content).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| path.display().to_string())
}
