//! The signals that end a command. They are passed on to the program that it runs at this moment; when
//! that has ended, the command fails as it would for any other reason, and cleans up.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The signal that came, and the program that runs; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Begins to pass signals on.
pub fn pass_on() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            RECEIVED.store(signal, Ordering::SeqCst);
            let running = RUNNING.load(Ordering::SeqCst);
            if running > 0 {
                // SAFETY: a system call, on a child of this process.
                unsafe { libc::kill(running, signal) };
            }
        }
    });
    Ok(())
}

/// Says which program runs now; 0 for none.
pub fn running(child: i32) {
    RUNNING.store(child, Ordering::SeqCst);
}

/// The exit status for the signal that came, as shells have it.
pub fn status() -> Option<u8> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(128 + signal as u8),
    }
}

/// Waits for the end of a child, calls `clean` while it is a zombie, and returns its exit status as
/// shells have it.
pub fn wait(child: i32, clean: impl FnOnce()) -> u8 {
    running(child);
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: zeros are a valid value, and the struct lives; a system call.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    while unsafe { libc::waitid(libc::P_PID, child as u32, &mut info, flags) } != 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    clean();
    running(0);
    // SAFETY: of a child that has ended.
    let status = unsafe { info.si_status() } as u8;
    if info.si_code == libc::CLD_EXITED { status } else { 128 + status }
}
