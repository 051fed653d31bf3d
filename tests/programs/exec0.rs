//! Starts /pause with an empty argv, without even a name, and with a variable `-v`.

#![no_std]
#![no_main]

use core::ptr::null;

use rustix::runtime_448b8ad740e2a26f::execve;

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
#[allow(dead_code, unused_imports)] // SA_RESTORER is for pause itself
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    // SAFETY: both lists have strings that live, and a null pointer at the end.
    let _ =
        unsafe { execve(c"/pause", [null()].as_ptr(), [c"-v".as_ptr().cast(), null()].as_ptr()) };
    end::exit(127)
}
