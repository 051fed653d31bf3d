//! README and docs/, whose commands and settings the tests use as they stand there.

use std::fs;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::programs::root;

/// The text of README and of all pages in docs/.
pub fn text() -> String {
    let pages = fs::read_dir(root().join("docs")).expect("docs/").flatten();
    let pages = pages.map(|entry| entry.path()).chain([root().join("README.md")]);
    let pages = pages.filter(|path| path.extension().is_some_and(|name| name == "md"));
    pages.map(|path| fs::read_to_string(path).expect("a page") + "\n").collect()
}

/// A block of code.
struct Block {
    /// The text of the heading above it.
    heading: String,
    language: String,
    code: String,
}

/// Goes through all pages. What is in a heading is left out; `each` gets the heading above.
fn walk(mut each: impl FnMut(&str, Event)) {
    let (text, mut heading, mut in_heading) = (text(), String::new(), false);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => (in_heading, heading) = (true, String::new()),
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Text(text) | Event::Code(text) if in_heading => heading += &text,
            event => each(&heading, event),
        }
    }
}

fn blocks() -> Vec<Block> {
    let (mut blocks, mut in_block) = (Vec::<Block>::new(), false);
    walk(|heading, event| match event {
        Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
            in_block = true;
            blocks.push(Block {
                heading: heading.into(),
                language: language.to_string(),
                code: String::new(),
            });
        }
        Event::End(TagEnd::CodeBlock) => in_block = false,
        Event::Text(text) if in_block => blocks.last_mut().expect("a block").code += &text,
        _ => (),
    });
    blocks
}

/// The only block in this language below a heading.
#[track_caller]
pub fn block(heading: &str, language: &str) -> String {
    let all = blocks().into_iter();
    let ours = all.filter(|block| block.heading == heading && block.language == language);
    let [block] = &ours.collect::<Vec<_>>()[..] else {
        panic!("there is not one block of {language} below '{heading}'");
    };
    block.code.clone()
}

/// The cells of each row of the only table below a heading, without its head.
#[track_caller]
pub fn table(heading: &str) -> Vec<Vec<String>> {
    let (mut rows, mut in_rows) = (Vec::<Vec<String>>::new(), false);
    walk(|title, event| match event {
        Event::End(TagEnd::TableHead) => in_rows = title == heading,
        Event::End(TagEnd::Table) => in_rows = false,
        _ if !in_rows => (),
        Event::Start(Tag::TableRow) => rows.push(Vec::new()),
        Event::Start(Tag::TableCell) => rows.last_mut().expect("a row").push(String::new()),
        Event::Text(text) | Event::Code(text) => {
            *rows.last_mut().and_then(|row| row.last_mut()).expect("a cell") += &text;
        }
        _ => (),
    });
    assert!(!rows.is_empty(), "there is no table below '{heading}'");
    rows
}
