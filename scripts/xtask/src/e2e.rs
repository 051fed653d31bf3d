//! `scripts/e2e` and `scripts/soak`: what they may be asked, and what prepares the checks.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use xtask::platforms::{BootedBy, Platform, find, host};
use xtask::project::{reason, root, run_to_its_end, say};

use crate::node::bin;
use crate::test::{build_program, program_of_tests};
use crate::{image, make_image, node, setup};

/// The parts that run if none is named.
const DEFAULT: &[&str] = &[
    "cri", "kubelet", "crio", "switch", "signed", "hundred", "critest", "existing", "kernels",
    "runtimes", "cluster", "refusals",
];
/// The parts that take longer.
const LONG: &[&str] = &["machine", "machine-arm64", "node-conformance", "conformance", "soak"];

#[derive(clap::Args)]
#[group(skip)]
pub struct Output {
    /// Writes a report to a folder: versions, results and measurements in Markdown, and JUnit
    #[arg(long, value_name = "FOLDER", value_parser = crate::bench::parse_folder)]
    report: Option<PathBuf>,
    /// Writes the logs to this folder; the default is target/e2e/logs
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Options {
    /// Tests the runtime at this CRI endpoint, such as unix:///run/containerd/containerd.sock, with
    /// pods that are removed afterwards
    #[arg(long, value_name = "URI", value_parser = parse_endpoint, conflicts_with = "parts")]
    endpoint: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    only: crate::Only,
    /// Ends with 1 also if something cannot be checked on this machine
    #[arg(long)]
    all: bool,
    /// Runs only these parts; the default is the first list below
    #[arg(value_parser = parse_part)]
    parts: Vec<String>,
}

#[derive(clap::Args)]
pub struct Soak {
    /// Begins further rounds until so many hours have passed; the default is one round
    #[arg(long, value_name = "H", default_value_t = 0, hide_default_value = true)]
    hours: u64,
    /// Repeats the random choices of another run, which has printed this number
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    output: Output,
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
         build the parts that are not installed.",
        DEFAULT.join(" "),
        LONG.join(" ")
    )
}

pub fn soak(options: Soak) -> Result<()> {
    let mut arguments = vec!["--hours".to_string(), options.hours.to_string()];
    arguments.extend(options.seed.map(|seed| format!("--seed={seed}")));
    check(vec!["soak".into()], None, options.output, arguments)
}

pub fn e2e(mut options: Options) -> Result<()> {
    options.only.announce()?;
    if options.parts.is_empty() && options.endpoint.is_none() {
        options.parts = DEFAULT.iter().map(|part| part.to_string()).collect();
    }
    let all = options.all.then(|| "--all".to_string());
    check(options.parts, options.endpoint, options.output, all.into_iter().collect())
}

fn check(
    parts: Vec<String>,
    endpoint: Option<String>,
    output: Output,
    arguments: Vec<String>,
) -> Result<()> {
    setup::want_root("for namespaces and control groups: run it with sudo")?;
    let logs = output.logs.map_or(Ok(root().join("target/e2e/logs")), std::path::absolute)?;
    let path = std::env::var("PATH").unwrap_or_default();
    // SAFETY: this program has no other thread yet.
    unsafe { std::env::set_var("PATH", format!("{path}:{}", bin().display())) };
    fs::create_dir_all(&logs)?;
    prepare(&parts)?;
    if let Some(endpoint) = &endpoint {
        answers(endpoint)?;
    }
    make_image(&image::Options::default())?;
    say(format!("running the checks; logs in {}", logs.display()));
    let mut e2e = program_of_tests(&build_program("e2e", &["--test", "e2e"], &[])?)?;
    e2e.current_dir(root()).arg("--logs").arg(logs).args(arguments);
    e2e.args(endpoint.map(|endpoint| format!("--endpoint={endpoint}")));
    if let Some(folder) = output.report {
        e2e.arg("--report").arg(folder);
    }
    run_to_its_end(e2e.args(parts))
}

/// Installs and builds what the parts need, or what --endpoint needs without any.
fn prepare(parts: &[String]) -> Result<()> {
    setup::install_lists(&["pod", "node"])?;
    let mut groups = Vec::new();
    let mut machines: Vec<&Platform> = Vec::new();
    for part in parts {
        match part.as_str() {
            "kernels" => setup::machines(BootedBy::E2e)?,
            "machine" => machines.push(host()),
            "machine-arm64" => machines.push(find("arm64")?),
            "runtimes" => {
                setup::install_lists(&["runtimes"])?;
                groups.push("runtimes");
            }
            "cluster" => groups.extend(["node", "cluster"]),
            "node-conformance" | "conformance" => {
                setup::install_lists(&["conformance"])?;
                groups.extend(["node", "cluster", "conformance"]);
            }
            _ => groups.push("node"),
        }
    }
    if parts.is_empty() {
        groups.push("client");
    }
    if !groups.is_empty() {
        node::build(&groups)?;
    }
    for machine in machines {
        setup::install_lists(&["machine"])?;
        setup::targets(&[machine])?;
        node::build_for_machine(machine)?;
        node::disk(machine)?;
    }
    Ok(())
}

/// Ends with one line unless a runtime that speaks CRI v1 answers.
fn answers(endpoint: &str) -> Result<()> {
    let crictl =
        if setup::has("crictl") { Path::new("crictl").into() } else { bin().join("crictl") };
    let mut version = Command::new(crictl);
    version.args(["--config", "/dev/null", "--timeout", "10s", "--runtime-endpoint", endpoint]);
    let output =
        version.args(["--image-endpoint", endpoint, "version"]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    if String::from_utf8_lossy(&output.stderr).contains("Unimplemented") {
        bail!(
            "the runtime at {endpoint} does not speak CRI v1: containerd does from 1.6, if cri is not among its disabled_plugins"
        );
    }
    bail!("no CRI runtime answers at {endpoint}: {}", reason(&output.stderr))
}
