//! The project: its folders, what git and Cargo.toml say about it, and how its commands speak.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use sha2::{Digest, Sha256};

static SCRIPT: OnceLock<PathBuf> = OnceLock::new();

/// Says by which script this program was started. The project is the one that has the script.
pub fn started_by(script: PathBuf) {
    let _ = SCRIPT.set(script);
}

/// The root folder of the project.
pub fn root() -> &'static Path {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")); // for the tests, which no script starts
    let inside = SCRIPT.get().and_then(|script| script.parent()).or(source.parent());
    inside.and_then(Path::parent).unwrap_or(source)
}

/// A file of the folder for everything that is built.
pub fn dist(file: &str) -> PathBuf {
    root().join("dist").join(file)
}

/// The name of the script that runs this program, for messages.
pub fn script() -> String {
    let name = SCRIPT.get().and_then(|script| script.file_name()).unwrap_or_default();
    format!("scripts/{}", name.display())
}

/// Prints one line that says what was done. What scripts/bench has on standard output are results.
pub fn say(text: impl std::fmt::Display) {
    match script().as_str() {
        "scripts/bench" => eprintln!("scripts/bench: {text}"),
        script => println!("{script}: {text}"),
    }
}

/// Runs a program that prints its own errors. It is ended when this one is.
pub fn run(command: &mut Command) -> Result<()> {
    // SAFETY: a system call between fork and execve.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    match command.status().with_context(|| name(command))?.success() {
        true => Ok(()),
        false => bail!("{} failed: see above", name(command)),
    }
}

/// Runs a program that must succeed, and returns its standard output. The error has one line of what the program
/// printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| name(command))?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().into()),
        false => bail!("{} failed: {}", name(command), reason(&output.stderr)),
    }
}

/// The name of a program and its first arguments, without whole scripts.
fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args().take(2));
    let words = words.map(|word| word.display().to_string());
    words.take_while(|word| !word.contains(['\n', ' '])).collect::<Vec<_>>().join(" ")
}

/// The line of what a program printed that says why it failed: the first that begins as errors of cargo, apt and Go do,
/// with the cause that cargo prints last; else the last one.
fn reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.split("Stack backtrace:").next().unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let starts = ["error", "E: ", "go: "];
    let error = lines.clone().find(|line| starts.iter().any(|start| line.starts_with(start)));
    let line = error.or(lines.next_back()).unwrap_or("it gave no reason");
    match text.trim().rsplit_once("Caused by:") {
        Some((_, cause)) => format!("{line}: {}", cause.trim().replace('\n', " ")),
        None => line.into(),
    }
}

/// The output of `cargo metadata`, limited to the dependencies for `target` if one is given.
pub fn metadata(target: Option<&str>) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    match target {
        Some(target) => command.other_options(["--locked", "--filter-platform", target].map(String::from)),
        None => command.no_deps(),
    };
    command.exec().context("cargo metadata")
}

/// The package of pause in Cargo.toml.
pub fn package() -> Result<Package> {
    metadata(None)?.root_package().cloned().context("Cargo.toml has no package")
}

/// Runs git in the project, whoever owns the clone, and without the settings of the user. Returns nothing if this is no
/// clone.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "-C"]).arg(root()).args(arguments);
    output(git.env("GIT_CONFIG_GLOBAL", "/dev/null")).ok()
}

/// The commit of a clone, with the suffix `-dirty` if files differ from it.
fn commit() -> Option<String> {
    // A copy of the files inside the clone of another project is not a clone of this one.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root()).ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain"])?.is_empty();
    Some(if clean { commit } else { commit + "-dirty" })
}

/// The variable with the commit of files without the history.
pub const REVISION: &str = "PAUSE_REVISION";

/// The commit of a clone, or PAUSE_REVISION for files without the history, as in a source archive.
pub fn revision() -> Result<Option<String>> {
    let commit = commit();
    let Some(revision) = std::env::var_os(REVISION).filter(|_| commit.is_none()) else {
        return Ok(commit);
    };
    let revision = revision.to_string_lossy().into_owned();
    let right = |letter: char| letter.is_ascii_digit() || ('a'..='f').contains(&letter);
    match revision.chars().all(right) && [40, 64].contains(&revision.len()) {
        true => Ok(Some(revision)),
        false => bail!("{REVISION}: expected the hash of a commit, not '{revision}'"),
    }
}

/// The time of the source in seconds since 1970: SOURCE_DATE_EPOCH if it is set, else the time of the commit, else 0.
pub fn epoch() -> Result<u64> {
    if let Some(epoch) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let epoch = epoch.to_string_lossy();
        return match epoch.parse() {
            // What a tar header holds.
            Ok(seconds) if seconds < 1 << 33 && !epoch.starts_with('+') => Ok(seconds),
            _ => bail!("SOURCE_DATE_EPOCH: expected seconds since 1970, not '{epoch}'"),
        };
    }
    match commit().and_then(|_| git(&["log", "-1", "--format=%ct"])) {
        Some(seconds) => seconds.parse().context("the time of the commit"),
        None if std::env::var_os(REVISION).is_none() => Ok(0),
        None => bail!("{REVISION} is set: set SOURCE_DATE_EPOCH to the time of that commit, too"),
    }
}

/// A time, in seconds since 1970, in the format of OCI and SPDX.
pub fn time(epoch: u64) -> String {
    let time = chrono::DateTime::from_timestamp(epoch as i64, 0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Writes a file and renames it into place, so that readers find the old one or the new one.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        let new = tempfile::NamedTempFile::new_in(path.parent().context("a file in a folder")?)?;
        fs::set_permissions(new.path(), fs::Permissions::from_mode(mode))?;
        fs::write(new.path(), content)?;
        // A program must not be open for writing when it is started.
        Ok(new.into_temp_path().persist(path)?)
    };
    write().with_context(|| path.display().to_string())
}

/// The mirror of Debian that this machine uses.
pub fn debian_mirror() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)"]);
    let list = output(&mut apt)?;
    let mut targets = list.lines().filter_map(|line| line.strip_prefix("Debian "));
    let mirror = targets.find_map(|line| {
        let (release, mirror) = line.split_once(' ')?;
        (!release.contains("security")).then(|| mirror.to_string())
    });
    mirror.context("this machine has no mirror of Debian: run apt-get update, on Debian")
}
