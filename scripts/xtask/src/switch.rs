//! Builds pause-switch, which knows the programs and the layers of the image that scripts/build and
//! scripts/image make of this commit.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::cargo::{rust_tool, sysroot};
use xtask::platforms::{Platform, platforms};
use xtask::project::{self, dist, output, pause, root, say, sha256};

use crate::image::layer;
use crate::test::build_program;

/// What it compares the pause of a node with.
fn variables() -> Result<Vec<(String, String)>> {
    let (mut programs, mut layers) = (Vec::new(), Vec::new());
    for platform in platforms() {
        let program = pause(platform)?;
        layers.push(sha256(&layer(&program)?));
        programs.push(sha256(&program));
    }
    let version = project::package()?.version.to_string();
    let all =
        [("PROGRAMS", programs.join(",")), ("LAYERS", layers.join(",")), ("RELEASE", version)];
    Ok(all.map(|(name, value)| (format!("PAUSE_{name}"), value)).into())
}

/// Builds it for this machine, and returns its path.
pub fn build() -> Result<PathBuf> {
    build_program("pause-switch", &["--package", "pause-switch"], &variables()?)
}

/// Builds it for a release, as a static program: dist/pause-switch-linux-ARCHITECTURE.
pub fn build_static(platform: &Platform, target: &str) -> Result<PathBuf> {
    if !sysroot()?.join("lib/rustlib").join(target).is_dir() {
        say(format!("adding Rust's target {target}"));
        let mut rustup = Command::new("rustup");
        let added = output(rustup.args(["target", "add", target]).current_dir(root()));
        let name = &platform.architecture;
        added.with_context(|| format!("no {target} for pause-switch: to go on without {name}, give the others to PAUSE_ONLY"))?;
    }
    let mut variables = variables()?;
    let linker = target.to_uppercase().replace('-', "_");
    // No path of this machine is in it, and it needs no other linker than that of the toolchain.
    let home = std::env::var("CARGO_HOME").unwrap_or(format!("{}/.cargo", std::env::var("HOME")?));
    let flags = format!(
        "-Clink-self-contained=yes --remap-path-prefix={}=/pause --remap-path-prefix={home}/registry=/registry",
        root().display()
    );
    variables.push(("RUSTFLAGS".into(), flags));
    variables.push((
        format!("CARGO_TARGET_{linker}_LINKER"),
        rust_tool("rust-lld")?.display().to_string(),
    ));
    let options = ["--package", "pause-switch", "--profile", "small", "--target", target];
    let program = build_program("pause-switch", &options, &variables)?;
    let content = std::fs::read(&program)?;
    let file = dist(&platform.switch_file());
    project::replace(&file, &content)?;
    crate::build::make_executable(&file)?;
    say(format!("dist/{}: {} bytes", platform.switch_file(), content.len()));
    Ok(file)
}
