//! The tool behind the commands in `scripts/`. Its first argument is the script that was called; its name is the
//! command.

mod bench;
mod build;
mod e2e;
mod image;
mod release;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use xtask::options::{E2e, Soak};
use xtask::platforms::{Platform, find, limit};
use xtask::project::{self, script};

#[derive(Parser)]
#[command(name = "scripts", disable_help_subcommand = true)]
struct Cli {
    /// Limits the run to these architectures, such as amd64,arm64
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',', value_parser = find)]
    only: Vec<&'static Platform>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds pause, byte for byte the same each time: dist/pause-linux-ARCHITECTURE
    Build,
    /// Packs the programs into an image for every container engine
    ///
    ///   pause.oci.tar                     the image for all platforms
    ///   pause-linux-ARCHITECTURE.oci.tar  the image for one platform, for tools that take one only
    ///
    /// An archive in dist/ is an OCI layout, and has a manifest.json as those of `docker save`. It is the same each
    /// time, byte for byte. The time of creation is SOURCE_DATE_EPOCH, in seconds, or else the time of the commit.
    /// Without the history of git, PAUSE_REVISION says which commit it is.
    #[command(verbatim_doc_comment)]
    Image(image::Options),
    /// Makes all files of a release in dist/, byte for byte the same for a commit
    ///
    ///   pause-linux-ARCHITECTURE          the programs (scripts/build)
    ///   pause-linux-ARCHITECTURE.debug    the same with symbols, for debuggers
    ///   pause.oci.tar                     the image for all platforms (scripts/image)
    ///   pause-linux-ARCHITECTURE.oci.tar  the image for one platform
    ///   pause-switch-linux-ARCHITECTURE   the program that switches a node
    ///   pause.spdx.json                   an SBOM in SPDX 2.3 of the crates in it
    ///   SHA256SUMS                        the checksums of these files
    ///
    /// scripts/publish pushes the image to a registry, and signs it.
    #[command(verbatim_doc_comment)]
    Release(image::Options),
    /// Measures what pause costs, and what other programs cost in the same run
    ///
    /// Sizes and counts are exact. Times are by hyperfine: the mean and the standard deviation. It takes three minutes.
    Bench(bench::Options),
    /// Runs everything: formatting, lints, and all tests, on the files in dist/
    ///
    /// It needs root, for control groups, for container engines, and to install what is missing. `cargo test` in tests/
    /// runs the tests that need none of this. A run that was interrupted leaves folders and control groups whose names
    /// begin with "pause-", which the next run removes.
    Test(test::Options),
    /// Tests pause with the parts of a Kubernetes node: container runtimes, a kubelet, a cluster
    ///
    /// Each runtime runs in namespaces of its own, or in a virtual machine. It needs root, and Go 1.26 to build the
    /// parts of a node. It prints a line for each check, and exits with status 1 if one fails.
    E2e(E2e),
    /// Runs pause for a long time
    ///
    /// A million orphans, of which pause traces 100,000, ten thousand starts with signals at random moments, and a
    /// thousand pod sandboxes on containerd. All of that is one round, of some ten minutes on two CPUs. It exits
    /// with status 1 if a check fails. It needs what scripts/e2e needs.
    Soak(Soak),
    /// Changes src/ in every way that cargo-mutants knows, and runs `cargo test` in tests/ for each change
    ///
    /// Exits with status 1 if a change made no test fail. The results are in mutants.out/; .cargo/mutants.toml lists
    /// what is left out, and why. It takes some five minutes.
    Mutants,
}

fn run(cli: Cli) -> Result<()> {
    limit(&cli.only);
    match cli.command {
        Command::Build => build::all(),
        Command::Image(options) => {
            project::epoch()?;
            project::revision()?;
            build::all()?;
            image::pack(&options)
        }
        Command::Release(options) => release::release(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Test(options) => test::test(&options),
        Command::E2e(options) => e2e::check(options),
        Command::Soak(soak) => e2e::check(E2e { suites: vec!["soak".into()], soak, ..E2e::default() }),
        Command::Mutants => test::mutants(),
    }
}

/// Reads the arguments. For one that is wrong there is one line on standard error.
fn parse() -> Result<Option<Cli>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(path) = arguments.next() else { bail!("run a command in scripts/") };
    project::started_by(std::path::absolute(path)?);
    let name = script();
    let command = name.trim_start_matches("scripts/").to_string();
    let words = ["scripts".into(), command.clone().into()].into_iter().chain(arguments);
    let parsed = Cli::command().try_get_matches_from(words);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) => {
            let text = error.to_string().replace(&format!("scripts {command}"), &name);
            if error.exit_code() == 0 {
                print!("{text}");
                return Ok(None);
            }
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let line = lines.collect::<Vec<_>>().join(" ");
            bail!("{}; see --help", line.trim_start_matches("error: "))
        }
    }
}

fn main() -> ExitCode {
    // A pipe that nobody reads any more ends this program, as any other; Rust would panic.
    // SAFETY: a system call, before there is another thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let Err(error) = parse().and_then(|cli| cli.map_or(Ok(()), run)) else { return ExitCode::SUCCESS };
    eprintln!("{}: {}", script(), format!("{error:#}").replace('\n', " "));
    ExitCode::FAILURE
}
