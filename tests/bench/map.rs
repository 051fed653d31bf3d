//! The byte map: what each range of bytes in the files of `scripts/build` is, and why it is
//! needed.

use std::fs;
use std::path::PathBuf;

use addr2line::Loader;
use goblin::elf::Elf;
use goblin::elf::sym::STT_FUNC;
use rustc_demangle::demangle;

use harness::programs::{dist, platform, platforms, root};

/// The names of the parts and the reason for each, in the order of the file. A part without
/// an entry here is an error.
const REASONS: [(&str, &str); COUNT] = [
    ("ELF header", "what the kernel knows the file by"),
    (
        "PT_LOAD",
        "one segment, R+X, headers included: one page, mapped once",
    ),
    (
        "PT_GNU_STACK",
        "kernels before 5.8 and 32-bit arm give an executable stack without it, and scanners look for it",
    ),
    (
        "_start",
        "the stack pointer, where argc is, becomes the argument of main",
    ),
    (
        "exit",
        "`exit_group`, and the traps of rustix and rustc behind it",
    ),
    (
        "say: ppoll",
        "row 4: does the kernel say that there is room and a reader, so that `write` neither waits nor raises SIGPIPE?",
    ),
    ("say: write", "the line, in one call"),
    (
        "main: arguments",
        "rows 1, 2: each is compared with `-v` and `-V`",
    ),
    ("main: -v", "row 1: the version, and the end"),
    (
        "main: handlers",
        "rows 4, 5, 6, 10: `rt_sigaction` for INT, TERM, CHLD, in a loop; the kernel reaps for who ignores CHLD",
    ),
    (
        "main: mask",
        "rows 5, 6a: `rt_sigprocmask` blocks SIGCHLD alone, so that a pending SIGTERM takes effect",
    ),
    ("main: PID 1", "row 3: `getpid`, and the warning"),
    (
        "main: zombies",
        "rows 6a, 7: `wait4`, for those that the kernel does not reap",
    ),
    (
        "main: sleep",
        "rows 6a, 9: `rt_sigtimedwait`, and what it returned",
    ),
    (
        "main: pause",
        "row 11: `pause`; if it returns, the error, and the end",
    ),
    (
        "stop",
        "row 4: the handler of SIGINT and SIGTERM: which line, and the end",
    ),
    (
        "pause *",
        "row 1: `kubeadm upgrade` runs the image with `-v`",
    ),
    ("Warning: *", "row 3: nobody reaps where PID 1 is another"),
    ("Error: *", "row 11: the kernel refuses to let it sleep"),
    ("Shutting down, got signal: Interrupt", "row 4, SIGINT"),
    (
        "Shutting down, got signal: Terminated",
        "row 4, SIGTERM: the last line of a pod's log",
    ),
];

/// The number of parts.
pub const COUNT: usize = 21;
/// The index of the first header.
const HEADERS: usize = 3;
/// The index of the last string.
const STRINGS: usize = 16;

/// Comments in `src/main.rs` at which a part of a function begins.
const PARTS: [(&str, &str); 10] = [
    ("main: arguments", "extern \"C\" fn main"),
    ("main: -v", "            say("),
    ("main: handlers", "let mut status ="),
    ("main: mask", "let mut child = KernelSigSet"),
    ("main: PID 1", "if !getpid().is_init()"),
    ("main: zombies", "while let Ok(Some(_)) = wait("),
    ("main: sleep", "match unsafe { kernel_sigwait("),
    ("main: pause", "    pause();"),
    ("say: ppoll", "fn say("),
    ("say: write", "if fds[0].revents() =="),
];

/// A range of bytes: its offset, its length, and the index of its part.
#[derive(Clone, Copy)]
pub struct Range {
    pub offset: u64,
    pub size: u64,
    pub reason: usize,
}

pub struct Map {
    pub architecture: &'static str,
    pub ranges: Vec<Range>,
}

/// The maps in README: of the first two platforms.
pub fn drawn() -> Vec<Map> {
    let platforms = platforms().into_iter().take(2);
    platforms
        .map(|platform| Map::of(platform.architecture))
        .collect()
}

impl Map {
    /// Maps the file in `dist/`. Functions are found by the symbols of the copy that cargo left.
    /// Panics if a byte belongs to no part.
    fn of(arch: &'static str) -> Self {
        let bytes = fs::read(dist(arch)).expect("scripts/build made it");
        let path = with_symbols(arch);
        let symbols = fs::read(&path).expect("scripts/build made it");
        let loader = Loader::new(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let elf = Elf::parse(&symbols).expect("an ELF file");

        let (header, entry) = (
            u64::from(elf.header.e_ehsize),
            u64::from(elf.header.e_phentsize),
        );
        let mut parts = vec![
            ("ELF header".to_string(), 0, header),
            ("PT_LOAD".into(), header, entry),
            ("PT_GNU_STACK".into(), header + entry, entry),
        ];
        for symbol in elf
            .syms
            .iter()
            .filter(|symbol| symbol.st_type() == STT_FUNC)
        {
            let name = elf.strtab.get_at(symbol.st_name).expect("a name");
            let name = format!("{:#}", demangle(name));
            let name = name.rsplit("::").next().expect("a name").to_string();
            match PARTS
                .iter()
                .any(|(part, _)| part.split(':').next() == Some(&name))
            {
                true => parts.extend(split(&loader, symbol.st_value, symbol.st_size)),
                false => parts.push((name, symbol.st_value, symbol.st_size)),
            }
        }
        parts.sort_by_key(|part| part.1);
        let mut offset = strings(&elf).start;
        for line in bytes[offset as usize..].split_inclusive(|byte| *byte == b'\n') {
            let size = line.len() as u64;
            let text = std::str::from_utf8(line).expect("UTF-8");
            parts.push((text.trim_end().to_string(), offset, size));
            offset += size;
        }

        let mut at = 0;
        let ranges: Vec<_> = parts
            .into_iter()
            .map(|(name, offset, size)| {
                assert_eq!(at, offset, "{arch}: what is before {name}?");
                at += size;
                let known = |(pattern, _): &(&str, &str)| match pattern.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == *pattern,
                };
                let reason = REASONS.iter().position(known);
                Range {
                    offset,
                    size,
                    reason: reason.unwrap_or_else(|| panic!("{arch}: why is {name} there?")),
                }
            })
            .collect();
        assert_eq!(
            at,
            bytes.len() as u64,
            "{arch}: what is behind the last string?"
        );
        Self {
            architecture: arch,
            ranges,
        }
    }

