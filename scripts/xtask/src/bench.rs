//! `scripts/bench`: the sizes against tests/size.toml, and what prepares a measurement.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use toml_edit::DocumentMut;
use xtask::cargo::{build_program, program_of_tests};
use xtask::platforms::{ALL, platforms};
use xtask::project::{replace, root, run, say};

use crate::image::{self, pulled};
use crate::{build, setup};

#[derive(clap::Args)]
pub struct Options {
    /// Compares sizes with tests/size.toml; exits with status 1 if any of them differs, also if it is smaller
    #[arg(long, group = "what")]
    check: bool,
    /// Writes the sizes to tests/size.toml, README.md and the newest section of CHANGELOG.md
    #[arg(long, group = "what")]
    bless: bool,
    /// Prints what each byte of the files is, by their symbols and line tables
    #[arg(long, group = "what")]
    map: bool,
    /// Prints the results as JSON for github-action-benchmark, not as a table
    #[arg(long, group = "what")]
    json: bool,
    /// Draws the comparison to a file
    #[arg(long, value_name = "FILE", group = "what")]
    svg: Option<PathBuf>,
}

pub fn bench(options: &Options) -> Result<()> {
    build::all()?;
    if options.check || options.bless {
        return check(options.bless);
    }
    if !options.map {
        setup::packages()?;
        image::pack(&image::Options::default())?;
    }
    let program = build_program("bench", &["--bench", "bench"], None, &[])?;
    let mut bench = program_of_tests(&program)?;
    if options.map || options.json {
        bench.arg(if options.map { "map" } else { "json" });
    }
    if let Some(file) = &options.svg {
        bench.arg("svg").arg(std::path::absolute(file)?);
    }
    run(&mut bench)
}

/// Table of tests/size.toml, architecture and bytes of each size that was built.
fn built() -> Result<Vec<(&'static str, &'static str, i64)>> {
    let files = platforms().into_iter().map(|one| Ok(("file", one.architecture, one.program()?.len() as i64)));
    let images = platforms().into_iter().map(|one| Ok(("image", one.architecture, pulled(one)? as i64)));
    files.chain(images).collect()
}

/// Prints for each size the recorded number, the number of what was built and the difference. With `bless` it records
/// the numbers; without, any difference is an error.
pub fn check(bless: bool) -> Result<()> {
    if bless && platforms().len() < ALL.len() {
        bail!("--bless writes the sizes of all platforms: leave out --only");
    }
    let path = root().join("tests/size.toml");
    let mut document: DocumentMut = fs::read_to_string(&path)?.parse().context("tests/size.toml")?;
    let mut same = true;
    println!("{:18}{:>7}{:>7}{:>7}", "", "was", "is", "delta");
    for (table, architecture, is) in built()? {
        let was = document.get(table).and_then(|one| one.get(architecture)?.as_integer());
        same &= was == Some(is);
        let delta = was.map_or("new".into(), |was| format!("{:+}", is - was));
        let was = was.map_or("-".into(), |was| was.to_string());
        let name = format!("{table}: {architecture}");
        println!("{name:18}{was:>7}{is:>7}{delta:>7}");
        document[table][architecture] = toml_edit::value(is);
    }
    match (same, bless) {
        (_, true) => {
            replace(&path, 0o644, document.to_string().as_bytes())?;
            bless_pages(&document)?;
            say("written to tests/size.toml, README.md and CHANGELOG.md");
            Ok(())
        }
        (true, _) => Ok(()),
        _ => bail!("the sizes differ from tests/size.toml; if that is intended, run scripts/bench --bless"),
    }
}

/// Writes the sizes to the two pages that have them: into the first row with each of these starts.
fn bless_pages(sizes: &DocumentMut) -> Result<()> {
    let size = |table: &str, name: &str| sizes[table][name].as_integer().unwrap_or(0).to_string();
    let thousands =
        |n: String| n.split_at_checked(n.len().saturating_sub(3)).map_or(n.clone(), |(a, b)| format!("{a},{b}"));
    let row = |title: &str, table: &str| {
        let all = platforms().into_iter().map(|one| size(table, one.architecture));
        (format!("| {title} |"), all.map(|size| format!(" {size} |")).collect::<String>())
    };
    let pulled =
        ("| image pulled, linux/amd64 |".to_string(), format!(" {} bytes |", thousands(size("image", "amd64"))));
    for (page, rows) in
        [("README.md", vec![pulled]), ("CHANGELOG.md", vec![row("`/pause`", "file"), row("image", "image")])]
    {
        let path = root().join(page);
        let mut text = fs::read_to_string(&path)?;
        for (start, cells) in rows {
            let at = text.find(&start).with_context(|| format!("{page} has no row '{start}'"))? + start.len();
            let old = cells.matches('|').count();
            let end = text[at..].match_indices('|').nth(old - 1).context("its cells")?.0 + at + 1;
            text.replace_range(at..end, &cells);
        }
        replace(&path, 0o644, text.as_bytes())?;
    }
    Ok(())
}
