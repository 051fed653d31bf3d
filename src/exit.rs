//! How the process exits.

use core::panic::PanicInfo;

// rustix hides its `runtime` behind this name, because it is only for programs that link no
// libc and own their process. CONTRIBUTING.md says how to take a new version.
pub use rustix::runtime_448b8ad740e2a26f as runtime;

/// Exits with `status`.
#[inline(never)] // one copy for five callers
pub fn exit(status: i32) -> ! {
    runtime::exit_group(status)
}

/// Row 12. The linker leaves this out of the file, because no panic can be reached today;
/// `tests/programs/panic.rs` is a program in which one can.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    exit(42)
}
