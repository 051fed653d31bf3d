//! A program that panics, with pause's own panic handler.

#![no_std]
#![no_main]

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
#[allow(dead_code, unused_imports)] // SA_RESTORER is for pause itself
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    panic!("row 12")
}
