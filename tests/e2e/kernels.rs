//! pause as PID 1 of virtual machines: the older kernels of Debian, one with pages of 16 KiB, and each platform that
//! `scripts/test` does not boot.

use std::panic::resume_unwind;
use std::thread;

use harness::machine::Machine;
use harness::programs::{Platform, platforms};

use crate::report::Report;

pub fn check(report: &mut Report) {
    let machines =
        |platform: &'static Platform| platform.booted(false).iter().map(move |kernel| Machine { platform, kernel });
    let machines: Vec<_> = platforms().into_iter().flat_map(machines).collect();
    // Two at a time: each emulator keeps one CPU busy.
    for pair in machines.chunks(2) {
        let outcomes = thread::scope(|scope| {
            let both: Vec<_> = pair.iter().map(|machine| scope.spawn(|| machine.check())).collect();
            both.into_iter().map(|one| one.join()).collect::<Vec<_>>()
        });
        for (machine, outcome) in pair.iter().zip(outcomes) {
            let Machine { platform, kernel } = machine;
            let what = format!("{platform} is PID 1 of the machine {}, processor {}", kernel.name, machine.cpu());
            report.check(&what, || outcome.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }
}
