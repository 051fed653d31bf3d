//! `scripts/sizes`: pause as a case of a size suite. It is built in copies of the project, with other compilers,
//! other versions of rustix, or as another commit has it; docs/sizes.md says how it is used.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, json};
use toml_edit::DocumentMut;
use xtask::elf;
use xtask::options::Only;
use xtask::platforms::{Platform, platforms};
use xtask::project::{self, output, root, say};

use crate::release;
use crate::setup::rustup_add;

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub only: Only,
    /// Adds a row with another compiler: a toolchain of rustup, or "debian"
    #[arg(long, value_name = "NAME")]
    toolchain: Vec<String>,
    /// Adds a row with another version of rustix; "latest" is the newest one in the registry
    #[arg(long, value_name = "VERSION")]
    rustix: Vec<String>,
    /// Prints the sizes of this commit as one line of JSON
    #[arg(long, conflicts_with_all = ["toolchain", "rustix"])]
    json: bool,
    /// Prints a table for a pull request: the commit where it left this branch or tag, and this commit
    #[arg(long, value_name = "REF", conflicts_with_all = ["toolchain", "rustix", "json"])]
    base: Option<String>,
    /// Ends with 1 if a file is larger, for `cargo bisect-rustc --script`
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["toolchain", "rustix", "json", "base"])]
    at_most: Option<u64>,
}

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

/// A row of the table: its title, a compiler (an empty name is the one of rust-toolchain.toml),
/// and a version of rustix, if it is not the one in Cargo.lock.
struct Row {
    name: String,
    toolchain: String,
    rustix: Option<String>,
}

/// The parts of a file, with the bytes of each.
type Parts = Vec<(String, u64)>;

fn size(parts: &Parts) -> u64 {
    parts.iter().map(|(_, size)| size).sum()
}

pub fn sizes(options: &Options) -> Result<()> {
    if let Some(base) = &options.base {
        return compare_with(base);
    }
    if options.json || options.at_most.is_some() {
        let (copy, selected) = (copy()?, std::env::var("PAUSE_RUST").unwrap_or_default());
        prepare(copy.path(), None)?;
        let built = build(copy.path(), &selected)?;
        return match options.at_most {
            Some(limit) => hold(&built, limit),
            None => print_json(&built, &selected),
        };
    }
    compare(&platforms(), &options.toolchain, &options.rustix)
}

/// A folder for a copy of the project.
fn copy() -> Result<tempfile::TempDir> {
    let target = root().join("target");
    fs::create_dir_all(&target)?;
    Ok(tempfile::Builder::new().prefix("sizes-").tempdir_in(target)?)
}

/// Builds all platforms in a copy, each of which must succeed.
fn build(copy: &Path, toolchain: &str) -> Result<Vec<(&'static Platform, Parts)>> {
    let all = platforms();
    let built = all.iter().map(|platform| Ok((*platform, build_one(copy, platform, toolchain)?)));
    built.collect()
}

/// Fails if a file is larger than a limit.
fn hold(built: &[(&Platform, Parts)], limit: u64) -> Result<()> {
    for (platform, parts) in built {
        let size = size(parts);
        say(format!("{platform}: {size} bytes"));
        if size > limit {
            bail!("{platform} is larger than {limit} bytes");
        }
    }
    Ok(())
}

fn print_json(built: &[(&Platform, Parts)], toolchain: &str) -> Result<()> {
    let compiler = match toolchain {
        "" => release::compiler("rustc")?,
        name => compiler(name)?,
    };
    let sizes = built.iter().map(|(platform, parts)| (platform.to_string(), json!(size(parts))));
    let line = json!({
        "commit": project::revision()?,
        "time": project::time(project::epoch()?),
        "compiler": compiler,
        "file": sizes.collect::<Map<_, _>>(),
    });
    println!("{line}");
    Ok(())
}

