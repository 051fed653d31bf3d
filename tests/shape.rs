//! The ELF headers of the files in `dist/`, and ordinary tools that read these files. `scripts/bench --check` compares
//! their sizes.

use std::fs;
use std::path::Path;
use std::process::Command;

use goblin::elf::Elf;
use goblin::elf::header::ET_DYN;
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_STACK, PT_LOAD};

use harness::Folder;
use harness::programs::{Platform, dist, processor, qemu_user};

/// Checks a file: one segment, aligned so that a kernel with any size of pages can load it, and a stack that is not
/// executable.
pub fn is_one_segment(platform: &'static Platform) {
    let bytes = fs::read(dist(platform.architecture)).expect("the file");
    let elf = Elf::parse(&bytes).expect("an ELF file");
    let size = bytes.len() as u64;

    assert_eq!(elf.header.e_type, ET_DYN);
    assert_eq!((elf.header.e_shoff, elf.header.e_shnum), (0, 0), "section headers");
    // Of a section header, though there is none (elf(5)).
    assert_eq!(elf.header.e_shentsize, if elf.is_64 { 64 } else { 40 });
    assert_eq!(elf.interpreter, None);
    assert!(elf.dynamic.is_none());

    // The headers do not overlap.
    let headers = elf.header.e_phoff + 2 * u64::from(elf.header.e_phentsize);
    assert!(elf.header.e_phoff >= u64::from(elf.header.e_ehsize));
    assert!((headers..size).contains(&elf.entry), "the entry is in the code");

    let [load, stack] = elf.program_headers.as_slice() else {
        panic!("not two program headers: {:?}", elf.program_headers);
    };
    assert_eq!((load.p_type, load.p_flags), (PT_LOAD, PF_R | PF_X));
    assert_eq!((load.p_offset, load.p_vaddr), (0, 0));
    assert_eq!((load.p_filesz, load.p_memsz), (size, size));
    assert_eq!(load.p_align, platform.largest_page);
    assert_eq!((stack.p_type, stack.p_flags), (PT_GNU_STACK, PF_R | PF_W));
    assert_eq!((stack.p_filesz, stack.p_memsz), (0, 0));
}

/// Where an ELF header has e_shentsize (elf(5)).
fn shentsize(platform: &Platform) -> std::ops::Range<usize> {
    match platform.architecture {
        "arm" => 46..48,
        _ => 58..60,
    }
}

/// Runs a tool, which must succeed and print no warning.
fn reads(tool: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(tool).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}: run scripts/test"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{tool}: {stderr}{stdout}");
    assert!(!stdout.to_lowercase().contains("warning"), "{stdout}");
    stdout
}

/// GNU strip refuses a file without sections; llvm-strip accepts it.
pub fn ordinary_tools_read_it(platform: &'static Platform) {
    let path = dist(platform.architecture);
    // All but -u: for arm, readelf looks for unwind tables in sections only, and fails.
    reads("readelf", &["--wide", "-hlSsrdnVAI"], &path);
    let file = reads("file", &["--brief"], &path);
    assert!(file.starts_with("ELF ") && file.contains("static"), "{file}");
    let folder = Folder::new("stripped");
    let stripped = folder.join("pause");
    fs::copy(&path, &stripped).expect("a copy");
    reads("llvm-strip", &["--strip-all"], &stripped);
    // It finds nothing to remove, and sets e_shentsize to 0.
    let [mut left, file] = [stripped, path].map(|path| fs::read(path).expect("a file"));
    left[shentsize(platform)].copy_from_slice(&file[shentsize(platform)]);
    assert!(left == file, "llvm-strip changed more");
}

/// A signature of ClamAV's own test is enough; what counts is `--alert-broken`.
pub fn clamav_does_not_call_it_broken(platform: &'static Platform) {
    let folder = Folder::new("clamav");
    let signatures = folder.join("test.hdb");
    fs::write(&signatures, "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n").expect("a file");
    let scan = |path: &Path| {
        let mut clamscan = Command::new("clamscan");
        clamscan.args(["--alert-broken", "--no-summary", "--database"]).arg(&signatures).arg(path);
        let output = clamscan.output().unwrap_or_else(|error| panic!("clamscan: {error}: run scripts/test"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = dist(platform.architecture);
    let result = scan(&path);
    assert!(result.ends_with(": OK\n"), "{result}");
    // The control: with 0 as the size of a section header, as rust-objcopy leaves it.
    let mut bytes = fs::read(&path).expect("the file");
    bytes[shentsize(platform)].fill(0);
    let broken = folder.join(platform.file());
    fs::write(&broken, bytes).expect("a copy");
    assert!(scan(&broken).contains("Heuristics.Broken.Executable FOUND"), "{}", scan(&broken));
}

/// qemu-user emulates the oldest processor of each platform, and runs no program for another architecture.
pub fn the_oldest_processors_run_it(platform: &'static Platform) {
    let qemu = qemu_user(platform);
    let cpu = processor(&qemu, platform.qemu.cpu);
    let mut emulator = Command::new(qemu);
    emulator.args(["-cpu", &cpu]).arg(dist(platform.architecture)).arg("-v");
    let output = emulator.output().expect("qemu-user");
    assert!(output.status.success() && output.stdout.starts_with(b"pause "), "{output:?}");
}
