//! `/pause`: holds a pod's namespaces open, reaps what the pod leaves behind,
//! and ends when it is told to.
//!
//! | # | situation | what happens | exit |
//! |---|---|---|---|
//! | 1 | any argument is `-v` or `-V` | `pause <version>` on standard output, and nothing else | 0 |
//! | 2 | any other argument, or none | ignored | |
//! | 2a | argc is 0 | ignored: the environment is never taken for arguments | |
//! | 3 | its PID is not 1 | a warning on standard error; it goes on | |
//! | 4 | SIGINT, SIGTERM | one line on standard error, in one write, then the end, whatever state standard error is in. This line, and each line of rows 1, 3 and 11, is written only if the kernel says that there is room for it and a reader | 0 |
//! | 5 | INT, TERM or CHLD blocked or ignored by the starter | the same as if they were not: a SIGTERM that was pending takes effect at once. Of all signals, SIGCHLD alone is blocked from then on | |
//! | 6 | a child or an orphan ends | the kernel reaps it and does not wake pause, also while pause is stopped, frozen or without CPU | |
//! | 6a | a child or an orphan ends that pause traces, because it called PTRACE_TRACEME or the starter of pause had seized it | pause is woken, reaps it, and sleeps again. A SIGCHLD that somebody sends wakes it once too, and nothing follows | |
//! | 7 | there are zombies at the start, whatever their exit signal | reaped before the first sleep | |
//! | 8 | any other signal | the kernel's default for that PID: nothing for PID 1 | |
//! | 9 | it is stopped, continued, traced or frozen, or a tracer or a supervisor ends the sleep with EINTR | it sleeps again | |
//! | 10 | the kernel refuses a handler for INT, TERM, CHLD | it exits at once | 1, 2, 3 |
//! | 11 | the kernel refuses `rt_sigtimedwait` | it sleeps in `pause` (`ppoll` on newer architectures), and does all but row 6a. If that is refused as well: an error on standard error | 42 |
//! | 12 | a Rust panic (none is reachable) | it exits at once | 42 |
//!
//! # Limits
//!
//! These limits remain, because a cure costs more than it is worth. Upstream's program has
//! the first four too.
//!
//! - `ppoll` and `write` are two system calls. Another writer of the same pipe can take the
//!   room between them, a frozen file system or a FUSE server can hold any write, and
//!   an eventfd of Linux 5.10 and 6.1 says that there is room where there is none. Then only
//!   SIGKILL ends pause.
//! - A terminal that nobody reads says that there is room while there is less than a line of it.
//!   Then too only SIGKILL ends pause.
//! - Where pause is not PID 1, its own write can raise a signal that ends or stops it: SIGXFSZ
//!   at a limit of the file size, SIGPIPE on a socket of which one direction is shut, SIGTTOU on
//!   a terminal with TOSTOP. PID 1 cannot be stopped: in the background of such a terminal the
//!   kernel begins the write again and again.
//! - A signal that comes before its handler is set is dropped by the kernel, for any PID 1, unless
//!   the starter has blocked it.
//! - `/dev/kmsg` never says that there is room, so nothing is written to it.
//! - An orphan that pause traces and that a signal stops is never continued, and only SIGKILL ends it.
//! - rustix does not say why `pause` returned. In row 11, a tracer that ends this sleep with
//!   EINTR therefore ends pause with 42.
//! - EINTR means "again" in row 9. A seccomp filter that answers `rt_sigtimedwait` with EINTR, or
//!   with success, each time therefore keeps pause busy.
//!
//! The file reads from top to bottom as the life of the process.

#![no_std]
#![no_main]

mod end;
mod start;

use core::ffi::c_int;

use end::exit;
use linux_raw_sys::general::__WALL;
use rustix::event::{PollFd, PollFlags, Timespec, pause, poll};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::{Errno, write};
use rustix::process::{Signal, WaitOptions, getpid, wait};
// rustix hides its `runtime` behind this name, because it is only for programs that
// link no libc and own their process. The name differs in each version, which is why
// `Cargo.toml` pins rustix. CONTRIBUTING.md says how to take a new version.
use rustix::runtime_448b8ad740e2a26f::{
    How, KernelSigSet, KernelSigaction, KernelSigactionFlags, kernel_sig_ign, kernel_sigaction,
    kernel_sigprocmask, kernel_sigwait,
};
use rustix::stdio::{raw_stderr, raw_stdout};
use start::SA_RESTORER;

/// From the first instruction to the last.
///
/// # Safety
///
/// `stack` is the stack pointer that the kernel started the process with: it points to
/// argc, then argv\[0\], argv\[1\] and so on up to a null pointer. [`start`] alone calls it.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, and argv behind it.
    let (argc, argv) = unsafe { (*stack, stack.add(1).cast::<&[u8; 3]>()) };
    // It is argc that ends the loop, not the null pointer behind argv: with argc 0, which
    // Linux allowed before 5.18 and gVisor allows, the environment begins where argv[1]
    // would be. To count down saves some bytes.
    for i in (1..argc).rev() {
        // SAFETY: `i` is below argc. Three bytes can be read even of an empty argument:
        // behind the last string the kernel puts the path of the program (AT_EXECFN) and
        // a null pointer.
        if let [b'-', b'v' | b'V', 0] = unsafe { *argv.add(i) } {
            say(raw_stdout(), concat!("pause ", env!("CARGO_PKG_VERSION"), "\n"));
            exit(0);
        }
    }

    // A loop, as three calls would take some 35 bytes more.
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
            // Without SA_RESTORER, x86-64 kills the process when a signal has a handler.
            // There is nothing to restore: the handler never returns.
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

    // The kernel reaps no child that is traced by its parent, even if the parent ignores
    // SIGCHLD. For such a child it sends SIGCHLD (do_notify_parent). An ignored signal is
    // dropped, but not while it is blocked (sig_ignored). So SIGCHLD is blocked too, and pause
    // sleeps until it comes. For every other child no signal is sent, and pause sleeps on.
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
        // finds those that send another signal at their end too (clone(2), wait(2)).
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG | WaitOptions::from_bits_retain(__WALL)) {}
        // SAFETY: there is no libc that uses the signal.
        match unsafe { kernel_sigwait(&child) } {
            // EINTR after a stop, the freezer or a tracer.
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }

    // A seccomp profile that was written for the C program refuses `rt_sigtimedwait`. Then
    // only traced children stay zombies. rustix does not say why `pause` returns; if the kernel
    // refuses it as well, to try again would be a busy loop.
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
/// nothing: a write to a full pipe would wait for ever, and one to a broken pipe raise
/// SIGPIPE. To make the descriptor non-blocking instead would do so for everybody who
/// shares it.
#[inline(never)] // one copy for four callers
fn say(fd: RawFd, line: &str) {
    // SAFETY: nothing here closes the descriptor. If whoever started pause did, the two
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
