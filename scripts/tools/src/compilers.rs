//! Builds pause with other compilers and other versions of rustix, each in a copy of the
//! project by `scripts/build`, and compares the sizes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use platforms::platforms;
use toml_edit::DocumentMut;

use crate::project::{root, script};

/// The files of the project that a build reads.
const FILES: [&str; 9] = [
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "build.rs",
    "linker.ld",
    "rust-toolchain.toml",
    "scripts",
    "src",
    "tests/programs", // a member of the workspace
];

/// A temporary folder, removed when it goes out of scope.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A row of the table: its title, a compiler (an empty name is the one of rust-toolchain.toml),
/// and a version of rustix, if it is not the one in Cargo.lock.
struct Row {
    name: String,
    toolchain: String,
    rustix: Option<String>,
    /// What would have to change in the project to take it.
    change: Option<String>,
}

impl Row {
    /// Makes a row from two arguments, after checking that the compiler or the version exists.
    fn new(pair: &[String], copy: &Path) -> Result<Self> {
        match pair {
            [kind, name] if kind == "toolchain" => Ok(Self {
                name: format!("{name}: {}", compiler(name)?),
                toolchain: name.clone(),
                rustix: None,
                change: None,
            }),
            [kind, version] if kind == "rustix" => {
                prepare(copy, Some(version))?;
                let latest = if version == "latest" { " (latest)" } else { "" };
                let version = rustix(copy)?.version.to_string();
                let pinned = rustix(root())?.version.to_string();
                let (old, new) = (module(root())?, module(copy)?);
                let name = match old == new {
                    true => format!("the module is {new} in both"),
                    false => format!("{new} in place of {old} in src/ and tests/programs/"),
                };
                let change = match pinned == version {
                    true => format!("rustix {version} is the pinned one"),
                    false => format!(
                        "to take rustix {version}: ={version} in place of ={pinned} in Cargo.toml; {name}"
                    ),
                };
                Ok(Self {
                    name: format!("rustix {version}{latest}"),
                    toolchain: String::new(),
                    rustix: Some(version),
                    change: Some(change),
                })
            }
            _ => bail!("wants pairs of toolchain or rustix and a name, not {pair:?}"),
        }
    }
}

/// Takes pairs of arguments, `toolchain NAME` or `rustix VERSION`, and prints the table.
pub fn compare(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let words: Vec<_> = arguments.map(|word| word.display().to_string()).collect();
    let target = root().join("target");
    fs::create_dir_all(&target)?;
    let copy = Copy(target.join(format!("compilers-{}", std::process::id())));
    let mut rows = vec![Row {
        name: "as pinned".into(),
        toolchain: String::new(),
        rustix: None,
        change: None,
    }];
    for pair in words.chunks(2) {
        rows.push(Row::new(pair, &copy.0)?);
    }
    let mut table = vec![vec!["compiler or library".to_string()]];
    table[0].extend(platforms().iter().map(|one| one.architecture.to_string()));
    for row in &rows {
        prepare(&copy.0, row.rustix.as_deref())?;
        let sizes = sizes(&copy.0, row)?.into_iter();
        let cells = sizes.map(|size| size.map_or("-".into(), |size| size.to_string()));
        table.push(std::iter::once(row.name.clone()).chain(cells).collect());
    }
    let width = |i: usize| table.iter().map(|row| row[i].len()).max().unwrap_or(0);
    for row in &table {
        let cells = (1..row.len()).map(|i| format!("  {:>1$}", row[i], width(i)));
        let cells: String = cells.collect();
        println!("{:<1$}{cells}", row[0], width(0));
    }
    for change in rows.iter().filter_map(|row| row.change.as_ref()) {
        println!("{change}");
    }
    if table.iter().flatten().any(|cell| cell == "-") {
        bail!("a \"-\" above has its reason before the table");
    }
    Ok(())
}

