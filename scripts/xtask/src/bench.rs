//! `scripts/bench`: what prepares a measurement.

use anyhow::Result;
use xtask::options::Bench;
use xtask::platforms::platforms;
use xtask::project::run_to_its_end;

use crate::test::{build_program, program_of_tests};
use crate::{build, compilers, image, make_image, setup, sizes};

pub fn bench(options: &Bench) -> Result<()> {
    if !options.toolchain.is_empty() || !options.rustix.is_empty() {
        return compilers::compare(&platforms(), &options.toolchain, &options.rustix);
    }
    if options.check || options.bless {
        build::build(&platforms())?;
        return sizes::check(options.bless);
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
