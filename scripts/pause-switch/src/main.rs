//! Switches a node to another sandbox (pause) image and proves it, or switches it back.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use pause_switch::change::Kind;
use pause_switch::node::Node;
use pause_switch::runtimes::parse_image;
use pause_switch::switch::{Coded, Switch, To};

/// Switches a node to another sandbox (pause) image and proves it, or switches it back.
///
/// Exit status: 0 done or unchanged, 1 failed and undone, 2 wrong use, 3 not possible here, 4 undoing failed: the last
/// line says what to do by hand. The journal is below /var/lib/pause-switch.
#[derive(Parser)]
#[command(version = pause_switch::RELEASE, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Acts on the files below a folder as if it were /, and starts and asks nothing
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The runtime, where a node has several
    #[arg(long, global = true, value_name = "NAME", value_parser = Kind::of)]
    runtime: Option<Kind>,
    /// Prints each change as a diff and each command, and does nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// Prints each step as a line of JSON
    #[arg(long, global = true)]
    json: bool,
    /// How many seconds the runtime may take to answer after its restart
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Says which runtimes are here, what sets their image, and what the sandboxes run on
    Status,
    /// Switches to an image, as registry.example/pause:1
    To {
        #[arg(value_parser = parse_image)]
        image: String,
        /// Imports the image from this archive, in place of pulling it
        #[arg(long, value_name = "FILE")]
        archive: Option<PathBuf>,
        /// Takes an image that is not the pause of this release, too
        #[arg(long)]
        any: bool,
    },
    /// Ends with 0 if the next pod gets the image
    Check {
        /// Starts a pod, looks at its program, and removes it
        #[arg(long)]
        pod: bool,
    },
    /// Goes back to what was before
    Back {
        /// Also if somebody has changed the setting since
        #[arg(long)]
        force: bool,
    },
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { command, root, runtime, dry_run, json, limit } = arguments;
    let node = Node::new(root)?;
    let limit = Duration::from_secs(limit);
    let interrupted = Arc::default();
    let switch = Switch { node, only: runtime, dry_run, json, limit, interrupted };
    switch.wants_root()?;
    match &command {
        Command::Status => switch.status(),
        Command::To { image, archive, any } => {
            let archive = archive.as_deref();
            if let Some(archive) = archive.filter(|archive| !archive.is_file()) {
                anyhow::bail!("{}: there is no such archive", archive.display());
            }
            switch.to(&To { image, archive, any: *any })
        }
        Command::Check { pod } => switch.check(*pod),
        Command::Back { force } => switch.back(*force),
    }
}

/// Says how it ended, and returns the exit status.
fn end(json: bool, error: &anyhow::Error) -> ExitCode {
    let coded = error.chain().find_map(|cause| cause.downcast_ref::<Coded>());
    let status = coded.map_or(1, |coded| coded.0);
    let text = format!("{error:#}").replace('\n', " ");
    // Nobody may read either.
    if json {
        let line = serde_json::json!({"changed": false, "error": text, "status": status});
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    let _ = writeln!(std::io::stderr(), "pause-switch: {text}");
    ExitCode::from(status)
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.exit_code() == 0 => error.exit(),
        Err(error) => {
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let line = lines.collect::<Vec<_>>().join(" ");
            eprintln!("pause-switch: {}; see --help", line.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    let json = arguments.json;
    run(arguments).map_or_else(|error| end(json, &error), |()| ExitCode::SUCCESS)
}
