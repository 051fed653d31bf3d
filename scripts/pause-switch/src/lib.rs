//! Switches a node to another sandbox (pause) image, proves it, and goes back. docs/switch.md says how.

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
/// The digests of the layers of the image, and of the programs, of the release that this program is a file
/// of. Without them nothing is compared.
pub const LAYERS: &str = match option_env!("PAUSE_LAYERS") {
    Some(layers) => layers,
    None => "",
};
pub const PROGRAMS: &str = match option_env!("PAUSE_PROGRAMS") {
    Some(programs) => programs,
    None => "",
};

/// The digests in one of these lists.
fn digests(list: &'static str) -> Vec<&'static str> {
    list.split(',').filter(|one| !one.is_empty()).collect()
}
