//! Switches a node to another sandbox (pause) image and proves it, or switches it back. docs/switch.md says how.

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
/// The digests, by SHA-256, of the layer of the image for this platform, and of the program in it, of the
/// release that this program is a file of. Without them nothing is compared.
pub const LAYER: Option<&str> = option_env!("PAUSE_LAYER");
pub const PROGRAM: Option<&str> = option_env!("PAUSE_PROGRAM");
