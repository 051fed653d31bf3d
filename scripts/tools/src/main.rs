//! The program behind `scripts/image`, `scripts/release` and `scripts/bench --toolchain`. Their
//! `--help` says what each of them reads and writes.

mod compilers;
mod image;
mod project;
mod referrers;
mod release;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let done = match command.to_str() {
        Some("check") => image::Options::parse(arguments).map(drop),
        Some("image") => image::Options::parse(arguments).and_then(|options| image::pack(&options)),
        Some("release") => {
            image::Options::parse(arguments).and_then(|options| release::describe(&options))
        }
        Some("revision") => release::revision().map(drop),
        Some("referrers") => referrers::write(arguments),
        Some("compilers") => compilers::compare(arguments),
        _ => usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Errors are printed in one line.
            let text = format!("{error:#}").replace('\n', " ");
            eprintln!("{}: {text}", project::script());
            ExitCode::FAILURE
        }
    }
}

fn usage() -> Result<()> {
    bail!("scripts/image, scripts/release and scripts/bench run this; see their --help")
}
