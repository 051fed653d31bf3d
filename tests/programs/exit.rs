//! A program that exits with 0 and does nothing else: the least that an exec and an end cost.

#![no_std]
#![no_main]

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/start/mod.rs"]
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    exit::exit(0)
}
