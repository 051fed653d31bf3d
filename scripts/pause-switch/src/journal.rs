//! What was changed and how it was before, on the disk before anything is changed. Whatever ends the program in
//! between, the next call finishes or undoes it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::change::{Change, Kind};
use crate::edit::Edit;
use crate::node::Node;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Journal {
    pub kind: Kind,
    /// The image before, if a file named one.
    pub before: Option<String>,
    pub after: String,
    pub done: Vec<Done>,
    /// Whether the runtime has taken the change.
    pub is_complete: bool,
}

/// A change to a file, and how to undo it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// Settings in a file. One that was made for them, with this text before the first, is removed.
    Settings { file: String, head: Option<String>, edits: Vec<Edit> },
    /// A file of our own, and what was there before.
    File { file: String, text: String, before: Option<String> },
}

fn path(kind: Kind) -> String {
    format!("/var/lib/pause-switch/{}.json", kind.name())
}

impl Journal {
    pub fn read(node: &Node, kind: Kind) -> Result<Option<Self>> {
        let path = path(kind);
        let text = node.read(&path)?;
        let journal = text.map(|text| serde_json::from_str(&text)).transpose();
        journal.with_context(|| format!("{path} is broken: set the image of before by hand, and remove this file"))
    }

    pub fn is_there(node: &Node, kind: Kind) -> bool {
        node.has(&path(kind))
    }

    pub fn write(&self, node: &Node) -> Result<()> {
        node.write(&path(self.kind), &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// The image before, as a message names it.
    pub fn before_or_default(&self) -> &str {
        self.before.as_deref().unwrap_or("the default of the runtime")
    }

    pub fn remove(node: &Node, kind: Kind) -> Result<()> {
        node.remove(&path(kind))
    }

    /// Removes what a killed call may have left beside the files. Without a journal none was touched.
    pub fn sweep(node: &Node, kind: Kind, journal: Option<&Self>) -> Result<()> {
        node.sweep(&path(kind))?;
        journal.into_iter().flat_map(|journal| &journal.done).try_for_each(|done| node.sweep(done.file()))
    }
}

/// Groups changes by their files, and says what each file will be: its path, its text (none: it goes), and how to undo
/// it.
pub fn prepare(node: &Node, changes: &[Change]) -> Result<Vec<(String, String, Done)>> {
    let mut all: Vec<(String, String, Done)> = Vec::new();
    for change in changes {
        let file = change.file().to_string();
        let there = node.read(&file)?;
        match change {
            Change::File { text, .. } => {
                let done = Done::File { file: file.clone(), text: text.clone(), before: there };
                all.push((file, text.clone(), done));
            }
            Change::Setting { setting, value, head, .. } => {
                let index = all.iter().position(|(other, ..)| *other == file).unwrap_or_else(|| {
                    let is_new = there.is_none();
                    let text = there.unwrap_or(head.clone());
                    let head = is_new.then(|| head.clone());
                    all.push((file.clone(), text, Done::Settings { file: file.clone(), head, edits: vec![] }));
                    all.len() - 1
                });
                let (_, text, done) = &mut all[index];
                let set = setting.set(text, value).with_context(|| file.clone())?;
                if let (Some((new, edit)), Done::Settings { edits, .. }) = (set, done) {
                    *text = new;
                    edits.push(edit);
                }
            }
        }
    }
    Ok(all)
}

impl Done {
    pub fn file(&self) -> &str {
        match self {
            Self::Settings { file, .. } | Self::File { file, .. } => file,
        }
    }

    /// What somebody else has changed since, if anything: undoing would take that back.
    pub fn conflict(&self, node: &Node) -> Result<Option<String>> {
        let file = self.file();
        let there = node.read(file)?;
        Ok(match self {
            Self::File { text, before, .. } => {
                (there.as_ref() != Some(text) && there != *before).then(|| format!("{file} was changed"))
            }
            Self::Settings { edits, .. } => {
                let there = there.unwrap_or_default();
                let mut conflict = None;
                for edit in edits {
                    let now = edit.setting.read(&there).with_context(|| file.to_string())?;
                    if now.as_deref() != Some(&edit.after) && now != edit.before {
                        let now = now.unwrap_or("not set".into());
                        conflict = Some(format!("{} in {file} is {now}", edit.setting.path.join(".")));
                    }
                }
                conflict
            }
        })
    }

    /// The text of the file without the change; nothing if the file goes. With `force` also without what somebody else
    /// has made of the setting since.
    pub fn undone(&self, node: &Node, force: bool) -> Result<Option<String>> {
        let there = node.read(self.file())?;
        match self {
            Self::File { before, .. } => Ok(before.clone()),
            Self::Settings { file, head, edits } => {
                let Some(mut text) = there else { return Ok(None) };
                for edit in edits.iter().rev() {
                    let now = edit.setting.read(&text).with_context(|| file.clone())?;
                    // One that was undone, or that was never made, stays.
                    let is_ours = now.as_ref() == Some(&edit.after);
                    if now == edit.before || !(is_ours || force) {
                        continue;
                    }
                    text = match (&now, &edit.before) {
                        (None, Some(before)) => edit.setting.set(&text, before)?.map_or(text, |(text, _)| text),
                        _ => edit.undo(&text).with_context(|| file.clone())?,
                    };
                }
                Ok((head.as_ref() != Some(&text)).then_some(text))
            }
        }
    }
}
