//! pause as PID 1 of virtual machines: the older kernels of Debian, one with pages of 16 KiB, and
//! each platform that `scripts/test` does not boot.

use std::panic::resume_unwind;
use std::thread;

use harness::machine::Machine;
use harness::programs::{BootedBy, Kernel, Platform, platforms};

use crate::Work;
use crate::images::Images;
use crate::report::Report;

/// A machine, and what must be in the line that it says of its kernel.
type Wanted = (Machine, &'static str);

/// The machines of one platform.
fn machines(platform: &'static Platform) -> Vec<Wanted> {
    let other =
        |kernel: &'static Kernel| (Machine::with_kernel(platform, kernel), kernel.shows.as_str());
    let mut machines: Vec<_> = platform.other_kernels.iter().map(other).collect();
    if platform.booted_by == BootedBy::E2e {
        let machine = Machine::of(platform);
        // The same with what the options turn off, such as a floating-point unit.
        if let Some((processor, _)) = machine.processor.split_once(',') {
            machines.push((Machine { processor, ..machine.clone() }, "Linux "));
        }
        machines.push((machine, "Linux "));
    }
    machines
}

pub fn check(_: &Work, _: &Images, report: &mut Report) {
    let machines: Vec<_> = platforms().into_iter().flat_map(machines).collect();
    // Two at a time: each emulator keeps one CPU busy.
    for pair in machines.chunks(2) {
        let outcomes = thread::scope(|scope| {
            let both: Vec<_> =
                pair.iter().map(|(machine, _)| scope.spawn(|| machine.check())).collect();
            let outcomes = both.into_iter().map(|one| one.join());
            outcomes.collect::<Vec<_>>()
        });
        for ((machine, wanted), outcome) in pair.iter().zip(outcomes) {
            let what = format!(
                "{} is PID 1 of the machine {}, processor {}",
                machine.platform, machine.name, machine.processor
            );
            report.check(&what, || {
                let kernel = outcome.unwrap_or_else(|panic| resume_unwind(panic));
                assert!(kernel.contains(wanted), "{kernel}, without '{wanted}'");
                kernel
            });
        }
    }
}
