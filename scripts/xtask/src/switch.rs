//! Builds pause-switch, which knows the programs and the layers of the image that scripts/build and
//! scripts/image make of this commit.

use std::path::PathBuf;

use anyhow::{Context, Result};
use xtask::cargo::{has_target, linker_variable, rust_tool, user_home};
use xtask::platforms::{Platform, host};
use xtask::project::{self, dist, pause, root, say, sha256};

use crate::image::layer;
use crate::setup::rustup_add;
use crate::test::build_program;

/// What it compares the pause of a node of this platform with.
fn variables(platform: &Platform) -> Result<Vec<(String, String)>> {
    let program = pause(platform)?;
    let (layer, program) = (sha256(&layer(&program)?), sha256(&program));
    let version = project::package()?.version.to_string();
    let all = [("PROGRAM", program), ("LAYER", layer), ("RELEASE", version)];
    Ok(all.map(|(name, value)| (format!("PAUSE_{name}"), value)).into())
}

/// Builds it for this machine, and returns its path.
pub fn build() -> Result<PathBuf> {
    build_program("pause-switch", &["--package", "pause-switch"], &variables(host())?)
}

/// Builds it for a release, as a static program: dist/pause-switch-linux-ARCHITECTURE.
pub fn build_static(platform: &Platform, target: &str) -> Result<PathBuf> {
    if !has_target(target)? {
        say(format!("adding Rust's target {target}"));
        let name = &platform.architecture;
        rustup_add(target, &[]).with_context(|| format!("no {target} for pause-switch: to go on without {name}, give the others to PAUSE_ONLY"))?;
    }
    let mut variables = variables(platform)?;
    // No path of this machine is in it, and it needs no other linker than that of the toolchain.
    let flags = format!(
        "-Clink-self-contained=yes --remap-path-prefix={}=/pause --remap-path-prefix={}/registry=/registry",
        root().display(),
        user_home()?.display()
    );
    variables.push(("RUSTFLAGS".into(), flags));
    variables.push((linker_variable(target), rust_tool("rust-lld")?.display().to_string()));
    let options = ["--package", "pause-switch", "--profile", "small", "--target", target];
    let program = build_program("pause-switch", &options, &variables)?;
    let content = std::fs::read(&program)?;
    let file = dist(&platform.switch_file());
    project::replace(&file, &content)?;
    crate::build::make_executable(&file)?;
    say(format!("dist/{}: {} bytes", platform.switch_file(), content.len()));
    Ok(file)
}
