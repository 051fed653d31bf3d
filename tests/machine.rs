//! pause as PID 1 of virtual machines with kernels of Debian. `scripts/e2e kernels` boots other kernels and the other
//! platforms.

use harness::machine::Machine;
use harness::programs::Platform;

pub fn is_the_init_of_a_machine(platform: &'static Platform) {
    for kernel in platform.booted(true) {
        let shown = Machine { platform, kernel }.check();
        assert!(shown.contains("pages: 4 kB"), "{shown}");
    }
}
