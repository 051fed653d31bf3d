//! What each byte of the files of `scripts/build` is: headers, functions by their symbols, strings, and for the code
//! the lines of the source by the line tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use addr2line::Loader;
use goblin::elf::Elf;
use goblin::elf::sym::STT_FUNC;

use harness::programs::{Platform, dist, platforms, root};

/// A part of a file: its name and its bytes, in the order of the file.
type Part = (String, u64);

/// A line of the source: the path and the number.
type Line = (String, u32);

/// The parts of the file of a platform: its headers, the functions by the symbols of the file that cargo linked, and
/// the strings.
fn parts(platform: &Platform) -> Vec<Part> {
    let file = fs::read(dist(platform.architecture)).expect("scripts/build made it");
    let linked = fs::read(platform.linked()).expect("scripts/build made it");
    let (header, elf) = (Elf::parse(&file).expect("an ELF file").header, Elf::parse(&linked).expect("an ELF file"));
    let headers = u64::from(header.e_ehsize) + u64::from(header.e_phnum) * u64::from(header.e_phentsize);
    let mut parts = vec![("headers".to_string(), headers)];
    let mut functions: Vec<_> = elf.syms.iter().filter(|symbol| symbol.st_type() == STT_FUNC).collect();
    functions.sort_by_key(|symbol| symbol.st_value);
    for symbol in functions {
        let name = elf.strtab.get_at(symbol.st_name).expect("a symbol with a name");
        let name = format!("{:#}", rustc_demangle::demangle(name));
        parts.push((format!("`{}`", name.rsplit("::").next().unwrap_or_default()), symbol.st_size));
    }
    let rodata = elf.section_headers.iter().find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(".rodata"));
    let strings = file.len() - rodata.map_or(0, |section| section.sh_size as usize);
    let named: u64 = parts.iter().map(|(_, size)| size).sum();
    // Padding; on ppc64le the traceback tables behind the functions, too.
    parts.push(("between functions".into(), strings as u64 - named));
    for string in file[strings..].split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(string);
        let text = text.trim_matches(|letter: char| letter.is_control());
        parts.push((format!("\"{text}\""), string.len() as u64));
    }
    parts
}

/// How many bytes of code each line of the source has. What was inlined counts for the line of pause's own source that
/// calls it.
fn lines(platform: &Platform) -> BTreeMap<Line, u64> {
    let path = platform.linked();
    let loader = Loader::new(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let linked = fs::read(&path).expect("scripts/build made it");
    let elf = Elf::parse(&linked).expect("an ELF file");
    let mut lines = BTreeMap::new();
    for symbol in elf.syms.iter().filter(|symbol| symbol.st_type() == STT_FUNC) {
        for address in symbol.st_value..symbol.st_value + symbol.st_size {
            let mut frames = loader.find_frames(address).expect("line tables");
            let mut line = ("another crate, or no line".to_string(), 0);
            while let Some(frame) = frames.next().expect("a frame") {
                if let Some(place) = frame.location
                    && let Some(file) = place.file.and_then(|file| file.strip_prefix("/pause/"))
                {
                    line = (file.to_string(), place.line.unwrap_or(0));
                }
            }
            *lines.entry(line).or_default() += 1;
        }
    }
    lines
}

/// Two tables with a column for each platform: the parts of the files, and the lines of the source.
pub fn tables() -> String {
    let platforms = platforms();
    let names = platforms.iter().map(|platform| platform.architecture.to_string());
    let head = |title: &str| [title.to_string()].into_iter().chain(names.clone()).collect();
    let all: Vec<_> = platforms.iter().map(|platform| parts(platform)).collect();
    let mut order: Vec<&String> = Vec::new();
    for (name, _) in all.iter().flatten() {
        if !order.contains(&name) {
            order.push(name);
        }
    }
    let mut table: Vec<Vec<String>> = vec![head("part of the file, bytes")];
    for name in order {
        let size = |parts: &Vec<Part>| {
            let same = parts.iter().filter(|part| part.0 == *name);
            same.map(|part| part.1).sum::<u64>().to_string()
        };
        table.push([name.clone()].into_iter().chain(all.iter().map(size)).collect());
    }
    let size = |parts: &Vec<Part>| parts.iter().map(|part| part.1).sum::<u64>().to_string();
    table.push(["**the file**".into()].into_iter().chain(all.iter().map(size)).collect());

    let by_line: Vec<_> = platforms.iter().map(|platform| lines(platform)).collect();
    let mut all_lines: Vec<&Line> = by_line.iter().flat_map(|lines| lines.keys()).collect();
    all_lines.sort();
    all_lines.dedup();
    let mut source: Vec<Vec<String>> = vec![head("line of the source, bytes of code")];
    for line in all_lines {
        let sizes = by_line.iter().map(|lines| lines.get(line).unwrap_or(&0).to_string());
        source.push([title(line)].into_iter().chain(sizes).collect());
    }
    markdown(&table) + "\n" + &markdown(&source)
}

/// The place of a line, and its text.
fn title((file, number): &Line) -> String {
    let text = fs::read_to_string(root().join(Path::new(file))).unwrap_or_default();
    match text.lines().nth((*number as usize).wrapping_sub(1)) {
        Some(line) => format!("{file}:{number} `{}`", line.trim().replace('|', "\\|")),
        None => file.clone(),
    }
}

/// A table in Markdown, whose first column has names.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = format!("|---|{}\n", "--:|".repeat(rows[0].len() - 1));
    line(&rows[0]) + &rule + &rows[1..].iter().map(line).collect::<String>()
}
