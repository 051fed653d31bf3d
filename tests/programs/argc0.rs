//! Starts a program with argc 0, as kernels before 5.18 do on request. The environment, with a variable `-v`, is then
//! where argv\[1\] would be.
//!
//! Arguments: the file of pause, which is loaded and entered with a stack that this program makes. Each further
//! argument adds one to argc on the same stack: with two, `-v` is argv\[1\].

#![no_std]
#![no_main]

use core::arch::asm;
use core::ffi::CStr;
use core::ptr::null_mut;

use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MapFlags, ProtFlags, mmap};

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/start/mod.rs"]
mod start;

/// Larger than the file, whose one segment contains all of it.
const LENGTH: usize = 65536;
/// The offset of `e_entry`, the entry point, in an ELF header of 32 and of 64 bits.
const E_ENTRY: usize = 24;

/// A stack pointer must be a multiple of 16.
#[repr(align(16))]
struct Stack([usize; 6]);

/// # Safety
///
/// `stack` is the stack pointer that the kernel started the process with.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, followed by argv.
    let (argc, path) = unsafe { (*stack, CStr::from_ptr((*stack.add(2)) as _)) };
    let Ok(file) = open(path, OFlags::RDONLY, Mode::empty()) else { exit::exit(1) };
    let rights = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: a new mapping.
    let Ok(start) = (unsafe { mmap(null_mut(), LENGTH, rights, MapFlags::PRIVATE, &file, 0) }) else { exit::exit(2) };
    // argc, the end of argv, the environment and its end, the end of the auxiliary vector.
    let stack = Stack([argc - 2, 0, c"-v".as_ptr().addr(), 0, 0, 0]);
    // SAFETY: the entry point of the file, and a stack as the kernel makes it for a program.
    unsafe {
        let entry = start.byte_add(*start.byte_add(E_ENTRY).cast::<usize>());
        #[cfg(target_arch = "x86_64")]
        asm!("mov rsp, {}", "jmp {}", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("mov sp, {}", "br {}", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "arm")]
        asm!("mov sp, {}", "bx {}", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "riscv64")]
        asm!("mv sp, {}", "jr {}", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "powerpc64")]
        asm!("mr 1, {}", "mr 12, {}", "mtctr 12", "bctr", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
        #[cfg(target_arch = "s390x")]
        asm!("lgr %r15, {}", "br {}", in(reg) &raw const stack.0, in(reg) entry, options(noreturn));
    }
}
