//! `scripts/bench`: the sizes against tests/size.toml, and what prepares a measurement.

use std::fs;

use anyhow::{Context, Result, bail};
use toml_edit::DocumentMut;
use xtask::elf::Parts;
use xtask::options::Bench;
use xtask::platforms::platforms;
use xtask::project::{self, root, run_to_its_end, say};

use crate::image::pulled;
use crate::test::{build_program, program_of_tests};
use crate::{build, image, make_image, setup};

pub fn bench(options: &Bench) -> Result<()> {
    if options.check || options.bless {
        build::build(&platforms())?;
        return check(options.bless);
    }
    if !options.map {
        setup::want_root("for control groups and PID namespaces: run it with sudo")?;
        setup::install_lists(&["bench"])?;
        make_image(&image::Options::default())?;
    } else {
        build::build(&platforms())?;
    }
    let bench = build_program("bench", &["--bench", "bench"], &[])?;
    run_to_its_end(program_of_tests(&bench)?.args(std::env::args_os().skip(2)))
}

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
