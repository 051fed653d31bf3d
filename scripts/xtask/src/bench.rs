//! `scripts/bench`: what it may be asked, and what prepares a measurement.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use xtask::platforms::platforms;
use xtask::project::{root, run_to_its_end};

use crate::test::{build_program, program_of_tests};
use crate::{build, compilers, image, make_image, setup, sizes};

#[derive(clap::Args)]
pub struct Options {
    /// Compares sizes with tests/size.toml; ends with 1 if any of them differs, also if it is
    /// smaller
    #[arg(long, group = "what")]
    check: bool,
    /// Writes the sizes of today to tests/size.toml
    #[arg(long, group = "what")]
    bless: bool,
    /// Prints what each byte of the files is, by their symbols and line tables
    #[arg(long, group = "what")]
    map: bool,
    /// Prints the results for github-action-benchmark, not as a table
    #[arg(long, group = "what")]
    json: bool,
    /// Prints the results for Bencher
    #[arg(long, group = "what")]
    bmf: bool,
    /// Draws the comparison to a file
    #[arg(long, value_name = "FILE", value_parser = parse_file, conflicts_with_all = ["check", "bless", "map"])]
    svg: Option<PathBuf>,
    /// Writes the results of one run to a folder in all formats
    #[arg(long, value_name = "FOLDER", value_parser = parse_folder, conflicts_with_all = ["check", "bless", "map"])]
    out: Option<PathBuf>,
    /// Also measures upstream's image, by a name that skopeo knows, such as
    /// docker://HOST/pause:TAG or containers-storage:NAME
    #[arg(long, value_name = "IMAGE")]
    upstream: Option<String>,
    /// Builds with another installed compiler, one of rustup's or "debian", and prints the sizes
    #[arg(long, value_name = "NAME", conflicts_with_all = ["what", "svg", "out", "upstream"])]
    toolchain: Vec<String>,
    /// Builds with another version of rustix, and prints the sizes; "latest" is the newest one in
    /// the registry
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["what", "svg", "out", "upstream"])]
    rustix: Vec<String>,
}

pub fn parse_folder(folder: &str) -> Result<PathBuf> {
    match Path::new(folder).is_dir() {
        true => Ok(std::path::absolute(folder)?),
        false => bail!("there is no such folder"),
    }
}

fn parse_file(file: &str) -> Result<PathBuf> {
    let file = std::path::absolute(file)?;
    match file.parent().filter(|folder| !folder.is_dir()) {
        None => Ok(file),
        Some(folder) => bail!("there is no folder {}", folder.display()),
    }
}

pub fn bench(options: &Options) -> Result<()> {
    if !options.toolchain.is_empty() || !options.rustix.is_empty() {
        return compilers::compare(&platforms(), &options.toolchain, &options.rustix);
    }
    if options.check || options.bless {
        build::build(&platforms())?;
        return sizes::check(options.bless);
    }
    if !options.map {
        setup::want_root("for control groups and PID namespaces: run it with sudo")?;
        setup::install_lists(&["bench"])?;
        make_image(&image::Options::default())?;
    } else {
        build::build(&platforms())?;
    }
    let mut bench = program_of_tests(&build_program("bench", &["--bench", "bench"], &[])?)?;
    for (name, set) in [("--map", options.map), ("--json", options.json), ("--bmf", options.bmf)] {
        if set {
            bench.arg(name);
        }
    }
    for (name, path) in [("--svg", &options.svg), ("--out", &options.out)] {
        if let Some(path) = path {
            bench.arg(name).arg(path);
        }
    }
    if let Some(image) = &options.upstream {
        bench.args(["--upstream", image]);
    }
    run_to_its_end(bench.current_dir(root()))
}
