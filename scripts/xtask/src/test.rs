//! `scripts/test` and `scripts/mutants`.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Result, bail};
use xtask::cargo::{add_target, build_program, cargo, cargo_tests, program_of_tests};
use xtask::platforms::{host, platforms};
use xtask::project::{output, root, run, say};

use crate::{bench, build, image, setup};

#[derive(clap::Args)]
pub struct Options {
    /// Runs only what does not need root: formatting and lints
    #[arg(long, conflicts_with = "name")]
    lint: bool,
    /// Runs only the tests with this in their names, such as ending::, and no lints
    name: Option<String>,
}

/// Formatting, clippy for every platform, shellcheck.
fn lint() -> Result<()> {
    say("formatting, clippy for every platform, shellcheck");
    run(Command::new("cargo").args(["fmt", "--all", "--check"]).current_dir(root()))?;
    run(&mut cargo_tests(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--locked", "--quiet", "--workspace", "--all-targets"];
    let rest = ["--", "-D", "warnings"];
    // Without their names, the programs that cargo test does not run would be left out.
    let programs = ["--test", "tests", "--test", "e2e", "--bench", "bench"];
    run(&mut cargo_tests(&[&clippy[..], &rest].concat()))?;
    run(&mut cargo_tests(&[&["clippy", "--locked", "--quiet"], &programs[..], &rest].concat()))?;
    for platform in platforms() {
        add_target(platform.target)?;
        let packages = ["--package", "pause", "--package", "pause-programs", "--", "-D", "warnings"];
        run(cargo(platform, "clippy")?.args(packages))?;
    }
    let line = "grep -rlE '^#!|^# shellcheck shell' scripts tests/machine tests/e2e .ci |
        xargs shellcheck --external-sources";
    run(Command::new("sh").args(["-c", line]).current_dir(root()))
}

/// Runs everything.
pub fn test(options: &Options) -> Result<()> {
    if options.lint {
        return lint();
    }
    let mut unshare = Command::new("unshare");
    if output(unshare.args(["--mount", "--pid", "--net", "--fork", "true"])).is_err() {
        bail!("this machine gives this user no new namespaces: run it as root on a VM, or run cargo test in tests/");
    }
    let target = root().join("target");
    fs::create_dir_all(&target)?;
    let lock = File::create(target.join("test.lock"))?;
    if lock.try_lock().is_err() {
        bail!("another scripts/test runs in this folder: wait until it exits");
    }
    setup::packages()?;
    setup::machines(true)?;
    build::all()?;
    image::pack(&image::Options::default())?;
    if options.name.is_none() {
        lint()?;
        say("sizes against tests/size.toml");
        bench::check(false)?;
    }
    say("building the tests");
    let program = build_program("tests", &["--test", "tests"], None, &[])?;
    let switch = build::switch(host(), None, &[])?;
    say("the tests");
    let mut tests = program_of_tests(&program)?;
    tests.env("PAUSE_SWITCH", switch).arg("--include-ignored").args(&options.name);
    run(tests.current_dir(root().join("tests")))
}

/// Changes src/ in every way that cargo-mutants knows, one change at a time, and runs the tests that need no
/// preparation for each.
pub fn mutants() -> Result<()> {
    setup::install_crate("cargo-mutants@27.1.0")?;
    // cargo-mutants itself would run just the tests of the package that it changes.
    if run(&mut cargo_tests(&["test", "--locked", "--quiet"])).is_err() {
        bail!("the tests fail without any change");
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["mutants", "--baseline", "skip", "--timeout", "300", "--no-shuffle"]);
    // Most tests of a mutant wait for what does not come: let them wait together, and not long.
    cargo.args(["--colors", "never", "--", "--", "--test-threads=32"]);
    if run(cargo.current_dir(root()).env("PAUSE_LIMIT", "10")).is_err() {
        bail!("not every change was noticed: see above, and mutants.out/");
    }
    Ok(())
}