    /// The size of the file, in bytes.
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|range| range.size).sum()
    }
}

/// The bytes of headers, of code and of strings in the file of an architecture.
pub fn parts(architecture: &str) -> [u64; 3] {
    let bytes = fs::read(dist(architecture)).expect("scripts/build made it");
    let elf = Elf::parse(&bytes).expect("an ELF file");
    let program_headers = u64::from(elf.header.e_phnum) * u64::from(elf.header.e_phentsize);
    let headers = u64::from(elf.header.e_ehsize) + program_headers;
    let size = bytes.len() as u64;
    let symbols = fs::read(with_symbols(architecture)).expect("scripts/build made it");
    let elf = Elf::parse(&symbols).expect("an ELF file");
    let strings = strings(&elf);
    let strings = strings.end - strings.start;
    [headers, size - headers - strings, strings]
}

/// Where the file has its strings, by the sections of the copy with symbols.
fn strings(elf: &Elf) -> std::ops::Range<u64> {
    let mut sections = elf.section_headers.iter();
    let section = sections.find(|one| elf.shdr_strtab.get_at(one.sh_name) == Some(".rodata"));
    let section = section.expect("linker.ld makes it");
    section.sh_addr..section.sh_addr + section.sh_size
}

/// The copy of the file that cargo left, which has symbols and line tables.
fn with_symbols(architecture: &str) -> PathBuf {
    let target = root().join("target").join(platform(architecture).target);
    target.join("release/pause")
}

/// Splits a function into its parts by the source lines of its bytes.
fn split(loader: &Loader, start: u64, size: u64) -> Vec<(String, u64, u64)> {
    let source = fs::read_to_string(root().join("src/main.rs")).expect("src/main.rs");
    let line_of = |text: &str| {
        let line = source.lines().position(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("src/main.rs has no '{text}'")) as u32 + 1
    };
    let firsts = PARTS.map(|(name, text)| (line_of(text), name));
    let mut parts: Vec<(String, u64, u64)> = Vec::new();
    for address in start..start + size {
        let mut frames = loader.find_frames(address).expect("line tables");
        // The last frame is the line in this function that calls what was inlined.
        let mut line = None;
        while let Some(frame) = frames.next().expect("a frame") {
            line = frame.location.and_then(|location| location.line);
        }
        let part = firsts
            .iter()
            .filter(|(first, _)| line.is_some_and(|line| *first <= line))
            .max();
        match (part, parts.last_mut()) {
            (Some((_, name)), Some(last)) if last.0 == *name => last.2 += 1,
            (Some((_, name)), _) => parts.push((name.to_string(), address, 1)),
            // Code without a source line goes with the part before it.
            (None, Some(last)) => last.2 += 1,
            (None, None) => panic!("{address:#x} is of no line"),
        }
    }
    parts
}

/// The description of a range.
pub fn name(reason: usize) -> String {
    let name = REASONS[reason].0;
    match reason {
        0..HEADERS => name.to_string(),
        HEADERS..STRINGS => format!("`{name}`"),
        _ => format!("`{}`", name.replace('*', "…")),
    }
}

/// The table in README.
pub fn markdown() -> String {
    let maps = drawn();
    let mut text = String::from("|");
    for map in &maps {
        text += &format!(" | {}: at | bytes", map.architecture);
    }
    text += &format!(" | why |\n|---|{}---|\n", "--:|--:|".repeat(maps.len()));
    for (reason, (_, why)) in REASONS.iter().enumerate() {
        text += &format!("| {} ", name(reason));
        for map in &maps {
            let ranges: Vec<_> = map
                .ranges
                .iter()
                .filter(|range| range.reason == reason)
                .collect();
            let offsets: Vec<_> = ranges
                .iter()
                .map(|range| range.offset.to_string())
                .collect();
            let size: u64 = ranges.iter().map(|range| range.size).sum();
            text += &format!("| {} | {size} ", offsets.join(", "));
        }
        text += &format!("| {why} |\n");
    }
    text += "| **the file** ";
    for map in &maps {
        text += &format!("| | **{}** ", map.size());
    }
    text + "| |\n"
}
