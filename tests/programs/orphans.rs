//! Makes a thousand orphans that end at once: a hundred children leave ten behind each. With an argument, one in ten
//! calls PTRACE_TRACEME as a child of PID 1, which makes PID 1 its tracer. A fork of this program costs less than one
//! of the tests, which have more memory.

#![no_std]
#![no_main]

use core::arch::asm;

use linux_raw_sys::general::__NR_ptrace;
use linux_raw_sys::ptrace::PTRACE_TRACEME;
use rustix::event::{Timespec, poll};
use rustix::process::{WaitOptions, getppid, wait};

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/start/mod.rs"]
mod start;

/// A tenth of a millisecond.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000 };

/// Forks, and returns whether this is the child.
#[cfg(not(target_arch = "s390x"))]
fn child() -> bool {
    use exit::runtime::{Fork, kernel_fork};
    // SAFETY: there is no other thread, and nothing that would have to know of a fork.
    match unsafe { kernel_fork() } {
        Ok(fork) => matches!(fork, Fork::Child(_)),
        Err(_) => exit::exit(1),
    }
}

/// The same. clone(2) has its first two arguments the other way round on s390x, which rustix 1.1.6 does not do: its
/// child has no stack.
#[cfg(target_arch = "s390x")]
fn child() -> bool {
    // SAFETY: there is no other thread.
    match unsafe { system_call(linux_raw_sys::general::__NR_fork, 0) } {
        pid if pid < 0 => exit::exit(1),
        pid => pid == 0,
    }
}

/// Makes the parent the tracer of this process, once the parent is PID 1.
fn traced_by_init() {
    while !getppid().is_some_and(|parent| parent.is_init()) {
        let _ = poll(&mut [], Some(&MOMENT));
    }
    // SAFETY: it changes no memory, and reads no other argument.
    if unsafe { system_call(__NR_ptrace, PTRACE_TRACEME) } < 0 {
        exit::exit(1);
    }
}

/// A system call that rustix does not have, with one argument.
///
/// # Safety
///
/// As for the system call.
unsafe fn system_call(number: u32, argument: u32) -> isize {
    let (number, mut answer) = (number as usize, argument as isize);
    // SAFETY: the caller's promise, and what the kernel overwrites.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inout("rax") number => answer, in("rdi") answer, out("rcx") _, out("r11") _);
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inout("x0") answer);
        // In Thumb r7 is reserved.
        #[cfg(target_arch = "arm")]
        asm!("push {{r7}}", "mov r7, {}", "svc 0", "pop {{r7}}", in(reg) number, inout("r0") answer);
        #[cfg(target_arch = "riscv64")]
        asm!("ecall", in("a7") number, inout("a0") answer);
        // The summary overflow bit of cr0 says that r3 is an error.
        #[cfg(target_arch = "powerpc64")]
        asm!("sc", "bns+ 1f", "neg 3, 3", "1:", inout("r0") number => _, inout("r3") answer, clobber_abi("C"));
        #[cfg(target_arch = "s390x")]
        asm!("svc 0", in("r1") number, inout("r2") answer);
    }
    answer
}

/// # Safety
///
/// `stack` is the stack pointer that the kernel started the process with.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there.
    let traced = unsafe { *stack } > 1;
    for _ in 0..100 {
        if child() {
            for n in 0..10 {
                if child() {
                    if traced && n == 0 {
                        traced_by_init();
                    }
                    exit::exit(0)
                }
            }
            exit::exit(0)
        }
        let _ = wait(WaitOptions::empty());
    }
    exit::exit(0)
}
