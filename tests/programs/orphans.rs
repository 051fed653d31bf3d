//! Makes a thousand orphans that end at once: a hundred children leave ten behind each. With `traced`, one in ten calls
//! PTRACE_TRACEME as a child of PID 1, which makes PID 1 its tracer. A fork of this program costs less than one of the
//! tests, which have more memory.
//!
//! With `reap` or `kill` the orphans are those of clone3 in Linux 7.1, with CLONE_AUTOREAP, and with CLONE_PIDFD_AUTOKILL
//! too, so that the kernel kills them when the descriptor of its maker is closed; with one more argument all are traced.

#![no_std]
#![no_main]

use core::arch::asm;

use linux_raw_sys::general::{__NR_clone3, __NR_ptrace, CLONE_PIDFD, clone_args};
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
    match unsafe { system_call(linux_raw_sys::general::__NR_fork, 0, 0) } {
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
    if unsafe { system_call(__NR_ptrace, PTRACE_TRACEME as usize, 0) } < 0 {
        exit::exit(1);
    }
}

/// linux/sched.h of Linux 7.1.
const CLONE_AUTOREAP: u64 = 1 << 34;
const CLONE_PIDFD_AUTOKILL: u64 = 1 << 36;

/// Makes a child by clone3, and returns whether this is the child. Ends with 2 where the kernel does not know a flag.
fn child_with(flags: u64) -> bool {
    let mut descriptor = 0_i32;
    // SAFETY: zeros are a valid value.
    let mut all: clone_args = unsafe { core::mem::zeroed() };
    (all.flags, all.pidfd) = (flags, &raw mut descriptor as u64);
    // SAFETY: without CLONE_VM it does what fork does.
    match unsafe { system_call(__NR_clone3, &raw const all as usize, size_of::<clone_args>()) } {
        pid if pid < 0 => exit::exit(2),
        pid => pid == 0,
    }
}

/// A system call that rustix does not have, with two arguments.
///
/// # Safety
///
/// As for the system call.
unsafe fn system_call(number: u32, argument: usize, second: usize) -> isize {
    let (number, mut answer) = (number as usize, argument as isize);
    // SAFETY: the caller's promise, and what the kernel overwrites.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inout("rax") number => answer, in("rdi") answer, in("rsi") second, out("rcx") _, out("r11") _);
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inout("x0") answer, in("x1") second);
        // In Thumb r7 is reserved.
        #[cfg(target_arch = "arm")]
        asm!("push {{r7}}", "mov r7, {}", "svc 0", "pop {{r7}}", in(reg) number, inout("r0") answer, in("r1") second);
        #[cfg(target_arch = "riscv64")]
        asm!("ecall", in("a7") number, inout("a0") answer, in("a1") second);
        // The summary overflow bit of cr0 says that r3 is an error.
        #[cfg(target_arch = "powerpc64")]
        asm!("sc", "bns+ 1f", "neg 3, 3", "1:", inout("r0") number => _, inout("r3") answer,
            inout("r4") second => _, clobber_abi("C"));
        #[cfg(target_arch = "s390x")]
        asm!("svc 0", in("r1") number, inout("r2") answer, in("r3") second);
    }
    answer
}

/// Leaves a hundred orphans of clone3.
fn leave(flags: u64, traced: bool) -> ! {
    for _ in 0..100 {
        if child() {
            if child_with(flags) {
                if traced {
                    traced_by_init();
                }
                // Those that the kernel kills wait for it.
                let _ = poll(&mut [], if flags & CLONE_PIDFD_AUTOKILL == 0 { Some(&MOMENT) } else { None });
                exit::exit(0)
            }
            // Another process has the descriptor until the orphan is traced.
            if child() {
                let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 }));
            }
            exit::exit(0)
        }
        if let Ok(Some((_, status))) = wait(WaitOptions::empty())
            && status.exit_status() != Some(0)
        {
            exit::exit(2)
        }
    }
    exit::exit(0)
}

/// # Safety
///
/// `stack` is the stack pointer that the kernel started the process with.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, and argv behind it.
    let (argc, first) = unsafe { (*stack, *stack.add(2).cast::<*const u8>()) };
    // SAFETY: there is an argument.
    match if argc > 1 { unsafe { *first } } else { 0 } {
        b'r' => leave(CLONE_AUTOREAP, argc > 2),
        b'k' => leave(CLONE_AUTOREAP | CLONE_PIDFD_AUTOKILL | u64::from(CLONE_PIDFD), argc > 2),
        _ => (),
    }
    let traced = argc > 1;
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
