//! One setting in the text of a file. An edit replaces the bytes of the value, or adds a line; all other bytes stay,
//! and the edit can be undone whatever else has changed since.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use saphyr_parser::{Event, Parser};
use serde::{Deserialize, Serialize};
use toml_edit::{Document, Item};

/// A file format.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Toml,
    /// Only a key of the outermost mapping.
    Yaml,
}

/// A setting, by the keys that lead to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Setting {
    pub format: Format,
    pub path: Vec<String>,
}

/// An edit that was made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Edit {
    pub setting: Setting,
    /// The value before, if there was one.
    pub before: Option<String>,
    pub after: String,
    how: How,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    /// The value stood there in this form.
    Replaced(String),
    /// This text was added; the value begins so many bytes behind its start.
    Added { text: String, offset: usize },
}

/// A value in a text: where it is, with its quotes, and what it is.
struct Found {
    at: Range<usize>,
    value: String,
}

impl Setting {
    pub fn toml(path: &[&str]) -> Self {
        Self { format: Format::Toml, path: path.iter().map(|key| key.to_string()).collect() }
    }

    pub fn yaml(key: &str) -> Self {
        Self { format: Format::Yaml, path: vec![key.into()] }
    }

    fn find(&self, text: &str) -> Result<Option<Found>> {
        match self.format {
            Format::Toml => find_toml(text, &self.path),
            Format::Yaml => find_yaml(text, &self.path[0]),
        }
    }

    /// The value in a text.
    pub fn read(&self, text: &str) -> Result<Option<String>> {
        Ok(self.find(text)?.map(|found| found.value))
    }

    /// Whether something is set, of whatever type.
    pub fn is_in(&self, text: &str) -> Result<bool> {
        Ok(walk(parse(text)?.as_item(), &self.path).is_some())
    }

    /// Sets the value. Returns the new text and the edit, or nothing if the value is there already.
    pub fn set(&self, text: &str, value: &str) -> Result<Option<(String, Edit)>> {
        let found = self.find(text)?;
        if found.as_ref().is_some_and(|found| found.value == value) {
            return Ok(None);
        }
        let (new, how) = match &found {
            Some(Found { at, .. }) => {
                let raw = &text[at.clone()];
                let quote = if raw.starts_with('\'') { '\'' } else { '"' };
                let new = format!("{}{quote}{value}{quote}{}", &text[..at.start], &text[at.end..]);
                (new, How::Replaced(raw.into()))
            }
            None => {
                let (at, added) = match self.format {
                    Format::Toml => add_toml(text, &self.path, value)?,
                    Format::Yaml => at_the_end(text, &format!("{}: \"{value}\"", self.path[0])),
                };
                let offset = added.rfind(value).context("the value")? - 1; // the quote
                let new = format!("{}{added}{}", &text[..at], &text[at..]);
                (new, How::Added { text: added, offset })
            }
        };
        // Whatever the form of the file was: it is read again.
        if self.read(&new).ok().flatten().as_deref() != Some(value) {
            bail!("{} cannot be added in this form of the file: set it by hand", self.path.join("."));
        }
        let before = found.map(|found| found.value);
        Ok(Some((new, Edit { setting: self.clone(), before, after: value.into(), how })))
    }
}

impl Edit {
    /// Undoes the edit in a text that may have changed since.
    pub fn undo(&self, text: &str) -> Result<String> {
        let name = self.setting.path.join(".");
        let found = self.setting.find(text)?.with_context(|| format!("{name} is not there"))?;
        let (range, instead) = match &self.how {
            How::Replaced(raw) => (found.at, raw.as_str()),
            How::Added { text: added, offset } => {
                let start = found.at.start.checked_sub(*offset);
                let whole = start.map(|start| start..start + added.len());
                let is_ours = |range: &Range<usize>| {
                    let rest = text.get(range.end..).unwrap_or_default();
                    let next = rest.lines().map(str::trim);
                    let mut next = next.filter(|line| !line.is_empty() && !line.starts_with('#'));
                    // Somebody may have added to the table that was added.
                    text.get(range.clone()) == Some(added)
                        && (!added.contains('[') || next.next().is_none_or(|line| line.starts_with('[')))
                };
                match whole.filter(is_ours) {
                    Some(range) => (range, ""),
                    None => (line(text, &found.at), ""),
                }
            }
        };
        Ok(format!("{}{instead}{}", &text[..range.start], &text[range.end..]))
    }
}

