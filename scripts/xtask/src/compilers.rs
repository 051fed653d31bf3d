//! Builds pause with other compilers and other versions of rustix, each in a copy of the
//! project, and compares the sizes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use toml_edit::DocumentMut;
use xtask::platforms::Platform;
use xtask::project::{self, output, root};

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

/// Prints the sizes with the compiler and the rustix that are pinned, and with others.
pub fn compare(platforms: &[&Platform], toolchains: &[String], versions: &[String]) -> Result<()> {
    let target = root().join("target");
    fs::create_dir_all(&target)?;
    let copy = tempfile::Builder::new().prefix("compilers-").tempdir_in(target)?;
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
    for row in &rows {
        prepare(copy.path(), row.rustix.as_deref())?;
        table.push(sizes(copy.path(), platforms, row)?);
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

/// A row of the table: the sizes of the files that `scripts/build` makes in the copy.
fn sizes(copy: &Path, platforms: &[&Platform], row: &Row) -> Result<Vec<String>> {
    let mut cells = vec![row.name.clone()];
    for platform in platforms {
        let architecture = &platform.architecture;
        let mut build = Command::new(std::env::current_exe()?);
        build.arg(copy.join("scripts/build")).arg(architecture).env("PAUSE_RUST", &row.toolchain);
        cells.push(match output(&mut build) {
            Ok(_) => fs::metadata(copy.join("dist").join(platform.file()))?.len().to_string(),
            Err(error) => {
                eprintln!("{}: {}, {architecture}: {error:#}", project::script(), row.name);
                "-".into()
            }
        });
    }
    Ok(cells)
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
