//! `scripts/bench --check` and `--bless`: the sizes of the files and images, exactly.

use std::fs;

use anyhow::{Context, Result, bail};
use toml_edit::DocumentMut;
use xtask::elf::Parts;
use xtask::platforms::platforms;
use xtask::project::{self, root, say};

use crate::image::pulled;

/// Table of tests/size.toml, architecture and bytes of each size of today.
fn today() -> Result<Vec<(&'static str, String, i64)>> {
    let mut sizes = Vec::new();
    for platform in platforms() {
        let file = project::pause(platform)?;
        let parts = Parts::of(&file, &fs::read(platform.linked())?)?;
        for (table, size) in [
            ("file", file.len() as u64),
            ("headers", parts.headers),
            ("code", parts.code),
            ("strings", parts.strings),
            ("image", pulled(platform)?),
        ] {
            sizes.push((table, platform.architecture.clone(), size as i64));
        }
    }
    sizes.sort_by_key(|size| {
        ["file", "headers", "code", "strings", "image"].iter().position(|name| *name == size.0)
    });
    Ok(sizes)
}

/// Prints for each size the recorded number, the number of today and the difference. With
/// `bless` it records the numbers of today; without, any difference is an error.
pub fn check(bless: bool) -> Result<()> {
    let path = root().join("tests/size.toml");
    let text = fs::read_to_string(&path).context("tests/size.toml")?;
    let mut document: DocumentMut = text.parse().context("tests/size.toml")?;
    let mut same = true;
    println!("{:18}{:>7}{:>7}{:>7}", "", "was", "is", "delta");
    for (table, architecture, is) in today()? {
        let was = document.get(table).and_then(|one| one.get(&architecture)?.as_integer());
        same &= was == Some(is);
        let delta = was.map_or("new".into(), |was| format!("{:+}", is - was));
        let was = was.map_or("-".into(), |was| was.to_string());
        let name = format!("{table}: {architecture}");
        println!("{name:18}{was:>7}{is:>7}{delta:>7}");
        document[table][&architecture] = toml_edit::value(is);
    }
    match (same, bless) {
        (true, _) => Ok(()),
        (_, true) => {
            project::replace(&path, document.to_string().as_bytes())?;
            say("written to tests/size.toml; README.md and CHANGELOG.md have some of them too");
            Ok(())
        }
        _ => bail!(
            "the sizes differ from tests/size.toml; if they are meant to, scripts/bench --bless writes them down"
        ),
    }
}
