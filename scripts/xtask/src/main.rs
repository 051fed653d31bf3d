//! The tool behind the commands in `scripts/`. Its first argument is the script that was called; its
//! name is the command.

mod bench;
mod build;
mod e2e;
mod flips;
mod image;
mod node;
mod publish;
mod push;
mod release;
mod setup;
mod sign;
mod sizes;
mod switch;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use xtask::options::{self, Only};
use xtask::platforms::{self, ONLY, Platform, find, platforms};
use xtask::project::{self, Printed, REVISION, say, script};
use xtask::signals;

#[derive(Parser)]
#[command(name = "scripts", disable_help_subcommand = true)]
enum Cli {
    /// Builds pause, byte for byte the same each time: dist/pause-linux-ARCHITECTURE
    ///
    /// PAUSE_RUST selects another compiler: a toolchain of rustup, or "debian".
    Build {
        /// Builds for these architectures of scripts/platforms.toml; the default is all
        #[arg(value_parser = find)]
        architectures: Vec<&'static Platform>,
    },
    /// Packs the binaries into an image for every container engine
    ///
    ///   pause.oci.tar                     the image for all platforms
    ///   pause-linux-ARCHITECTURE.oci.tar  the image for one platform, for tools that take one only
    ///
    /// An archive in dist/ is an OCI layout, and has a manifest.json as those of `docker save`. It is
    /// the same each time, byte for byte. The time of creation is SOURCE_DATE_EPOCH, in seconds, or
    /// else the time of the commit. Without the history of git, PAUSE_REVISION says which commit it is.
    #[command(verbatim_doc_comment)]
    Image {
        #[command(flatten)]
        only: Only,
        #[command(flatten)]
        options: image::Options,
    },
    /// Makes all files of a release in dist/, byte for byte the same for a commit
    ///
    ///   pause-linux-ARCHITECTURE          the programs (scripts/build)
    ///   pause-linux-ARCHITECTURE.debug    the same with symbols, for debuggers
    ///   pause.oci.tar                     the image for all platforms (scripts/image)
    ///   pause-linux-ARCHITECTURE.oci.tar  the image for one platform
    ///   pause-switch-linux-ARCHITECTURE   the program that switches a node
    ///   pause.spdx.json                   an SBOM in SPDX 2.3 of the crates in it
    ///   pause.intoto.json                 SLSA provenance 1.0, with the commit and the compiler
    ///   SHA256SUMS                        the checksums of these files
    ///
    /// and with --sign
    ///
    ///   SHA256SUMS.sig, pause.intoto.json.sig  signatures for openssl
    ///   SHA256SUMS.sigstore.json, pause.intoto.json.sigstore.json, pause.spdx.json.sigstore.json
    ///                                          sigstore bundles for cosign
    ///   pause.pub                              the public key
    ///
    /// Ends with a line for each file, and with the next commands for whoever publishes it. A second run
    /// makes the same files, and pushes nothing that is in the registry already.
    #[command(verbatim_doc_comment)]
    Release(publish::Options),
    /// Measures what pause costs, and what other programs cost in the same run
    ///
    /// Sizes and counts are exact. Times are in microseconds: the median, the quartiles, and the
    /// ratio to pause. It takes three minutes.
    Bench(options::Bench),
    /// Prints the sizes of the files, as a case of a size suite
    ///
    /// The flags, the linker and the libraries are fixed, and a size is exact. With --toolchain it prints a table by
    /// compiler, and which function grew. docs/sizes.md has the lines for a pull request and for bisecting.
    Sizes(sizes::Options),
    /// Runs everything: formatting, lints, and all tests, on the files in dist/
    ///
    /// It needs root, for control groups, for container engines, and to install what is missing.
    /// `cargo test` in tests/ runs the tests that need none of this. Ctrl-C and SIGTERM end it, and it
    /// removes what its tests have made.
    Test(test::Options),
    /// Tests pause with the parts of a Kubernetes node: container runtimes, a kubelet, a cluster
    ///
    /// Each runtime runs in namespaces of its own, in a virtual machine, or is one that runs already.
    #[command(after_help = options::parts())]
    E2e(options::E2e),
    /// Runs pause for a long time beside neighbours that do harm
    ///
    /// A million orphans, ten thousand starts with signals at random moments, and a thousand pod
    /// sandboxes on containerd. All of that is one round, of some ten minutes on two CPUs. Prints a
    /// line of progress every half minute, and ends with 1 if a check fails. It needs what
    /// scripts/e2e needs.
    Soak(options::Soak),
    /// Flips single bits of the code in dist/, and counts those that tests/lives notices
    ///
    /// Ends with 1 if fewer than 85 in a hundred are noticed on any platform, of 100 or more. It
    /// takes half a minute for each platform. Unicorn, the CPU emulator, has no ppc64le.
    Flips(flips::Options),
    /// Changes src/ in every way that cargo-mutants knows, and runs `cargo test` for each change
    ///
    /// Ends with 1 if a change made no test fail. The results are in mutants.out/; .cargo/mutants.toml
    /// lists what is left out, and why. It takes some five minutes.
    Mutants,
}

