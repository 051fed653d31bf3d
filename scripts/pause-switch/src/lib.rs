//! Switches a node to another sandbox (pause) image and proves it, or switches it back. docs/switch.md says how.

pub mod change;
pub mod containerd;
pub mod edit;
pub mod journal;
pub mod node;
pub mod runtimes;
pub mod switch;
pub mod unit;

/// The version of pause, which this program is released with.
pub const RELEASE: &str = match option_env!("PAUSE_RELEASE") {
    Some(release) => release,
    None => "0.0.0",
};
