//! `/pause`: holds a pod's namespaces open, reaps what the pod leaves behind,
//! and ends when it is told to.
//!
//! | # | situation | what happens | exit |
//! |---|---|---|---|
//! | 1 | any argument is `-v` or `-V` | `pause <version>` on standard output, and nothing else | 0 |
//! | 2 | any other argument, or none | ignored | |
//! | 2a | argc is 0 | ignored: the environment is never taken for arguments | |
//! | 3 | its PID is not 1 | a warning on standard error; it goes on | |
//! | 4 | SIGINT, SIGTERM | one line on standard error, in one write, then the end. A line (also of rows 1, 3 and 11) is written only if the kernel says that there is room for it and a reader | 0 |
//! | 5 | INT, TERM or CHLD blocked or ignored by the starter | as if they were not: one that was pending takes effect | |
//! | 6 | a child or an orphan ends | the kernel reaps it, also while pause is stopped, frozen or without CPU; pause is not woken | |
//! | 7 | there are zombies at the start | reaped before the first pause | |
//! | 8 | any other signal | the kernel's default for that PID: nothing for PID 1 | |
//! | 9 | it is stopped, continued, traced or frozen | it goes on pausing | |
//! | 10 | the kernel refuses a handler for INT, TERM, CHLD | it exits at once | 1, 2, 3 |
//! | 11 | the kernel refuses to let it sleep | an error on standard error | 42 |
//! | 12 | a Rust panic (none is reachable) | it exits at once | 42 |
//!
//! The file reads from top to bottom as the life of the process.

#![no_std]
#![no_main]

mod end;
mod start;

use core::ffi::c_int;
use core::slice;

use end::exit;
use rustix::event::{PollFd, PollFlags, Timespec, pause, poll};
use rustix::fd::BorrowedFd;
use rustix::io::write;
use rustix::process::{Signal, WaitOptions, getpid, wait};
// rustix hides its `runtime` behind this name, because it is only for programs that
// link no libc and own their process. The name differs in each version, which is why
// `Cargo.toml` pins rustix. To take a new version: `pub mod runtime_` in the src/lib.rs
// of rustix has its name, and `scripts/bench --rustix VERSION` finds it, builds with it
// in a copy and prints the sizes. Then change the pin, the name here and in `end.rs`,
// and run `scripts/bench --bless`, `scripts/test` and `scripts/e2e`.
use rustix::runtime_448b8ad740e2a26f::{
    How, KernelSigSet, KernelSigaction, KernelSigactionFlags, kernel_sig_ign, kernel_sigaction,
    kernel_sigprocmask,
};
use rustix::stdio::{raw_stderr, raw_stdout};
use start::SA_RESTORER;

