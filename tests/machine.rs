//! pause as PID 1 of virtual machines with kernels of Debian. `scripts/e2e kernels` boots
//! other kernels and the other platforms.

use harness::machine::Machine;
use harness::programs::{Platform, for_each, platforms};

/// The platforms that `scripts/test` boots, as far as this run is not limited to others.
fn booted() -> Vec<Platform> {
    let all = platforms().into_iter();
    all.filter(|platform| platform.booted_by == "test")
        .collect()
}

limited! {
    #[ignore = "needs scripts/test"]
    fn is_the_init_of_a_machine() {
        for_each(&booted(), |platform| {
            let kernel = Machine::of(platform).check();
            assert!(kernel.contains("pages: 4 kB"), "{kernel}");
        });
    }

    /// The kernel of Debian sid.
    #[ignore = "needs scripts/test"]
    fn is_the_init_of_a_machine_with_the_newest_linux() {
        for_each(&booted(), |platform| {
            let kernel = Machine::with_kernel(platform, "newest").check();
            assert!(kernel.contains("argc 0 becomes 1"), "{kernel}");
        });
    }
}
