//! The programs in `dist/`.

use std::fs;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::cargo::{cargo, rust_tool, sysroot};
use xtask::platforms::Platform;
use xtask::project::{dist, output, run, say};

use crate::setup;

/// Where an ELF header has e_shentsize (elf(5)), by its class.
fn shentsize(file: &[u8]) -> Range<usize> {
    if file.get(4) == Some(&1) { 46..48 } else { 58..60 }
}

/// Builds pause for some platforms.
pub fn build(platforms: &[&Platform]) -> Result<()> {
    setup::targets(platforms)?;
    let dist = dist("");
    fs::create_dir_all(&dist)?;
    // In `dist`, so that a file is put there in one step: who runs it meanwhile finds the old one
    // or the new one.
    let new = tempfile::tempdir_in(&dist)?;
    for platform in platforms {
        let file = platform.file();
        run(cargo(platform, "build")?.args(["--release", "--package", "pause"]))?;
        let linked = platform.linked();
        let path = new.path().join(&file);
        // Without what stands behind the segment, which is for debuggers.
        let mut objcopy = Command::new(rust_tool("rust-objcopy")?);
        objcopy.arg("--strip-sections").arg(&linked).arg(&path);
        output(objcopy.env("LD_LIBRARY_PATH", sysroot()?.join("lib")))?; // where its libLLVM is
        // It sets e_shentsize to 0, and ClamAV calls such a file broken.
        let (mut bytes, linked) = (fs::read(&path)?, fs::read(&linked)?);
        let field = shentsize(&bytes);
        bytes[field.clone()].copy_from_slice(&linked[field]);
        fs::write(&path, &bytes)?;
        make_executable(&path)?;
        fs::rename(&path, dist.join(&file)).with_context(|| file.clone())?;
        say(format!("dist/{file}: {} bytes", bytes.len()));
    }
    Ok(())
}

/// Gives a file the mode 755, whatever the umask is.
pub fn make_executable(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
