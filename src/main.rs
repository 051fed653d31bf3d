//! `/pause`: holds a pod's namespaces open, reaps what the pod leaves behind,
//! and ends when it is told to.
//!
//! | # | situation | what happens | exit |
//! |---|---|---|---|
//! | 1 | an argument is `-v` or `-V` | `pause <version>` on standard output | 0 |
//! | 2 | any other argument | ignored | |
//! | 3 | PID is not 1 | a warning on standard error; goes on | |
//! | 4 | SIGINT, SIGTERM | one line on standard error, then the end, whatever state standard error is in | 0 |
//! | 5 | INT, TERM or CHLD blocked or ignored by the starter | as if they were not | |
//! | 6 | a child or an orphan ends | the kernel reaps it; pause is not woken | |
//! | 7 | zombies from before the start | reaped before the first pause | |
//! | 8 | any other signal | the kernel's default for that PID | |
//! | 9 | stopped, continued, traced, frozen | goes on pausing | |
//! | 10 | no handler for INT, TERM, CHLD | exit at once | 1, 2, 3 |
//! | 11 | the kernel refuses to let it sleep | an error on standard error | 42 |
//! | 12 | a panic | | 42 |
//!
//! The file reads from top to bottom as the life of the process.

#![no_std]
#![no_main]

mod end;
mod start;

use core::ffi::c_int;

use end::exit;
use linux_raw_sys::general::SA_RESTORER;
use rustix::event::{PollFd, PollFlags, Timespec, pause, poll};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::write;
use rustix::process::{Signal, WaitOptions, getpid, wait};
// rustix hides its `runtime` behind this name, as it is only for programs that
// link no libc and own their process; the name is why `Cargo.toml` pins rustix.
use rustix::runtime_448b8ad740e2a26f::{
    How, KernelSigSet, KernelSigaction, KernelSigactionFlags, kernel_sig_ign, kernel_sigaction,
    kernel_sigprocmask,
};
use rustix::stdio::{raw_stderr, raw_stdout};

/// From the first instruction to the last. [`start`] alone calls it, with the
/// stack pointer that the kernel started the process with: it points to argc, then
/// argv\[0\], argv\[1\] and so on up to a null pointer.
extern "C" fn main(stack: *const usize) -> ! {
    // Three bytes can be read even of an empty argument: behind the last string
    // the kernel puts the path of the program (AT_EXECFN) and eight zeros.
    //
    // SAFETY: behind argc stand pointers to strings, and then a null pointer.
    let mut argument = unsafe { stack.add(1) }.cast::<Option<&[u8; 3]>>();
    while let Some(text) = unsafe {
        argument = argument.add(1);
        *argument
    } {
        if let [b'-', b'v' | b'V', 0] = text {
            let version = concat!("pause ", env!("CARGO_PKG_VERSION"), "\n");
            say(raw_stdout(), version);
            exit(0);
        }
    }

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
        let action = KernelSigaction {
            sa_handler_kernel: handler,
            // x86-64 delivers no signal to a handler without SA_RESTORER. There
            // is nothing to restore: the handler never returns.
            sa_flags: KernelSigactionFlags::from_bits_retain(SA_RESTORER as _),
            sa_restorer: None,
            // Neither a second signal nor SIGPIPE comes between the line of the
            // handler and its exit.
            sa_mask: KernelSigSet::all(),
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
        let warning = "Warning: pause should be the first process\n";
        say(raw_stderr(), warning);
    }

    // It returns after a handler did (EINTR), and ours never do; after a stop, a
    // tracer or the freezer the kernel itself restarts it. So if it returns, the
    // kernel will not let us sleep, and to try again would be a busy loop.
    pause();
    say(raw_stderr(), "Error: infinite loop terminated\n");
    exit(42)
}

/// The handler of SIGINT and SIGTERM.
extern "C" fn stop(signal: c_int) {
    let line = if signal == Signal::INT.as_raw() {
        "Shutting down, got signal: Interrupt\n"
    } else {
        "Shutting down, got signal: Terminated\n"
    };
    say(raw_stderr(), line);
    exit(0);
}

/// Writes `line` to `fd`, unless it would wait for a reader or has none: a full
/// pipe would hold pause up for ever, and a broken one raise SIGPIPE. To make `fd`
/// non-blocking instead would do so for everybody who shares it.
#[inline(never)] // one copy for four callers
fn say(fd: RawFd, line: &str) {
    // SAFETY: nothing here closes it, and if it was closed by whoever started
    // pause, that is an error of the two system calls.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // An error says nothing of `fd`: EINVAL is RLIMIT_NOFILE at zero.
    let waits = poll(&mut fds, Some(&Timespec::default())) == Ok(0);
    let gone = fds[0]
        .revents()
        .intersects(PollFlags::ERR.union(PollFlags::HUP));
    if !waits && !gone {
        let _ = write(fd, line.as_bytes());
    }
}
