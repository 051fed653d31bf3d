//! pause as PID 1 of virtual machines with kernels of Debian. `scripts/e2e kernels` boots
//! other kernels and the other platforms.

use harness::machine::Machine;
use harness::programs::{BootedBy, Platform, platforms};
use harness::suite::Suite;
use harness::tests;

pub fn list(suite: &mut Suite) {
    let mut booted = platforms();
    booted.retain(|platform| platform.booted_by == BootedBy::Test);
    suite.per_platform(true, &booted, tests![is_the_init_of_a_machine]);
}

fn is_the_init_of_a_machine(platform: &'static Platform) {
    let kernel = Machine::of(platform).check();
    assert!(kernel.contains("pages: 4 kB"), "{kernel}");
}
