//! Starts /pause with an empty argv, without even a name, and with a variable `-v`.

#![no_std]
#![no_main]

use core::ptr::null;

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/start/mod.rs"]
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    // SAFETY: both lists have strings that live, and a null pointer at the end.
    let _ = unsafe { exit::runtime::execve(c"/pause", [null()].as_ptr(), [c"-v".as_ptr().cast(), null()].as_ptr()) };
    exit::exit(127)
}
