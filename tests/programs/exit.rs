//! The floor for a program that ends: it exits with 0 and does nothing else.

#![no_std]
#![no_main]

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    end::exit(0)
}
