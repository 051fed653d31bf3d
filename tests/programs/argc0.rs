//! Starts pause with argc 0 and a variable `-v` right behind argv, as kernels before 5.18
//! do when they are asked to: pause is a part of this program, and is given a stack made
//! by hand. With two arguments it gets argc 2 and the same stack, where `-v` is argv[1].

#![no_std]
#![no_main]

use core::arch::asm;

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
mod start;

/// The file that PAUSE_FILE names when this is built. pause needs no relocation and no
/// page of its own, so it runs where it lies.
#[repr(C, align(16))]
struct Aligned<Bytes: ?Sized>(Bytes);
const PAUSE: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("PAUSE_FILE")));

/// Where an ELF file has the offset of its entry point (`e_entry`).
const E_ENTRY: usize = 24;

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there.
    let argc = unsafe { *stack } - 1;
    let file = &PAUSE.0;
    let entry = usize::from_ne_bytes(*file[E_ENTRY..].first_chunk().unwrap());
    // argc, the end of argv, the environment and its end, the end of the auxiliary vector.
    let stack = Aligned([argc, 0, c"-v".as_ptr().addr(), 0, 0, 0]);
    // SAFETY: it has the form in which the kernel starts a program, at a multiple of 16.
    unsafe {
        let entry = file.as_ptr().add(entry);
        #[cfg(target_arch = "x86_64")]
        asm!("mov rsp, {}", "jmp {}", in(reg) &raw const stack, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("mov sp, {}", "br {}", in(reg) &raw const stack, in(reg) entry, options(noreturn));
    }
}
