//! The project: its folders, what git and Cargo.toml say about it, and how its commands speak.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use sha2::{Digest, Sha256};

use crate::platforms::Platform;
use crate::signals;

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

/// An error that a program which was run has printed already, and the exit status to pass on.
#[derive(Debug)]
pub struct Printed(pub u8);

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for Printed {}

/// Runs a program that must succeed, and that says itself what is wrong if it does not. Its output is
/// progress, not a result.
pub fn run(command: &mut Command) -> Result<()> {
    match run_to_its_end(command.stdout(std::io::stderr())) {
        Err(error) if error.is::<Printed>() => Err(Printed(signals::status().unwrap_or(1)).into()),
        done => done,
    }
}

/// Runs a program that prints results, and passes its exit status on.
pub fn run_to_its_end(command: &mut Command) -> Result<()> {
    let mut running = spawn(command)?;
    let status = signals::wait(running.id() as i32, || ());
    running.wait()?;
    if status == 0 { Ok(()) } else { Err(Printed(status).into()) }
}

/// Starts a program, unless a signal has come that ends this one.
fn spawn(command: &mut Command) -> Result<Child> {
    match signals::status() {
        None => command.spawn().with_context(|| name(command)),
        Some(status) => Err(Printed(status).into()),
    }
}

/// Runs a program that must succeed, and returns its standard output. The error has one line of
/// what the program printed.
pub fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = spawn(command)?;
    signals::running(running.id() as i32);
    let output = running.wait_with_output()?;
    signals::running(0);
    match signals::status() {
        Some(status) => Err(Printed(status).into()),
        None if output.status.success() => Ok(String::from_utf8(output.stdout)?.trim().into()),
        None => bail!("{} failed: {}", name(command), reason(&output.stderr)),
    }
}

/// The name of a program and its first arguments, without whole scripts.
fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args().take(2));
    let words = words.map(|word| word.display().to_string());
    words.take_while(|word| !word.contains(['\n', ' '])).collect::<Vec<_>>().join(" ")
}

/// The line of what a program printed that says why it failed: the first that begins as errors of
/// cargo, apt and Go do, with the cause that cargo prints last; else the last one.
pub fn reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let starts = ["error", "E: ", "go: "];
    let error = lines.clone().find(|line| starts.iter().any(|start| line.starts_with(start)));
    let line = error.or(lines.next_back()).unwrap_or("it gave no reason");
    match text.trim().rsplit_once("Caused by:") {
        Some((_, cause)) => format!("{line}: {}", cause.trim().replace('\n', " ")),
        None => line.into(),
    }
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
    metadata(None)?.root_package().cloned().context("Cargo.toml has no package")
}

/// Runs git in the project, whoever owns the clone, and without the settings of the user.
/// Returns nothing if this is no clone.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "-C"]).arg(root()).args(arguments);
    // A hook of git sets variables that lead to another repository.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_"))
    {
        git.env_remove(name);
    }
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
        false => bail!("{REVISION} wants the hash of a commit, not '{revision}'"),
    }
}

/// The variable with the commit of files without the history.
pub const REVISION: &str = "PAUSE_REVISION";

/// The time of the source in seconds since 1970: SOURCE_DATE_EPOCH if it is set, else the time
/// of the commit, else 0.
pub fn epoch() -> Result<u64> {
    if let Some(epoch) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let epoch = epoch.to_string_lossy();
        return match epoch.parse() {
            // What a tar header holds.
            Ok(seconds) if seconds < 1 << 33 && !epoch.starts_with('+') => Ok(seconds),
            _ => bail!("SOURCE_DATE_EPOCH wants seconds since 1970, not '{epoch}'"),
        };
    }
    match commit().and_then(|_| git(&["log", "-1", "--format=%ct"])) {
        Some(seconds) => seconds.parse().context("the time of the commit"),
        None if std::env::var_os(REVISION).is_none() => Ok(0),
        None => bail!("{REVISION} wants the time of that commit beside it, as SOURCE_DATE_EPOCH"),
    }
}

/// A time, in seconds since 1970, in the format of OCI and SPDX.
pub fn time(epoch: u64) -> String {
    let time = chrono::DateTime::from_timestamp(epoch as i64, 0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a file of `dist/`.
pub fn read(file: &str) -> Result<Vec<u8>> {
    let path = dist(file);
    fs::read(&path).with_context(|| path.display().to_string())
}

/// Writes a file of mode 644 and renames it into place, so that readers find the old or the new.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file in a folder")?;
    let new = tempfile::NamedTempFile::new_in(folder)?;
    fs::set_permissions(new.path(), fs::Permissions::from_mode(0o644))?;
    fs::write(new.path(), content).with_context(|| path.display().to_string())?;
    new.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
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
