//! `scripts/flips`.

use std::process::Command;

use anyhow::{Result, bail};
use xtask::platforms::platforms;
use xtask::project::{self, dist, root, run_to_its_end};

use crate::{build, setup};

#[derive(clap::Args)]
pub struct Options {
    /// Repeats the random choice of another run, which has printed this number
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// How many bits are flipped for each platform, one at a time
    #[arg(default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

pub fn flips(options: &Options) -> Result<()> {
    setup::install_lists(&["lives"])?;
    build::build(&platforms())?;
    let seed = options.seed.unwrap_or_else(std::process::id).to_string();
    let version = project::package()?.version.to_string();
    let mut failed = false;
    for platform in platforms().into_iter().filter(|platform| platform.unicorn) {
        // Debian's own Python has the emulator.
        let mut python = Command::new("/usr/bin/python3");
        python.arg("-B").arg(root().join("tests/lives/flips.py"));
        python.args([&version, &platform.architecture]).arg(dist(&platform.file()));
        failed |= run_to_its_end(python.args([&options.count.to_string(), &seed])).is_err();
    }
    if failed {
        bail!("too few bits were noticed: see above");
    }
    Ok(())
}
