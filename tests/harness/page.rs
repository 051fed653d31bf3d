//! Pages in Markdown with parts that a script writes, between two comments:
//! `<!-- NAME -->` and `<!-- end of NAME -->`.

use std::fs;

use crate::programs::root;

fn markers(name: &str) -> (String, String) {
    (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    )
}

/// The part with this name of a page of the project.
#[track_caller]
pub fn part(page: &str, name: &str) -> String {
    let text = fs::read_to_string(root().join(page)).expect(page);
    let (start, end) = markers(name);
    let part = text
        .split_once(&start)
        .and_then(|(_, rest)| rest.split_once(&end));
    part.unwrap_or_else(|| panic!("{page} has no part '{name}'"))
        .0
        .into()
}

/// Replaces that part.
#[track_caller]
pub fn fill(page: &str, name: &str, new: &str) {
    let old = part(page, name);
    let (start, end) = markers(name);
    let text = fs::read_to_string(root().join(page)).expect(page);
    let text = text.replacen(
        &format!("{start}{old}{end}"),
        &format!("{start}{new}{end}"),
        1,
    );
    fs::write(root().join(page), text).expect(page);
}

/// 20000 as 20,000.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