/// Prints what this commit, with what is not committed, changes since it left another.
fn compare_with(name: &str) -> Result<()> {
    let copy = copy()?;
    let copy = copy.path();
    let git = |words: &[&str]| output(Command::new("git").args(words).current_dir(root()));
    let base = git(&["merge-base", name, "HEAD"]).with_context(|| format!("--base {name}"))?;
    let line = "git archive \"$1\" | tar -x -C \"$2\"";
    let mut archive = Command::new("sh");
    output(archive.args(["-ec", line, "sh", &base]).arg(copy).current_dir(root()))?;
    let before = build(copy, "")?;
    prepare(copy, None)?;
    let after = build(copy, "")?;
    println!("| size, bytes | {} | this | difference |\n|---|--:|--:|--:|", &base[..12]);
    for ((platform, was), (_, is)) in before.iter().zip(&after) {
        let difference = size(is) as i64 - size(was) as i64;
        let why = if difference == 0 { String::new() } else { format!(": {}", grown(was, is)) };
        println!("| {platform} | {} | {} | {difference:+}{why} |", size(was), size(is));
    }
    Ok(())
}

/// The parts of a file that have another size, and by how much.
fn grown(was: &Parts, is: &Parts) -> String {
    let sum = |parts: &Parts, name: &String| -> i64 {
        parts.iter().filter(|part| part.0 == *name).map(|part| part.1 as i64).sum()
    };
    let mut names: Vec<_> = was.iter().chain(is).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter_map(|name| {
        let difference = sum(is, name) - sum(was, name);
        (difference != 0).then(|| format!("{name} {difference:+}"))
    });
    changed.collect::<Vec<_>>().join(", ")
}

/// Prints the sizes with the compiler and the rustix that are pinned, and with others; and for what differs from
/// the row above, which part of the file it is.
pub fn compare(platforms: &[&Platform], toolchains: &[String], versions: &[String]) -> Result<()> {
    let copy = copy()?;
    let pinned = Row { name: "as pinned".into(), toolchain: String::new(), rustix: None };
    let (mut rows, mut changes) = (vec![pinned], Vec::new());
    for name in toolchains {
        let toolchain = name.clone();
        rows.push(Row { name: format!("{name}: {}", compiler(name)?), toolchain, rustix: None });
    }
    for version in versions {
        prepare(copy.path(), Some(version))?;
        let new = rustix(copy.path())?.version.to_string();
        changes.push(change(copy.path(), &new)?);
        let latest = if version == "latest" { " (latest)" } else { "" };
        let (name, toolchain) = (format!("rustix {new}{latest}"), String::new());
        rows.push(Row { name, toolchain, rustix: Some(new) });
    }
    let mut table = vec![vec!["compiler or library".to_string()]];
    table[0].extend(platforms.iter().map(|one| one.architecture.to_string()));
    let mut last: Vec<Option<Parts>> = vec![None; platforms.len()];
    for row in &rows {
        prepare(copy.path(), row.rustix.as_deref())?;
        let mut cells = vec![row.name.clone()];
        for (platform, last) in platforms.iter().zip(&mut last) {
            let parts = build_one(copy.path(), platform, &row.toolchain);
            cells.push(parts.as_ref().map_or("-".into(), |parts| size(parts).to_string()));
            match parts {
                Ok(parts) => {
                    if let Some(was) = last.as_ref().filter(|was| size(was) != size(&parts)) {
                        changes.push(format!("{platform}, {}: {}", row.name, grown(was, &parts)));
                    }
                    *last = Some(parts);
                }
                Err(error) => {
                    eprintln!("{}: {}, {platform}: {error:#}", project::script(), row.name)
                }
            }
        }
        table.push(cells);
    }
    let width = |i: usize| table.iter().map(|row| row[i].len()).max().unwrap_or(0);
    for row in &table {
        let cells = (1..row.len()).map(|i| format!("  {:>1$}", row[i], width(i)));
        println!("{:<1$}{2}", row[0], width(0), cells.collect::<String>());
    }
    changes.iter().for_each(|change| println!("{change}"));
    if table.iter().flatten().any(|cell| cell == "-") {
        bail!("not every build succeeded: see above");
    }
    Ok(())
}

