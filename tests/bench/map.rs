//! What each byte of the files of `scripts/build` is: headers, functions by their symbols, strings, and for the code
//! the lines of the source by the line tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use addr2line::Loader;
use goblin::elf::Elf;
use goblin::elf::sym::STT_FUNC;

use harness::programs::{Platform, dist, platforms, root};

/// A part of a file: its name and its bytes, in the order of the file.
type Part = (String, u64);

/// The last part: all of the file.
const SUM: &str = "**the file**";

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
    parts.push((SUM.into(), file.len() as u64));
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
    let parts: Vec<_> = platforms().into_iter().map(parts).collect();
    let mut names: Vec<String> = Vec::new();
    for (name, _) in parts.iter().flatten() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort_by_key(|name| name == SUM);
    let lines: Vec<_> = platforms().into_iter().map(lines).collect();
    let places: BTreeSet<&Line> = lines.iter().flat_map(|lines| lines.keys()).collect();
    let titles = places.into_iter().map(title).collect();
    let titled = |lines: &BTreeMap<Line, u64>| lines.iter().map(|(line, size)| (title(line), *size)).collect();
    let lines: Vec<Vec<Part>> = lines.iter().map(titled).collect();
    table("part of the file", names, &parts) + "\n" + &table("line of the source", titles, &lines)
}

/// A table of bytes: a row for each name, and a column for each platform.
fn table(title: &str, names: Vec<String>, columns: &[Vec<Part>]) -> String {
    let mut rows = vec![vec![format!("{title}, bytes")]];
    rows[0].extend(platforms().iter().map(|platform| platform.architecture.to_string()));
    for name in names {
        let size = |parts: &Vec<Part>| parts.iter().filter(|part| part.0 == name).map(|part| part.1).sum::<u64>();
        let sizes: Vec<_> = columns.iter().map(|parts| size(parts).to_string()).collect();
        rows.push([&[name][..], &sizes].concat());
    }
    markdown(&rows)
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
