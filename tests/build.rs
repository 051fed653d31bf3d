//! Gives the tests the version of pause, which is in its Cargo.toml alone, as PAUSE_VERSION.

fn main() {
    println!("cargo::rerun-if-changed=../Cargo.toml");
    let text = std::fs::read_to_string("../Cargo.toml").expect("../Cargo.toml");
    let manifest: toml::Table = text.parse().expect("TOML");
    let version = manifest["workspace"]["package"]["version"].as_str();
    println!("cargo::rustc-env=PAUSE_VERSION={}", version.expect("a version"));
}
