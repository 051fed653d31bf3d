//! The programs in `dist/`.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::Result;
use xtask::cargo::{add_target, build_program, cargo, rust_tool};
use xtask::platforms::{Platform, platforms};
use xtask::project::{self, dist, output, package, run, say, sha256};

use crate::image::layer;

/// Where an ELF header has e_shentsize (elf(5)), by its class.
fn shentsize(file: &[u8]) -> Range<usize> {
    if file.get(4) == Some(&1) { 46..48 } else { 58..60 }
}

/// Builds pause for a platform, and returns the program.
fn pause(platform: &Platform) -> Result<Vec<u8>> {
    add_target(platform.target)?;
    run(cargo(platform, "build")?.args(["--release", "--package", "pause"]))?;
    let linked = platform.linked();
    let stripped = tempfile::NamedTempFile::new()?;
    // Without what stands behind the segment, which is for debuggers.
    output(rust_tool("rust-objcopy")?.arg("--strip-sections").arg(&linked).arg(stripped.path()))?;
    // It sets e_shentsize to 0, and ClamAV calls such a file broken.
    let (mut bytes, linked) = (fs::read(stripped.path())?, fs::read(&linked)?);
    let field = shentsize(&bytes);
    bytes[field.clone()].copy_from_slice(&linked[field]);
    Ok(bytes)
}

/// Writes a program to `dist/`.
fn write(file: &str, program: &[u8]) -> Result<()> {
    fs::create_dir_all(dist(""))?;
    project::replace(&dist(file), 0o755, program)?;
    say(format!("dist/{file}: {} bytes", program.len()));
    Ok(())
}

/// Builds pause for this run's platforms.
pub fn all() -> Result<()> {
    platforms().into_iter().try_for_each(|platform| write(&platform.file(), &pause(platform)?))
}

/// Builds pause-switch for this run's platforms that it can be built for.
pub fn switches() -> Result<()> {
    for platform in platforms() {
        let Some(target) = platform.switch else { continue };
        add_target(target)?;
        write(&platform.switch_file(), &fs::read(switch(platform, Some(target), &["--profile", "small"])?)?)?;
    }
    Ok(())
}

/// Builds pause-switch for a platform, and returns its path: static if a target of musl is given. It knows the pause in
/// `dist/`, with which it compares that of a node.
pub fn switch(platform: &Platform, musl: Option<&str>, options: &[&str]) -> Result<PathBuf> {
    let program = platform.program()?;
    let (layer, program) = (sha256(&layer(&program)?), sha256(&program));
    let all = [("PROGRAM", program), ("LAYER", layer), ("RELEASE", package()?.version.to_string())];
    let variables = all.map(|(name, value)| (format!("PAUSE_{name}"), value));
    build_program("pause-switch", &[&["--package", "pause-switch"], options].concat(), musl, &variables)
}
