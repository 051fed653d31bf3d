//! The ELF headers of the files in `dist/`, and ordinary tools that read these files.
//! `scripts/bench --check` compares their sizes.

use std::fs;
use std::path::Path;
use std::process::Command;

use goblin::elf::Elf;
use goblin::elf::header::{EM_AARCH64, EM_X86_64, ET_DYN};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_STACK, PT_LOAD};

use harness::Folder;
use harness::programs::{dist, qemu_user};

/// Checks a file: one segment with this alignment, and a stack that is not executable.
fn has_the_shape(architecture: &str, machine: u16, alignment: u64) {
    let bytes = fs::read(dist(architecture)).expect("the file");
    let elf = Elf::parse(&bytes).expect("an ELF file");
    let size = bytes.len() as u64;

    assert_eq!((elf.header.e_type, elf.header.e_machine), (ET_DYN, machine));
    assert_eq!(
        (elf.header.e_shoff, elf.header.e_shnum),
        (0, 0),
        "section headers"
    );
    assert_eq!(elf.interpreter, None);
    assert!(elf.dynamic.is_none());

    // The headers do not overlap.
    let headers = elf.header.e_phoff + 2 * u64::from(elf.header.e_phentsize);
    assert!(elf.header.e_phoff >= u64::from(elf.header.e_ehsize));
    assert!(
        (headers..size).contains(&elf.entry),
        "the entry is in the code"
    );

    let [load, stack] = elf.program_headers.as_slice() else {
        panic!("not two program headers: {:?}", elf.program_headers);
    };
    assert_eq!((load.p_type, load.p_flags), (PT_LOAD, PF_R | PF_X));
    assert_eq!((load.p_offset, load.p_vaddr), (0, 0));
    assert_eq!((load.p_filesz, load.p_memsz), (size, size));
    assert_eq!(load.p_align, alignment);
    assert_eq!((stack.p_type, stack.p_flags), (PT_GNU_STACK, PF_R | PF_W));
    assert_eq!((stack.p_filesz, stack.p_memsz), (0, 0));
}

/// Runs a tool, which must succeed and print no warning.
#[track_caller]
fn reads(tool: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(tool).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}: run scripts/setup"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{tool}: {stderr}{stdout}"
    );
    assert!(!stdout.to_lowercase().contains("warning"), "{stdout}");
    stdout
}

limited! {
    #[ignore = "needs scripts/test"]
    fn amd64_is_one_segment() {
        has_the_shape("amd64", EM_X86_64, 4096);
    }

    /// 64 KiB, so that a kernel with pages of 4, 16 or 64 KiB can load the file.
    #[ignore = "needs scripts/test"]
    fn arm64_is_one_segment() {
        has_the_shape("arm64", EM_AARCH64, 65536);
    }

    /// GNU strip refuses a file without sections; llvm-strip accepts it.
    #[ignore = "needs scripts/test"]
    fn ordinary_tools_read_it() {
        for (architecture, name) in [("amd64", "x86-64"), ("arm64", "aarch64")] {
            let path = dist(architecture);
            reads("readelf", &["--wide", "--all"], &path);
            let file = reads("file", &["--brief"], &path);
            assert!(file.contains(name) && file.contains("static"), "{file}");
            let folder = Folder::new("stripped");
            let stripped = folder.join(architecture);
            fs::copy(&path, &stripped).expect("a copy");
            reads("llvm-strip", &["--strip-all"], &stripped);
            assert_eq!(fs::read(&stripped).expect("the copy"), fs::read(&path).expect("the file"));
        }
    }

    /// The oldest processors: x86-64-v1 and ARMv8.0-A, as qemu emulates them.
    #[ignore = "needs scripts/test"]
    fn the_oldest_processors_run_it() {
        for (emulator, processor, architecture) in [
            ("x86_64", "qemu64", "amd64"),
            ("aarch64", "cortex-a53", "arm64"),
        ] {
            let mut emulator = Command::new(qemu_user(emulator));
            emulator.args(["-cpu", processor]).arg(dist(architecture)).arg("-v");
            let output = emulator.output().expect("qemu-user");
            assert!(output.status.success() && output.stdout.starts_with(b"pause "), "{output:?}");
        }
    }
}
