//! `/pause`: holds a pod's namespaces open, reaps what the pod leaves behind, and exits when it
//! is told to.
//!
//! The file reads from top to bottom as the life of the process: the arguments, the signals, a
//! warning if it is not PID 1, and then a loop that reaps and sleeps. "Row 4" in a comment is a
//! row of the contract:
#![doc = include_str!("../docs/contract.md")]
#![no_std]
#![no_main]

mod exit;
mod start;

use core::ffi::c_int;

use exit::exit;
use exit::runtime::{
    How, KernelSigSet, KernelSigaction, kernel_sig_ign, kernel_sigaction, kernel_sigprocmask, kernel_sigwait,
};
use linux_raw_sys::general::__WALL;
use rustix::event::{PollFd, PollFlags, Timespec, pause, poll};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::{Errno, write};
use rustix::process::{Signal, WaitOptions, getpid, wait};
use rustix::stdio::{raw_stderr, raw_stdout};

/// From the first instruction to the last.
///
/// # Safety
///
/// `stack` is the stack pointer that the kernel started the process with: it points to
/// argc, then argv\[0\], argv\[1\] and so on up to a null pointer. [`start`] alone calls it.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, and argv behind it.
    let (argc, argv) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
    // It is argc that ends the loop, not the null pointer behind argv: with argc 0, which
    // Linux allowed before 5.18 and gVisor allows, the environment begins where argv[1]
    // would be. To count down saves some bytes.
    for i in (1..argc).rev() {
        // SAFETY: `i` is below argc. A NUL ends the argument, and no byte behind it is read.
        let byte = |at| unsafe { *(*argv.add(i)).add(at) };
        if byte(0) == b'-' && matches!(byte(1), b'v' | b'V') && byte(2) == 0 {
            say(raw_stdout(), concat!("pause ", env!("CARGO_PKG_VERSION"), "\n"));
            exit(0);
        }
    }

    // The number is the exit status of row 10. `for` takes 14 bytes more, three calls 33.
    let mut status = 0;
    loop {
        status += 1;
        let (signal, handler) = match status {
            1 => (Signal::INT, Some(stop as _)),
            2 => (Signal::TERM, Some(stop as _)),
            // The kernel itself reaps the children of a process that ignores SIGCHLD, and
            // orphans handed to it, as they exit (do_notify_parent, reparent_leader).
            3 => (Signal::CHILD, kernel_sig_ign()),
            _ => break,
        };
        let action = KernelSigaction {
            sa_handler_kernel: handler,
            // Without it, x86-64 kills the process when a signal has a handler. There is
            // nothing to restore: the handler never returns. riscv64 has no such flag.
            #[cfg(not(target_arch = "riscv64"))]
            sa_flags: exit::runtime::KernelSigactionFlags::RESTORER,
            // Neither a second signal nor SIGPIPE comes between the line of the handler and
            // its exit.
            sa_mask: KernelSigSet::all(),
            ..KernelSigaction::default()
        };
        // SAFETY: the handler makes system calls only.
        if unsafe { kernel_sigaction(signal, Some(action)) }.is_err() {
            exit(status);
        }
    }

    // A child that is traced by its parent is not reaped so: the kernel sends SIGCHLD for it,
    // and drops an ignored signal unless it is blocked (sig_ignored). So SIGCHLD is blocked as
    // well, and pause sleeps until it comes. For every other child no signal is sent.
    let mut child = KernelSigSet::empty();
    child.insert(Signal::CHILD);
    // After the handlers, so that a signal that was pending finds its own.
    //
    // SAFETY: there is no libc whose signals must stay blocked.
    let _ = unsafe { kernel_sigprocmask(How::SETMASK, Some(&child)) };

    if !getpid().is_init() {
        say(raw_stderr(), "Warning: pause should be the first process\n");
    }

    loop {
        // Ignoring SIGCHLD does not remove the zombies from before the start, and __WALL
        // finds those that send another signal when they exit, too (clone(2), wait(2)).
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG | WaitOptions::from_bits_retain(__WALL)) {}
        // SAFETY: there is no libc that uses the signal.
        match unsafe { kernel_sigwait(&child) } {
            // EINTR after a stop, the freezer or a tracer.
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }

    // Row 11. rustix does not say why `pause` returned. If the kernel refuses it as well, to
    // try again would be a busy loop.
    pause();
    say(raw_stderr(), "Error: infinite loop terminated\n");
    exit(42)
}

/// The handler of SIGINT and SIGTERM.
extern "C" fn stop(signal: c_int) {
    say(
        raw_stderr(),
        if signal == Signal::INT.as_raw() {
            "Shutting down, got signal: Interrupt\n"
        } else {
            "Shutting down, got signal: Terminated\n"
        },
    );
    exit(0);
}

/// Writes the line, if the kernel says that there is room for it and a reader, and else
/// nothing: a write to a full pipe would wait for ever, and one to a broken pipe would raise
/// SIGPIPE. To make the descriptor non-blocking instead would do so for every process that
/// shares it.
#[inline(never)] // one copy for four callers
fn say(fd: RawFd, line: &str) {
    // SAFETY: nothing here closes the descriptor. If it was closed before the start, the two
    // system calls fail.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // Where `poll` fails, `revents` stays empty: EINVAL at RLIMIT_NOFILE 0, for instance.
    let _ = poll(&mut fds, Some(&Timespec::default()));
    // With ERR or HUP beside OUT there is no reader.
    if fds[0].revents() == PollFlags::OUT {
        let _ = write(fd, line.as_bytes());
    }
}
