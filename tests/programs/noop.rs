//! A program that sleeps and does nothing else: the least that a process costs.

#![no_std]
#![no_main]

use core::arch::naked_asm;

#[path = "../../src/end.rs"]
mod end;

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("2: mov eax, 34", "syscall", "jmp 2b");
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "2: mov x8, #73", // ppoll, as there is no pause
        "mov x0, xzr",
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "svc #0",
        "b 2b",
    );
}
