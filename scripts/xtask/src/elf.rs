//! What an ELF file consists of.

use anyhow::Result;
use goblin::elf::Elf;
use goblin::elf::section_header::SHF_EXECINSTR;

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
