//! A program that panics, with pause's own panic handler.

#![no_std]
#![no_main]

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/start/mod.rs"]
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    panic!("row 12")
}
