//! What an ELF file consists of.

use anyhow::{Context, Result};
use goblin::elf::Elf;
use goblin::elf::section_header::SHF_EXECINSTR;
use goblin::elf::sym::STT_FUNC;
use rustc_demangle::demangle;

/// The bytes of a file in three parts.
#[derive(Clone, Copy)]
pub struct Parts {
    /// The ELF header, the program headers and the section headers.
    pub headers: u64,
    pub code: u64,
    pub strings: u64,
}

impl Parts {
    /// Of a file, whose sections may be those of the file that the linker made.
    pub fn of(file: &[u8], linked: &[u8]) -> Result<Self> {
        let header = Elf::parse(file)?.header;
        let table = |count: u16, size: u16| u64::from(count) * u64::from(size);
        let headers = u64::from(header.e_ehsize)
            + table(header.e_phnum, header.e_phentsize)
            + table(header.e_shnum, header.e_shentsize);
        let elf = Elf::parse(linked)?;
        let (mut code, mut strings) = (0, 0);
        for section in &elf.section_headers {
            if section.sh_flags & u64::from(SHF_EXECINSTR) != 0 {
                code += section.sh_size;
            }
            if elf.shdr_strtab.get_at(section.sh_name) == Some(".rodata") {
                strings += section.sh_size;
            }
        }
        if header.e_shnum == 0 {
            code = file.len() as u64 - headers - strings; // what the linker put between, too
        }
        Ok(Self { headers, code, strings })
    }
}

/// What each byte of a file is, in the order of the file: its headers, the functions by the symbols of the file
/// that the linker made, and the strings.
pub fn map(file: &[u8], linked: &[u8]) -> Result<Vec<(String, u64)>> {
    let sizes = Parts::of(file, linked)?;
    let elf = Elf::parse(linked)?;
    let mut functions = Vec::new();
    for symbol in elf.syms.iter().filter(|symbol| symbol.st_type() == STT_FUNC) {
        let name = elf.strtab.get_at(symbol.st_name).context("a symbol without a name")?;
        let name = format!("{:#}", demangle(name));
        let name = name.rsplit("::").next().unwrap_or_default().to_string();
        functions.push((symbol.st_value, name, symbol.st_size));
    }
    functions.sort();
    let mut parts = vec![("headers".to_string(), sizes.headers)];
    parts.extend(functions.into_iter().map(|(_, name, size)| (format!("`{name}`"), size)));
    let strings = file.len() - sizes.strings as usize;
    let named: u64 = parts.iter().map(|(_, size)| size).sum();
    // Padding; on ppc64le the traceback tables behind the functions, too.
    parts.push(("between functions".into(), strings as u64 - named));
    for string in file[strings..].split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(string);
        let text = text.trim_matches(|letter: char| letter.is_control());
        parts.push((format!("\"{text}\""), string.len() as u64));
    }
    Ok(parts)
}
