//! Makes a thousand orphans that end at once: a hundred children leave ten behind each. A fork
//! of this program costs less than one of the tests, which have more memory.

#![no_std]
#![no_main]

use rustix::process::{WaitOptions, wait};
use rustix::runtime_448b8ad740e2a26f::{Fork, kernel_fork};

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
#[allow(dead_code, unused_imports)] // SA_RESTORER is for pause itself
mod start;

/// Forks, and returns whether this is the child.
fn child() -> bool {
    // SAFETY: there is no other thread, and nothing that would have to know of a fork.
    match unsafe { kernel_fork() } {
        Ok(fork) => matches!(fork, Fork::Child(_)),
        Err(_) => end::exit(1),
    }
}

extern "C" fn main(_stack: *const usize) -> ! {
    for _ in 0..100 {
        if child() {
            for _ in 0..10 {
                if child() {
                    end::exit(0)
                }
            }
            end::exit(0)
        }
        let _ = wait(WaitOptions::empty());
    }
    end::exit(0)
}
