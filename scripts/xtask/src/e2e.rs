//! `scripts/e2e` and `scripts/soak`: what prepares the checks.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use xtask::options::DEFAULT;
use xtask::platforms::{BootedBy, Platform, find, host};
use xtask::project::{reason, run_to_its_end, say};

use crate::node::bin;
use crate::test::{build_program, program_of_tests};
use crate::{image, make_image, node, setup};

/// Runs the checks of some parts, or of a runtime that runs already. The program of the checks gets
/// the arguments of this one.
pub fn check(parts: &[String], endpoint: Option<&str>) -> Result<()> {
    setup::want_root("for namespaces and control groups: run it with sudo")?;
    let path = std::env::var("PATH").unwrap_or_default();
    // SAFETY: no other thread of this program reads the environment.
    unsafe { std::env::set_var("PATH", format!("{path}:{}", bin().display())) };
    // First, as pause-switch knows its digests.
    make_image(&image::Options::default())?;
    let default: Vec<_> = DEFAULT.iter().map(|part| part.to_string()).collect();
    prepare(if parts.is_empty() && endpoint.is_none() { &default } else { parts })?;
    if let Some(endpoint) = endpoint {
        answers(endpoint)?;
    }
    say("running the checks");
    let e2e = build_program("e2e", &["--test", "e2e"], &[])?;
    let switch = crate::switch::build()?;
    let name = if parts == ["soak"] { "soak" } else { "e2e" };
    let mut tests = program_of_tests(&e2e)?;
    tests.env("PAUSE_SWITCH", switch).arg(name).args(std::env::args_os().skip(2));
    run_to_its_end(&mut tests)
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
            "kind" => {
                setup::install_lists(&["kind"])?;
                groups.extend(["node", "cluster", "kind"]);
            }
            "node-conformance" | "conformance" => {
                setup::install_lists(&["conformance"])?;
                groups.extend(["node", "cluster", "conformance"]);
            }
            "signed" => {
                setup::install(&["mmdebstrap=mmdebstrap"])?;
                groups.extend(["node", "tools"]);
            }
            "scanners" => {
                setup::install(&[
                    "/usr/lib/python3.11/ensurepip|/usr/lib/python3.13/ensurepip|/usr/lib/python3.14/ensurepip=python3-venv",
                ])?;
                groups.push("scanners");
            }
            "workflows" => {
                setup::install(&["shellcheck=shellcheck"])?;
                groups.push("workflows");
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
    let mut version = Command::new("crictl");
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