/// The names of platforms.
fn names(platforms: &[&Platform], between: &str) -> String {
    let names: Vec<_> = platforms.iter().map(|one| one.architecture.as_str()).collect();
    names.join(between)
}

/// Limits this run, and the programs that it starts, to some platforms.
fn select(Only { only }: &Only) {
    if !only.is_empty() {
        // SAFETY: no other thread of this program reads the environment.
        unsafe { std::env::set_var(ONLY, names(only, ",")) };
    }
}

/// The same for a command that makes an image, which says what is not in it.
fn limit(options: &Only) -> Result<()> {
    let only = &options.only;
    if !only.is_empty() {
        let mut others = platforms();
        others.retain(|platform| !only.iter().any(|one| one.target == platform.target));
        let (only, others) = (names(only, " "), names(&others, " "));
        say(format!("only {only}; left out, in dist/pause.oci.tar as well: {others}"));
    }
    select(options);
    Ok(())
}

/// Builds the programs, and packs them. Returns the descriptors of the index and of each manifest.
fn make_image(options: &image::Options) -> Result<Vec<serde_json::Value>> {
    project::epoch()?;
    if project::root().join(".git").exists() {
        setup::install(&["git=git"])?;
    }
    if project::revision()?.is_none() {
        say(format!(
            "without the history of git the image has other digests than that of the commit: give \
             SOURCE_DATE_EPOCH its time, and {REVISION} its hash"
        ));
    }
    release::forget();
    build::build(&platforms())?;
    image::pack(options)
}

fn run(cli: Cli) -> Result<()> {
    match cli {
        Cli::Build { architectures } if architectures.is_empty() => build::build(&platforms()),
        Cli::Build { architectures } => build::build(&architectures),
        Cli::Image { only, options } => {
            limit(&only)?;
            make_image(&options).map(drop)
        }
        Cli::Release(options) => publish::release(&options),
        Cli::Bench(options) => bench::bench(&options),
        Cli::Sizes(options) => {
            select(&options.only);
            sizes::sizes(&options)
        }
        Cli::Test(options) => test::test(&options),
        Cli::E2e(options) => {
            limit(&options.only)?;
            e2e::check(&options.parts, options.endpoint.as_deref())
        }
        Cli::Soak(_) => e2e::check(&["soak".into()], None),
        Cli::Flips(options) => flips::flips(&options),
        Cli::Mutants => test::mutants(),
    }
}

/// Reads the arguments. For one that is wrong there is one line on standard error.
fn parse() -> Result<Option<Cli>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(path) = arguments.next() else { bail!("run a command in scripts/") };
    project::started_by(std::path::absolute(path)?);
    platforms::read()?;
    if platforms().is_empty() {
        bail!("{ONLY} names no architecture of scripts/platforms.toml");
    }
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
    let done = signals::pass_on().map_err(Into::into).and_then(|()| parse());
    let done = done.and_then(|cli| cli.map_or(Ok(()), run));
    if let Some(status) = signals::status() {
        return ExitCode::from(status);
    }
    let Err(error) = done else { return ExitCode::SUCCESS };
    if let Some(Printed(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    eprintln!("{}: {}", script(), format!("{error:#}").replace('\n', " "));
    ExitCode::FAILURE
}