/// The version that a compiler reports. The compiler must be installed.
fn compiler(name: &str) -> Result<String> {
    let (mut command, hint) = match name {
        "debian" => (
            Command::new("/usr/bin/rustc"),
            "apt-get install rustc-web libstd-rust-web-dev:arm64".to_string(),
        ),
        _ => {
            let mut command = Command::new("rustup");
            command.args(["run", name, "rustc"]);
            (command, format!("rustup toolchain install {name}"))
        }
    };
    let output = command.arg("--version").output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8(output.stdout)?.trim().into())
        }
        _ => bail!("--toolchain {name} is not installed: {hint}"),
    }
}

/// Copies the files that a build reads, sets the version of rustix, and keeps what was built
/// for the row before.
fn prepare(copy: &Path, rustix: Option<&str>) -> Result<()> {
    for file in FILES {
        let _ = fs::remove_dir_all(copy.join(file)).or_else(|_| fs::remove_file(copy.join(file)));
    }
    fs::create_dir_all(copy)?;
    run(Command::new("cp")
        .args(["-r", "--parents"])
        .args(FILES)
        .arg(copy)
        .current_dir(root()))?;
    match rustix {
        Some(version) => use_rustix(copy, version),
        None => Ok(()),
    }
}

/// The sizes of the files that `scripts/build` makes in the copy.
fn sizes(copy: &Path, row: &Row) -> Result<Vec<Option<u64>>> {
    let mut sizes = Vec::new();
    for platform in platforms() {
        let output = Command::new(copy.join("scripts/build"))
            .arg(platform.architecture)
            .env("PAUSE_RUST", &row.toolchain)
            .output()?;
        let size = fs::metadata(copy.join("dist").join(platform.file())).map(|file| file.len());
        if !output.status.success() {
            eprintln!(
                "{}: {}, {}: {}",
                script(),
                row.name,
                platform.architecture,
                reason(&output)
            );
        }
        sizes.push(size.ok().filter(|_| output.status.success()));
    }
    Ok(sizes)
}

/// Sets a version of rustix in a copy. In each version the module with the entry point's
/// runtime has another name, which main.rs must use.
fn use_rustix(copy: &Path, version: &str) -> Result<()> {
    let manifest = copy.join("Cargo.toml");
    let mut document: DocumentMut = fs::read_to_string(&manifest)?.parse()?;
    let wanted = if version == "latest" {
        ">=1".into()
    } else {
        format!("={version}")
    };
    document["dependencies"]["rustix"]["version"] = toml_edit::value(wanted);
    fs::write(&manifest, document.to_string())?;
    let cargo = |words: &[&str]| run(Command::new("cargo").args(words).current_dir(copy));
    cargo(&["update", "--quiet", "--package", "rustix"])
        .with_context(|| format!("rustix {version}"))?;
    cargo(&["fetch", "--quiet"]).with_context(|| format!("rustix {version}"))?;

    let old = module(root())?;
    let new = module(copy)?;
    for file in ["src/main.rs", "src/end.rs"] {
        let path = copy.join(file);
        fs::write(&path, fs::read_to_string(&path)?.replace(&old, &new))?;
    }
    Ok(())
}

/// The source of rustix that cargo has downloaded for a project.
fn rustix(project: &Path) -> Result<cargo_metadata::Package> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(project)
        .exec()?;
    let all = metadata
        .packages
        .into_iter()
        .filter(|package| *package.name == "rustix");
    all.max_by_key(|package| package.version.clone())
        .context("no rustix")
}

/// The name of the hidden module with the runtime.
fn module(project: &Path) -> Result<String> {
    let manifest = rustix(project)?.manifest_path;
    let library = manifest.parent().context("a folder")?.join("src/lib.rs");
    let text = fs::read_to_string(library)?;
    let name = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("pub mod runtime"));
    let name = name.context("this rustix has no runtime")?;
    let suffix: String = name
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    Ok(format!("runtime{suffix}"))
}

/// Runs a program that must succeed.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{}", reason(&output));
    }
    Ok(())
}

/// The first line of the error that a program printed, and its cause, which cargo prints last.
fn reason(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.clone().find(|line| line.starts_with("error"));
    let first = first
        .or_else(|| lines.next())
        .unwrap_or("no reason was given");
    match text.trim().rsplit_once("Caused by:") {
        Some((_, cause)) => format!("{first}: {}", cause.trim().replace('\n', " ")),
        None => first.to_string(),
    }
}