/// The version that a compiler reports. The compiler must be installed.
fn compiler(name: &str) -> Result<String> {
    let (program, arguments, hint) = match name {
        "debian" => (
            "/usr/bin/rustc",
            vec![],
            "apt-get install rustc-web libstd-rust-web-dev:arm64".to_string(),
        ),
        _ => ("rustup", vec!["run", name, "rustc"], format!("rustup toolchain install {name}")),
    };
    let version = output(Command::new(program).args(arguments).arg("--version"));
    version.ok().with_context(|| format!("--toolchain {name} is not installed: {hint}"))
}

/// Copies the files that a build reads, sets the version of rustix, and keeps what was built
/// for the row before.
fn prepare(copy: &Path, rustix: Option<&str>) -> Result<()> {
    for file in FILES {
        let _ = fs::remove_dir_all(copy.join(file)).or_else(|_| fs::remove_file(copy.join(file)));
    }
    let mut cp = Command::new("cp");
    output(cp.args(["-r", "--parents"]).args(FILES).arg(copy).current_dir(root()))?;
    rustix.map_or(Ok(()), |version| use_rustix(copy, version))
}

/// Builds a platform by `scripts/build` in a copy, and returns the parts of the file.
fn build_one(copy: &Path, platform: &Platform, toolchain: &str) -> Result<Parts> {
    if !["", "debian"].contains(&toolchain) {
        rustup_add(&platform.target, &["--toolchain", toolchain])?;
    }
    let mut build = Command::new(std::env::current_exe()?);
    build.arg(copy.join("scripts/build")).arg(&platform.architecture);
    output(build.env("PAUSE_RUST", toolchain))?;
    let linked = copy.join("target").join(&platform.target).join("release/pause");
    elf::map(&fs::read(copy.join("dist").join(platform.file()))?, &fs::read(linked)?)
}

/// Sets a version of rustix in a copy. In each version the module with the entry point's
/// runtime has another name, which main.rs must use.
fn use_rustix(copy: &Path, version: &str) -> Result<()> {
    let manifest = copy.join("Cargo.toml");
    let mut document: DocumentMut = fs::read_to_string(&manifest)?.parse()?;
    let wanted = if version == "latest" { ">=1".into() } else { format!("={version}") };
    document["dependencies"]["rustix"]["version"] = toml_edit::value(wanted);
    fs::write(&manifest, document.to_string())?;
    for words in [&["update", "--quiet", "--package", "rustix"][..], &["fetch", "--quiet"]] {
        let done = output(Command::new("cargo").args(words).current_dir(copy));
        done.with_context(|| format!("rustix {version}"))?;
    }
    let (old, new) = (module(root())?, module(copy)?);
    for file in ["src/main.rs", "src/end.rs"] {
        let path = copy.join(file);
        fs::write(&path, fs::read_to_string(&path)?.replace(&old, &new))?;
    }
    Ok(())
}

/// What would have to change in the project to take the rustix of a copy.
fn change(copy: &Path, new: &str) -> Result<String> {
    let pinned = rustix(root())?.version.to_string();
    if pinned == new {
        return Ok(format!("rustix {new} is the pinned one"));
    }
    let (old_module, module) = (module(root())?, module(copy)?);
    let module = match old_module == module {
        true => format!("the module is {module} in both"),
        false => format!("{module} in place of {old_module} in src/ and tests/programs/"),
    };
    Ok(format!("to take rustix {new}: ={new} in place of ={pinned} in Cargo.toml; {module}"))
}

/// The source of rustix that cargo has downloaded for a project.
fn rustix(project: &Path) -> Result<cargo_metadata::Package> {
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(project).exec()?;
    let all = metadata.packages.into_iter().filter(|package| *package.name == "rustix");
    all.max_by_key(|package| package.version.clone()).context("no rustix")
}

/// The name of the hidden module with the runtime.
fn module(project: &Path) -> Result<String> {
    let manifest = rustix(project)?.manifest_path;
    let library = manifest.parent().context("a folder")?.join("src/lib.rs");
    let text = fs::read_to_string(library)?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("pub mod runtime"));
    let rest = name.context("this rustix has no runtime")?.split([' ', '{', ';']);
    Ok(format!("runtime{}", rest.take(1).collect::<String>()))
}
