//! The configuration of containerd: versions 1 to 4, and the files that it imports.

use anyhow::{Context, Result, bail};
use toml_edit::{Document, Item};

use crate::change::Change;
use crate::edit::Setting;
use crate::node::Node;

/// The setting in a file of some version.
pub fn setting(version: i64) -> Setting {
    match version {
        ..=1 => Setting::toml(&["plugins", "cri", "sandbox_image"]),
        2 => Setting::toml(&["plugins", "io.containerd.grpc.v1.cri", "sandbox_image"]),
        3.. => Setting::toml(&["plugins", "io.containerd.cri.v1.images", "pinned_images", "sandbox"]),
    }
}

/// What a file says that matters here.
struct Config {
    version: i64,
    imports: Vec<String>,
    /// Whether it names the plugin with the setting.
    has_plugin: bool,
}

fn parse(file: &str, text: &str) -> Result<Config> {
    setting(2).read(text).with_context(|| file.to_string())?; // for its one-line error
    let document = Document::parse(text).context("TOML")?;
    let plugins = document.get("plugins");
    let has = |version| plugins.is_some_and(|all| all.get(&setting(version).path[1]).is_some());
    let version = match document.get("version") {
        Some(version) => version.as_integer().filter(|version| (1..=4).contains(version)),
        // A file that is imported may have none. Its tables say which it is.
        None => Some((2..=3).find(|version| has(*version)).unwrap_or(1)),
    };
    let Some(version) = version else { bail!("{file}: its version is none of 1 to 4") };
    let imports = document.get("imports").and_then(Item::as_array);
    let imports = imports.into_iter().flatten().filter_map(|one| one.as_str());
    Ok(Config { version, imports: imports.map(String::from).collect(), has_plugin: has(version) })
}

fn read(node: &Node, file: &str) -> Result<Option<Config>> {
    node.read(file)?.map(|text| parse(file, &text)).transpose()
}

/// The version of a file; 0 if it is not there.
pub fn version(node: &Node, file: &str) -> Result<i64> {
    Ok(read(node, file)?.map_or(0, |config| config.version))
}

/// A file and all that it imports, in the order in which a later one wins.
fn files(node: &Node, main: &str) -> Result<Vec<String>> {
    let mut all = vec![main.to_string()];
    let mut seen = vec![node.path(main)?];
    let mut at = 0;
    while at < all.len() {
        let file = all[at].clone();
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        for import in read(node, &file)?.map(|config| config.imports).unwrap_or_default() {
            let import = if import.starts_with('/') { import } else { format!("{folder}/{import}") };
            let matched = match import.contains(['*', '?', '[']) {
                true => node.glob(&import)?,
                false => vec![import],
            };
            for path in matched {
                let file = node.path(&path)?;
                if !seen.contains(&file) {
                    seen.push(file);
                    all.push(path);
                }
            }
        }
        at += 1;
    }
    Ok(all)
}

/// The file among some that decides: the last that names the plugin. containerd 1.x takes the whole table of the plugin
/// from a drop-in that names it.
pub fn deciding(node: &Node, files: &[String]) -> Result<Option<String>> {
    node.last(files, |file, text| Ok(parse(file, text)?.has_plugin))
}

/// The changes for the containerd whose main file this is.
pub fn plan(node: &Node, main: &str, image: &str) -> Result<Vec<Change>> {
    let file = deciding(node, &files(node, main)?)?.unwrap_or(main.into());
    let version = version(node, &file)?;
    let (head, version) = match version {
        // Every containerd from 1.3 on reads version 2.
        0 => ("version = 2\n".to_string(), 2),
        _ => (String::new(), version),
    };
    let text = node.read(&file)?.unwrap_or_default();
    let mut changes = Vec::new();
    for other in [version, 2, 3] {
        let setting = setting(other);
        let is_new =
            changes.iter().all(|change| !matches!(change, Change::Setting { setting: one, .. } if *one == setting));
        // Of the table of another version, 2.1 takes no notice, and 2.4 takes the value.
        if is_new && (other == version || setting.read(&text)?.is_some()) {
            let head = if changes.is_empty() { head.clone() } else { String::new() };
            changes.push(Change::Setting { file: file.clone(), setting, value: image.into(), head });
        }
    }
    Ok(changes)
}

/// The image in what `containerd config dump` prints.
pub fn of_dump(dump: &str) -> Result<Option<String>> {
    Ok(match setting(3).read(dump)? {
        Some(image) => Some(image),
        None => setting(2).read(dump)?,
    })
}