/// The whole line of a part of a text.
fn line(text: &str, part: &Range<usize>) -> Range<usize> {
    let start = text[..part.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[part.end..].find('\n').map_or(text.len(), |at| part.end + at + 1);
    start..end
}

/// The line break of a text.
fn line_break(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// What adds a line, or lines, at the end of a text.
fn at_the_end(text: &str, lines: &str) -> (usize, String) {
    let end = line_break(text);
    let begin = if text.is_empty() || text.ends_with('\n') { "" } else { end };
    (text.len(), format!("{begin}{}{end}", lines.replace('\n', end)))
}

fn parse(text: &str) -> Result<Document<&str>> {
    // The error of the library has the line and draws it: that takes several lines.
    Document::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        anyhow::anyhow!("line {line}: {}", error.message().replace('\n', ", "))
    })
}

/// What keys lead to.
fn walk<'a>(item: &'a Item, path: &[String]) -> Option<&'a Item> {
    path.iter().try_fold(item, |item, key| item.get(key.as_str()))
}

fn find_toml(text: &str, path: &[String]) -> Result<Option<Found>> {
    let document = parse(text)?;
    let Some(item) = walk(document.as_item(), path) else { return Ok(None) };
    let at = item.span().context("a place in the file")?;
    let value = item.as_str().with_context(|| format!("{} is no string", path.join(".")))?;
    Ok(Some(Found { at, value: value.into() }))
}

/// A key as it stands in a file.
fn key(name: &str) -> String {
    let bare = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if name.chars().all(bare) { name.into() } else { format!("'{name}'") }
}

/// Where a setting is added, and what: into its table if the file has it, or else with its table at the end.
fn add_toml(text: &str, path: &[String], value: &str) -> Result<(usize, String)> {
    let (name, tables) = path.split_last().context("a key")?;
    let setting = format!("{} = \"{value}\"", key(name));
    let document = parse(text)?;
    let table = walk(document.as_item(), tables);
    let header = table.and_then(Item::span).filter(|at| text[at.clone()].starts_with(['[', '{']));
    match (table, header) {
        (Some(Item::Table(table)), Some(header)) => {
            let header_line = line(text, &header);
            // Some files indent what is in a table.
            let first = table.iter().filter_map(|(key, _)| table.key(key)?.span());
            let first = first.filter(|at| at.start > header.end).map(|at| line(text, &at)).min_by_key(|at| at.start);
            let like = &text[first.unwrap_or(header_line.clone())];
            let indent = &like[..like.len() - like.trim_start().len()];
            let end = line_break(text);
            let begin = if text[..header_line.end].ends_with('\n') { "" } else { end };
            Ok((header_line.end, format!("{begin}{indent}{setting}{end}")))
        }
        (Some(inline), Some(braces)) => {
            let is_empty = inline.as_inline_table().is_none_or(|table| table.is_empty());
            Ok((braces.start + 1, format!(" {setting}{}", if is_empty { " " } else { "," })))
        }
        _ => {
            let header: Vec<_> = tables.iter().map(|name| key(name)).collect();
            Ok(at_the_end(text, &format!("[{}]\n{setting}", header.join("."))))
        }
    }
}

fn find_yaml(text: &str, name: &str) -> Result<Option<Found>> {
    let (mut documents, mut depth, mut is_key, mut is_ours) = (0, 0, true, false);
    let mut found = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| anyhow::anyhow!("line {}: {}", error.marker().line(), error.info().replace('\n', ", ")))?;
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
        }
        if documents > 1 {
            break;
        }
        // At the outermost depth keys and values take turns; whatever is deeper is part of a value.
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                depth += 1;
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => depth -= 1,
            Event::Scalar(value, ..) if depth == 1 => {
                if !is_key && is_ours {
                    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
                    let start = byte(span.start.index());
                    found = Some(Found { at: start..start + length(&text[start..]), value: value.to_string() });
                }
                is_ours = is_key && value == name;
            }
            Event::Scalar(..) | Event::Alias(..) => (),
            _ => continue,
        }
        if depth == 1 {
            is_key = !is_key;
        }
    }
    Ok(found)
}

/// How many bytes a scalar of YAML has, with its quotes. That of the library ends behind its comment.
fn length(text: &str) -> usize {
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => text[1..].find(quote).map_or(text.len(), |at| at + 2),
        _ => {
            let rest = text.split(['\n', '\r']).next().unwrap_or(text);
            rest.split(" #").next().unwrap_or(rest).trim_end().len()
        }
    }
}
