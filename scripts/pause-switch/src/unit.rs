//! cri-dockerd, whose sandbox image is a flag in its systemd unit. A drop-in of our own starts it with the same command
//! and another flag.

use anyhow::{Context, Result, bail};

use crate::node::{Node, name_of};

const UNIT: &str = "cri-docker.service";
pub const FLAG: &str = "--pod-infra-container-image";
/// Sorts after override.conf, which `systemctl edit` writes.
const DROP_IN: &str = "/etc/systemd/system/cri-docker.service.d/zz-pause-switch.conf";

/// The folders of systemd, the strongest first (systemd.unit(5)).
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The values of ExecStart= in a file, in which an empty one takes back those before.
fn exec_start(text: &str, values: &mut Vec<String>) {
    let mut section = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.trim().to_string();
        if line.starts_with(['#', ';']) {
            continue;
        }
        // A line that ends in a backslash goes on; comments between are left out (systemd.syntax(7)).
        while line.ends_with('\\') {
            line.pop();
            let Some(next) = lines.by_ref().find(|next| !next.trim_start().starts_with(['#', ';'])) else {
                break;
            };
            line = format!("{} {}", line.trim_end(), next.trim());
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').into();
        }
        if let Some((key, value)) = line.split_once('=')
            && section == "Service"
            && key.trim() == "ExecStart"
        {
            match value.trim() {
                "" => values.clear(),
                value => values.push(value.into()),
            }
        }
    }
}

/// The command that the unit starts, without our drop-in.
fn command(node: &Node) -> Result<String> {
    let unit = FOLDERS.iter().map(|folder| format!("{folder}/{UNIT}")).find(|path| node.has(path));
    let unit = unit.with_context(|| format!("there is no {UNIT}"))?;
    let mut drop_ins: Vec<String> = Vec::new();
    for folder in FOLDERS {
        for path in node.list(&format!("{folder}/{UNIT}.d"), &[".conf"]) {
            // A file hides those of the same name in weaker folders.
            if path != DROP_IN && drop_ins.iter().all(|other| name_of(other) != name_of(&path)) {
                drop_ins.push(path);
            }
        }
    }
    drop_ins.sort_by_key(|path| name_of(path).to_string());
    let mut values = Vec::new();
    for file in std::iter::once(unit).chain(drop_ins) {
        let before = values.clone();
        exec_start(&node.read(&file)?.unwrap_or_default(), &mut values);
        if name_of(&file) > name_of(DROP_IN) && values != before {
            bail!("{file} sorts after {}, and decides: rename it", name_of(DROP_IN));
        }
    }
    let command = values.pop().with_context(|| format!("{UNIT} has no ExecStart"))?;
    // The flag would be one of a shell, or of another program.
    let program = command.split_whitespace().next().unwrap_or_default();
    if name_of(program.trim_start_matches(['-', '@', ':', '+', '!'])) != "cri-dockerd" {
        bail!("{UNIT} starts {program}, and not cri-dockerd: set {FLAG} there by hand");
    }
    Ok(command)
}

/// The words of a command without the flag, and the value that the flag had.
fn without_flag(command: &str) -> (Vec<&str>, Option<String>) {
    let (mut kept, mut value) = (Vec::new(), None);
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        match word.trim_start_matches(['"', '\'']).strip_prefix(FLAG) {
            Some("") => value = words.next().map(String::from),
            Some(rest) if rest.starts_with('=') => value = Some(rest[1..].into()),
            _ => kept.push(word),
        }
    }
    (kept, value.map(|value| value.trim_matches(['"', '\'']).to_string()))
}

/// Our drop-in for an image.
pub fn drop_in(node: &Node, image: &str) -> Result<(String, String)> {
    let command = command(node)?;
    let (words, _) = without_flag(&command);
    let text = format!("[Service]\nExecStart=\nExecStart={} {FLAG}={image}\n", words.join(" "));
    Ok((DROP_IN.into(), text))
}

/// The image that the unit names, if it names one.
pub fn image(node: &Node) -> Result<Option<String>> {
    let mut values = vec![command(node)?];
    exec_start(&node.read(DROP_IN)?.unwrap_or_default(), &mut values);
    Ok(without_flag(values.last().map(String::as_str).unwrap_or_default()).1)
}

/// The image in what `systemctl show --property=ExecStart --value` prints, as `{ path=… ; argv[]=/usr/bin/cri-dockerd
/// --flag … ; ignore_errors=no ; … }`.
pub fn of_show(shown: &str) -> Option<String> {
    let command = shown.split("argv[]=").last()?.split(" ; ").next()?;
    without_flag(command).1
}
