//! The node: its files, below --root, and the programs that run on it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub struct Node {
    root: PathBuf,
    /// Whether programs of this node may be asked and started: not with --root.
    pub is_live: bool,
}

impl Node {
    /// This machine, or the files below a folder.
    pub fn new(root: Option<PathBuf>) -> Result<Self> {
        let is_live = root.is_none();
        let root = root.unwrap_or("/".into());
        if !root.is_dir() {
            bail!("{}: there is no such folder", root.display());
        }
        Ok(Self { root, is_live })
    }

    /// Where a file of the node is, given its path on the node.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The text of a file, if there is one.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.path(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => bail!("{path}: {error}"),
        }
    }

    /// The paths of the files in a folder that end in `end`, in the order in which programs read them.
    pub fn list(&self, folder: &str, end: &str) -> Vec<String> {
        let names = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut files: Vec<_> = names.filter(|name| name.ends_with(end)).collect();
        files.sort();
        files.iter().map(|name| format!("{folder}/{name}")).collect()
    }

    /// The last of some files, as far as they are there, whose text is as wanted.
    pub fn last(
        &self,
        files: &[String],
        is_wanted: impl Fn(&str, &str) -> Result<bool>,
    ) -> Result<Option<String>> {
        let mut last = None;
        for file in files {
            if let Some(text) = self.read(file)?
                && is_wanted(file, &text)?
            {
                last = Some(file.clone());
            }
        }
        Ok(last)
    }

    /// Puts a text in the place of a file, at once and for good: whoever reads finds the old one or the
    /// new one, also after a power failure. The mode and the owner stay.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.path(path);
        // A link stays one: what it leads to is replaced.
        let file = fs::canonicalize(&file).unwrap_or(file);
        let folder = file.parent().context("a folder")?;
        // In the folder above: CRI-O reads every file of its folder, also one that is half written. In the
        // folder itself where that is a mount.
        let above = folder.parent().unwrap_or(folder);
        replace(&file, text, folder, above)
            .or_else(|_| replace(&file, text, folder, folder))
            .with_context(|| path.to_string())
    }

    pub fn remove(&self, path: &str) -> Result<()> {
        match fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("{path}: {error}"),
            _ => Ok(()),
        }
    }

    /// The command lines of the processes with one of these names, on a live node.
    pub fn processes(&self, names: &[&str]) -> Vec<(i32, Vec<String>)> {
        if !self.is_live {
            return Vec::new();
        }
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // What is in a container of this node has another PID namespace.
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
        let ours = namespace("self");
        let command = |pid: i32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            if !names.contains(&comm.trim()) || namespace(&pid.to_string()) != ours {
                return None;
            }
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, line.split_terminator('\0').map(String::from).collect()))
        };
        pids.filter_map(command).collect()
    }
}

/// Replaces a file in a folder by a new one that is made in another.
fn replace(file: &Path, text: &str, folder: &Path, made_in: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = file.file_name().unwrap_or_default().display().to_string();
    let new = made_in.join(format!(".{name}.pause-switch"));
    let write = || {
        let mut writer = File::create(&new)?;
        let mode = match fs::metadata(file) {
            Ok(like) => {
                chown(&new, Some(like.uid()), Some(like.gid()))?;
                like.permissions().mode()
            }
            Err(_) => 0o644,
        };
        writer.set_permissions(fs::Permissions::from_mode(mode))?;
        writer.write_all(text.as_bytes())?;
        writer.sync_all()?;
        fs::rename(&new, file)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// Runs a program that must succeed, and returns its standard output. The error has the last line of
/// what it printed.
pub fn output(words: &[String]) -> Result<String> {
    let mut command = Command::new(&words[0]);
    let output = command.args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} is wanted and cannot be started", words[0]))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line = stderr.trim().lines().last().unwrap_or("it gave no reason").trim().to_string();
        bail!("{}: {line}", words[0]);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The words of a command.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

/// The last part of a path.
pub fn name_of(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}
