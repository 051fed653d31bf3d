//! The options of `scripts/e2e` and `scripts/soak`, which the tool hands to the program in `tests/e2e` as JSON.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};

/// The suites that run if none is named, and those that take longer.
pub const DEFAULT: [&str; 9] =
    ["cri", "kubelet", "crio", "switch", "signed", "hundred", "runtimes", "cluster", "kernels"];
pub const LONG: [&str; 3] = ["machine", "machine-arm64", "soak"];

#[derive(clap::Args, Default, Serialize, Deserialize)]
#[group(skip)]
pub struct E2e {
    /// Writes what it prints to report.txt in this folder, too
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
    /// Runs only these suites; the default is all but machine, machine-arm64 and soak, which take longer
    #[arg(value_parser = PossibleValuesParser::new(DEFAULT.iter().chain(&LONG)))]
    pub suites: Vec<String>,
    /// What `scripts/soak` was asked for.
    #[arg(skip)]
    pub soak: Soak,
}

#[derive(clap::Args, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Soak {
    /// Begins further rounds until so many hours have passed; the default is one round
    #[arg(long, value_name = "H", default_value_t = 0, hide_default_value = true)]
    pub hours: u64,
    /// Repeats the random choices of another run, which has printed this number
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}
