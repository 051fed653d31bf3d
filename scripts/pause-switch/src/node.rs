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

    /// Where a file of the node is, given its path on the node. Links lead to files below the root, too.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        safe_path::scoped_join(&self.root, path).with_context(|| path.to_string())
    }

    pub fn has(&self, path: &str) -> bool {
        self.path(path).is_ok_and(|path| path.exists())
    }

    /// The text of a file, if there is one.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        let file = self.path(path)?;
        match fs::metadata(&file) {
            // A pipe, or a device, would be waited for, or replaced.
            Ok(like) if !like.is_file() => bail!("{path} is no ordinary file"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => fs::read_to_string(file).map(Some).with_context(|| path.to_string()),
        }
    }

    /// The paths of the files in a folder that end in one of `ends`, in the order in which programs read them.
    pub fn list(&self, folder: &str, ends: &[&str]) -> Vec<String> {
        let entries = self.path(folder).and_then(|folder| Ok(fs::read_dir(folder)?));
        let entries = entries.into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| ends.iter().any(|end| name.ends_with(end))).collect();
        names.sort();
        let files = names.iter().map(|name| format!("{folder}/{name}"));
        files.filter(|file| self.path(file).is_ok_and(|path| path.is_file())).collect()
    }

    /// The paths of the files that a pattern matches, in their order.
    pub fn glob(&self, pattern: &str) -> Result<Vec<String>> {
        let root = self.root.display().to_string();
        let root = root.trim_end_matches('/');
        let all =
            glob::glob(&format!("{}{pattern}", glob::Pattern::escape(root))).with_context(|| pattern.to_string())?;
        let files = all.flatten().filter(|path| path.is_file());
        let files = files.map(|path| path.display().to_string());
        Ok(files.map(|path| path[root.len()..].to_string()).collect())
    }

    /// The last of some files, as far as they are there, whose text is as wanted.
    pub fn last(&self, files: &[String], is_wanted: impl Fn(&str, &str) -> Result<bool>) -> Result<Option<String>> {
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

    /// Puts a text in the place of a file, at once and for good: whoever reads finds the old one or the new one, also
    /// after a power failure.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        // A link stays one: what it leads to is replaced.
        let file = self.path(path)?;
        let folder = file.parent().context("a folder")?;
        // In the folder above: CRI-O reads every file of its folder, also one that is half written. In the folder
        // itself where that is a mount.
        let above = folder.parent().unwrap_or(folder);
        replace(&file, text, folder, above)
            .or_else(|_| replace(&file, text, folder, folder))
            .with_context(|| path.to_string())
    }

    /// Removes what a killed write may have left of a file.
    pub fn sweep(&self, path: &str) -> Result<()> {
        let file = self.path(path)?;
        for folder in file.ancestors().skip(1).take(2) {
            let _ = fs::remove_file(unfinished(&file, folder));
        }
        Ok(())
    }

    pub fn remove(&self, path: &str) -> Result<()> {
        match fs::remove_file(self.path(path)?) {
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

/// The name that a file has in a folder until it is complete.
fn unfinished(file: &Path, folder: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().display().to_string();
    folder.join(format!(".{name}.pause-switch"))
}

/// Replaces a file in a folder by a new one that is made in another. Mode, owner, access control lists and labels stay.
fn replace(file: &Path, text: &str, folder: &Path, made_in: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = unfinished(file, made_in);
    let write = || {
        let mut writer = File::create(&new)?;
        let mode = match fs::metadata(file) {
            Ok(like) => {
                chown(&new, Some(like.uid()), Some(like.gid()))?;
                // Not every file system has attributes.
                for name in xattr::list(file).into_iter().flatten() {
                    if let Some(value) = xattr::get(file, &name)? {
                        xattr::set(&new, &name, &value)?;
                    }
                }
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

/// Runs a program that must succeed, and returns its standard output. The error has the last line of what it printed.
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
