//! pause as PID 1 of virtual machines: the older kernels of Debian, one with pages of 16 KiB, and each platform that
//! `scripts/test` does not boot.

use std::panic::resume_unwind;
use std::thread::{JoinHandle, Result, spawn};

use harness::machine::Machine;
use harness::programs::platforms;

use crate::report::Report;

/// The machines: what is checked, and how it ended.
pub type Booted = JoinHandle<Vec<(String, Result<String>)>>;

/// Boots the machines, one after another, beside the other suites: an emulator keeps one CPU busy, and they wait most
/// of the time.
pub fn boot() -> Booted {
    let all =
        platforms().into_iter().flat_map(|platform| platform.booted(false).iter().map(move |one| (platform, one)));
    let boot = |(platform, kernel)| {
        let machine = Machine { platform, kernel };
        let what = format!("{platform} is PID 1 of the machine {}, processor {}", kernel.name, machine.cpu());
        (what, spawn(move || machine.check()).join())
    };
    spawn(move || all.map(boot).collect())
}

pub fn check(booted: Option<Booted>, report: &mut Report) {
    for (what, outcome) in booted.unwrap_or_else(boot).join().expect("the machines") {
        report.check(&what, || outcome.unwrap_or_else(|panic| resume_unwind(panic)));
    }
}
