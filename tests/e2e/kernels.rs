//! pause as PID 1 of a virtual machine for each platform that `scripts/test` does not boot.

use std::panic::resume_unwind;
use std::thread;

use harness::machine::Machine;
use harness::programs::platforms;

use crate::report::Report;

pub fn check(report: &mut Report) {
    let mut machines = Vec::new();
    for platform in platforms() {
        if platform.booted_by != "e2e" {
            continue;
        }
        let machine = Machine::of(&platform);
        // The same with what the options turn off, such as a floating-point unit.
        let (whole, options) = machine
            .processor
            .split_once(',')
            .unwrap_or((machine.processor, ""));
        machines.push(machine);
        if !options.is_empty() {
            machines.push(Machine {
                processor: whole,
                ..Machine::of(&platform)
            });
        }
    }
    // Two at a time: each emulator keeps one CPU busy.
    for pair in machines.chunks(2) {
        let outcomes = thread::scope(|scope| {
            let boot = |machine| scope.spawn(move || Machine::check(machine));
            let both: Vec<_> = pair.iter().map(boot).collect();
            let outcomes = both.into_iter().map(|one| one.join());
            outcomes.collect::<Vec<_>>()
        });
        for (machine, outcome) in pair.iter().zip(outcomes) {
            let what = format!(
                "{} is PID 1 of a machine, processor {}",
                machine.platform, machine.processor
            );
            report.check(&what, || {
                outcome.unwrap_or_else(|panic| resume_unwind(panic))
            });
        }
    }
}
