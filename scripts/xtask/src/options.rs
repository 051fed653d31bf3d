//! The options of the commands that run a program in `tests/`. The tool reads them to prepare what the
//! program needs, and the program reads them again.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::platforms::{Platform, find};

#[derive(clap::Args, Default)]
#[group(skip)]
pub struct Only {
    /// Limits the run to these architectures of scripts/platforms.toml, such as amd64,arm64
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = find)]
    pub only: Vec<&'static Platform>,
}

#[derive(clap::Args)]
pub struct Bench {
    /// Compares sizes with tests/size.toml; ends with 1 if any of them differs, also if it is
    /// smaller
    #[arg(long, group = "what")]
    pub check: bool,
    /// Writes the sizes of today to tests/size.toml
    #[arg(long, group = "what")]
    pub bless: bool,
    /// Prints what each byte of the files is, by their symbols and line tables
    #[arg(long, group = "what")]
    pub map: bool,
    /// Prints the results for github-action-benchmark, not as a table
    #[arg(long, group = "what")]
    pub json: bool,
    /// Prints the results for Bencher
    #[arg(long, group = "what")]
    pub bmf: bool,
    /// Draws the comparison to a file
    #[arg(long, value_name = "FILE", value_parser = parse_file, conflicts_with_all = ["check", "bless", "map"])]
    pub svg: Option<PathBuf>,
    /// Writes the results of one run to a folder in all formats
    #[arg(long, value_name = "FOLDER", value_parser = parse_folder, conflicts_with_all = ["check", "bless", "map"])]
    pub out: Option<PathBuf>,
    /// Also measures upstream's image, by a name that skopeo knows, such as
    /// docker://HOST/pause:TAG or containers-storage:NAME
    #[arg(long, value_name = "IMAGE")]
    pub upstream: Option<String>,
}

fn parse_folder(folder: &str) -> Result<PathBuf> {
    match Path::new(folder).is_dir() {
        true => Ok(folder.into()),
        false => bail!("there is no such folder"),
    }
}

fn parse_file(file: &str) -> Result<PathBuf> {
    let file = PathBuf::from(file);
    match std::path::absolute(&file)?.parent().filter(|folder| !folder.is_dir()) {
        None => Ok(file),
        Some(folder) => bail!("there is no folder {}", folder.display()),
    }
}

/// The parts that run if none is named.
pub const DEFAULT: &[&str] = &[
    "cri",
    "kubelet",
    "crio",
    "switch",
    "signed",
    "hundred",
    "critest",
    "existing",
    "kernels",
    "runtimes",
    "cluster",
    "kind",
    "refusals",
    "workflows",
];
/// The parts that take longer.
const LONG: &[&str] = &[
    "scanners",
    "thousand",
    "machine",
    "machine-arm64",
    "node-conformance",
    "conformance",
    "soak",
];

#[derive(clap::Args, Default)]
#[group(skip)]
pub struct Output {
    /// Writes a report to a folder: versions, results and measurements in Markdown, and JUnit
    #[arg(long, value_name = "FOLDER", value_parser = parse_folder)]
    pub report: Option<PathBuf>,
    /// Writes the logs to this folder; the default is target/e2e/logs
    #[arg(long, value_name = "FOLDER")]
    pub logs: Option<PathBuf>,
}

#[derive(clap::Args, Default)]
pub struct E2e {
    /// Tests the runtime at this CRI endpoint, such as unix:///run/containerd/containerd.sock, with
    /// pods that are removed afterwards
    #[arg(long, value_name = "URI", value_parser = parse_endpoint, conflicts_with = "parts")]
    pub endpoint: Option<String>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub only: Only,
    /// Ends with 1 also if something cannot be checked on this machine
    #[arg(long)]
    pub all: bool,
    /// Runs only these parts; the default is the first list below
    #[arg(value_parser = parse_part)]
    pub parts: Vec<String>,
}

#[derive(clap::Args)]
pub struct Soak {
    /// Begins further rounds until so many hours have passed; the default is one round
    #[arg(long, value_name = "H", default_value_t = 0, hide_default_value = true)]
    pub hours: u64,
    /// Repeats the random choices of another run, which has printed this number
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub output: Output,
}

fn parse_part(name: &str) -> Result<String> {
    if DEFAULT.contains(&name) || LONG.contains(&name) {
        return Ok(name.into());
    }
    bail!("there is no such part; there are: {} {}", DEFAULT.join(" "), LONG.join(" "))
}

fn parse_endpoint(endpoint: &str) -> Result<String> {
    let Some(path) = endpoint.strip_prefix("unix://").filter(|path| path.starts_with('/')) else {
        bail!("it wants unix:///PATH");
    };
    if !fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        bail!("there is no socket {path}: is the runtime running, and is that its path?");
    }
    Ok(endpoint.into())
}

/// The lines of --help that name the parts.
pub fn parts() -> String {
    format!(
        "Parts that run by default:\n  {}\nParts that take longer, and run only if they are named:\n  {}\n\n\
         Prints a line for each check, and ends with 1 if one fails. It needs root, and Go 1.26 to\n\
         build the parts of a node.",
        DEFAULT.join(" "),
        LONG.join(" ")
    )
}
