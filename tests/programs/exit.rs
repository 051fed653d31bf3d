//! A program that exits with 0 and does nothing else: the least that an exec and an end cost.

#![no_std]
#![no_main]

#[path = "../../src/end.rs"]
mod end;
#[path = "../../src/start/mod.rs"]
#[allow(dead_code, unused_imports)] // SA_RESTORER is for pause itself
mod start;

extern "C" fn main(_stack: *const usize) -> ! {
    end::exit(0)
}
