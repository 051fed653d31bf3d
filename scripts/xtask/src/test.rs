//! Formatting, lints, sizes and tests; and how the programs in `tests/` are built and run.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;
use xtask::cargo::cargo;
use xtask::options::Only;
use xtask::platforms::{host, platforms};
use xtask::project::{Printed, output, root, run, run_to_its_end, say};
use xtask::signals;

use crate::{bench, image, make_image, setup, sizes};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    only: Only,
    /// Runs only what needs no root: formatting, lints, and the licences and sources of the crates
    #[arg(long, conflicts_with = "names")]
    lint: bool,
    /// Runs only the tests with this in their names, such as ending::, and no lints
    names: Vec<String>,
}

/// cargo on the workspace of the tests and the tool, without the flags of pause, which cargo would
/// take from .cargo/config.toml in the folder above if this variable were not set.
fn cargo_tests(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).current_dir(root().join("tests")).env("RUSTFLAGS", "");
    cargo
}

/// Builds one of the programs of tests/, and returns its path.
pub fn build_program(
    name: &str,
    options: &[&str],
    variables: &[(String, String)],
) -> Result<PathBuf> {
    let arguments = ["build", "--locked", "--quiet", "--message-format", "json-render-diagnostics"];
    let mut cargo = cargo_tests(&[&arguments, options].concat());
    cargo.envs(variables.iter().cloned()).arg("--target-dir").arg(root().join("target"));
    let mut running = cargo.stdout(Stdio::piped()).spawn().context("cargo")?;
    signals::running(running.id() as i32);
    let messages = BufReader::new(running.stdout.take().context("a pipe")?);
    let mut program = None;
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.name == name
        {
            program = artifact.executable.or(program);
        }
    }
    let status = running.wait()?;
    signals::running(0);
    if !status.success() {
        return Err(Printed(signals::status().unwrap_or(1)).into());
    }
    Ok(program.with_context(|| format!("cargo made no program {name}"))?.into())
}

/// Ends with one line unless this machine gives new namespaces.
fn want_namespaces() -> Result<()> {
    setup::want_root(
        "for control groups: run it with sudo, or cd tests && cargo test for what needs none",
    )?;
    for kind in ["mount", "pid", "net"] {
        let mut unshare = Command::new("unshare");
        if output(unshare.args([&format!("--{kind}"), "--fork", "true"])).is_err() {
            bail!(
                "this machine gives root no new {kind} namespace (CAP_SYS_ADMIN, or its seccomp profile): run it on a VM, or cargo test in tests/ for what needs none"
            );
        }
    }
    Ok(())
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
        let packages =
            ["--package", "pause", "--package", "pause-programs", "--", "-D", "warnings"];
        run(cargo(platform, "clippy")?.args(packages))?;
    }
    let line = "grep -rlE '^#!|^# shellcheck shell' scripts tests/machine tests/e2e .ci |
        xargs shellcheck --external-sources";
    run(Command::new("sh").args(["-c", line]).current_dir(root()))
}

/// The licences and the sources of all crates. Advisories are only printed: one that is published after
/// today cannot fail this run.
fn deny() -> Result<()> {
    setup::install_crate("cargo-deny@0.20.2")?;
    say("licences, sources and advisories of the crates (cargo-deny)");
    let deny = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(["deny", "--log-level", "error", "--config", "deny.toml"]).args(arguments);
        cargo.current_dir(root());
        cargo
    };
    let fetched = output(&mut deny(&["fetch", "db"]));
    if let Err(error) = &fetched {
        say(format!("the advisories could not be fetched: {error}"));
    }
    for manifest in ["Cargo.toml", "tests/Cargo.toml"] {
        let check = ["--manifest-path", manifest, "check"];
        run(deny(&check).args(["bans", "licenses", "sources"]))?;
        if fetched.is_ok() && run(deny(&check).arg("advisories")).is_err() {
            say(format!("{manifest} has crates with advisories"));
        }
    }
    Ok(())
}

/// Runs everything.
pub fn test(options: &Options) -> Result<()> {
    crate::limit(&options.only)?;
    if options.lint {
        setup::targets(&platforms())?;
        lint()?;
        return deny();
    }
    want_namespaces()?;
    let target = root().join("target");
    fs::create_dir_all(&target)?;
    let lock = File::create(target.join("test.lock"))?;
    if lock.try_lock().is_err() {
        bail!("another scripts/test runs in this folder: wait for its end");
    }
    setup::for_tests()?;
    make_image(&image::Options::default())?;
    if options.names.is_empty() {
        lint()?;
        deny()?;
        say("sizes against tests/size.toml");
        bench::check(false)?;
        // Whatever is published after today cannot fail this run.
        say("what would have to change for the newest rustix");
        if let Err(error) = sizes::compare(&[host()], &[], &["latest".into()]) {
            say(format!("the newest rustix could not be tried: {error:#}"));
        }
    }
    say("building the tests");
    let program = build_program("tests", &["--test", "tests"], &[])?;
    let switch = crate::switch::build()?;
    say("the tests");
    // Many of them wait for machines and daemons.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let threads = format!("--test-threads={threads}");
    let names = match options.names.is_empty() {
        true => &["".to_string()][..],
        false => &options.names,
    };
    for name in names {
        let mut tests = program_of_tests(&program)?;
        tests
            .env("PAUSE_SWITCH", &switch)
            .args(["--include-ignored", &threads, name])
            .current_dir(root().join("tests"));
        run_to_its_end(&mut tests)?;
    }
    Ok(())
}

/// A command for one of the programs of tests/: it looks at the files in `dist/`, and runs this tool
/// in copies of the project.
pub fn program_of_tests(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("PAUSE_DIST", "1").env("PAUSE_XTASK", std::env::current_exe()?);
    Ok(command)
}

/// Changes src/ in every way that cargo-mutants knows, one change at a time, and runs the tests that
/// need no preparation for each. The results are in mutants.out/; .cargo/mutants.toml lists what is
/// left out, and why.
pub fn mutants() -> Result<()> {
    setup::install_crate("cargo-mutants@27.1.0")?;
    // cargo-mutants itself would run just the tests of the package that it changes.
    if run_to_its_end(&mut cargo_tests(&["test", "--locked", "--quiet"])).is_err() {
        bail!("the tests fail without any change");
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["mutants", "--baseline", "skip", "--timeout", "300", "--no-shuffle"]);
    // Most tests of a mutant wait for what does not come: let them wait together, and not long.
    cargo.args(["--colors", "never", "--", "--", "--test-threads=32"]);
    if run_to_its_end(cargo.current_dir(root()).env("PAUSE_LIMIT", "10")).is_err() {
        bail!("not every change was noticed: see above, and mutants.out/");
    }
    Ok(())
}