/// From the first instruction to the last. [`start`] alone calls it, with the
/// stack pointer that the kernel started the process with: it points to argc, then
/// argv\[0\], argv\[1\] and so on up to a null pointer.
extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, and argv behind it.
    let (argc, argv) = unsafe { (*stack, stack.add(1).cast::<&[u8; 3]>()) };
    // It is argc that ends the loop, not the null pointer behind argv: with argc 0, which
    // Linux allowed before 5.18 and gVisor allows, the environment begins where argv[1]
    // would be. To count down saves 8 bytes (4 on aarch64).
    for i in (1..argc).rev() {
        // SAFETY: `i` is below argc. Three bytes can be read even of an empty argument:
        // behind the last string the kernel puts the path of the program (AT_EXECFN) and
        // a null pointer.
        if let [b'-', b'v' | b'V', 0] = unsafe { *argv.add(i) } {
            say(message!(
                raw_stdout(),
                concat!("pause ", env!("CARGO_PKG_VERSION"), "\n")
            ));
            exit(0);
        }
    }

    // A loop, as three calls would take 34 bytes more (36 on aarch64).
    let mut status = 0;
    loop {
        status += 1;
        let (signal, handler) = match status {
            1 => (Signal::INT, Some(stop as _)),
            2 => (Signal::TERM, Some(stop as _)),
            // The kernel reaps the children of a parent that ignores SIGCHLD,
            // and orphans handed to it, as they exit (do_notify_parent,
            // reparent_leader): no handler to be woken for, and never a zombie.
            3 => (Signal::CHILD, kernel_sig_ign()),
            _ => break,
        };
        // The default sets `sa_restorer` to none. On riscv64 there is no such field.
        #[allow(clippy::needless_update)]
        let action = KernelSigaction {
            sa_handler_kernel: handler,
            // x86-64 delivers no signal to a handler without SA_RESTORER. There
            // is nothing to restore: the handler never returns.
            sa_flags: KernelSigactionFlags::from_bits_retain(SA_RESTORER as _),
            // Neither a second signal nor SIGPIPE comes between the line of the
            // handler and its exit.
            sa_mask: KernelSigSet::all(),
            ..KernelSigaction::default()
        };
        // SAFETY: the handler makes system calls only.
        if unsafe { kernel_sigaction(signal, Some(action)) }.is_err() {
            exit(status);
        }
    }

    // After the handlers, so that a signal that was pending finds its own.
    //
    // SAFETY: there is no libc whose signals must stay blocked.
    let _ = unsafe { kernel_sigprocmask(How::SETMASK, Some(&KernelSigSet::empty())) };

    // Ignoring SIGCHLD does not remove the zombies that are there already.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}

    if !getpid().is_init() {
        say(message!(
            raw_stderr(),
            "Warning: pause should be the first process\n"
        ));
    }

    // It returns after a handler did (EINTR), and ours never do; after a stop, a
    // tracer or the freezer the kernel itself restarts it. So if it returns, the
    // kernel will not let us sleep, and to try again would be a busy loop.
    pause();
    say(message!(raw_stderr(), "Error: infinite loop terminated\n"));
    exit(42)
}

/// The handler of SIGINT and SIGTERM.
extern "C" fn stop(signal: c_int) {
    say(if signal == Signal::INT.as_raw() {
        message!(raw_stderr(), "Shutting down, got signal: Interrupt\n")
    } else {
        message!(raw_stderr(), "Shutting down, got signal: Terminated\n")
    });
    exit(0);
}

/// A line of text and where it goes, as one constant: a call of [`say`] passes one
/// address, which saves 17 bytes (26 on aarch64) against a descriptor and a `&str`.
#[repr(C)]
struct Message<const LENGTH: usize> {
    fd: u8,
    length: u8,
    text: [u8; LENGTH],
}

/// The address of the [`Message`] of a descriptor and a text. The text is a constant and
/// no static: the order of statics in the file differs from compiler to compiler.
macro_rules! message {
    ($fd:expr, $text:expr) => {{
        const MESSAGE: &Message<{ $text.len() }> = &Message {
            fd: $fd as u8,
            length: $text.len() as u8,
            text: *$text.as_bytes().first_chunk().unwrap(),
        };
        (&raw const *MESSAGE).cast::<Message<0>>()
    }};
}
use message; // by its path, as it stands below those who use it

/// Writes the line, if the kernel says that there is room for it and a reader, and else
/// nothing: a write to a full pipe would wait for ever, and one to a broken pipe raise
/// SIGPIPE. To make the descriptor non-blocking instead would do so for everybody who
/// shares it.
#[inline(never)] // one copy for four callers
fn say(message: *const Message<0>) {
    // SAFETY: `message!` made it. Nothing here closes the descriptor, and if whoever
    // started pause did, that is an error of the two system calls.
    let fd = unsafe { BorrowedFd::borrow_raw((*message).fd.into()) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // Where `poll` fails, `revents` stays empty: EINVAL at RLIMIT_NOFILE 0, for instance.
    let _ = poll(&mut fds, Some(&Timespec::default()));
    // With ERR or HUP beside OUT there is no reader.
    if fds[0].revents() == PollFlags::OUT {
        // SAFETY: `message!` made it, with a text of this length.
        let text = unsafe {
            let start = (&raw const (*message).text).cast::<u8>();
            slice::from_raw_parts(start, (*message).length.into())
        };
        let _ = write(fd, text);
    }
}
