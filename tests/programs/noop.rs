//! A program that sleeps and does nothing else: the least that a process costs.

#![no_std]
#![no_main]

use rustix::event::pause;

#[path = "../../src/exit.rs"]
mod exit;

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    loop {
        pause();
    }
}
