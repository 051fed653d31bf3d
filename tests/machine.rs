//! pause as PID 1 of virtual machines with kernels of Debian. `scripts/e2e kernels` boots the
//! other platforms.

use harness::machine::Machine;
use harness::programs::{Platform, for_each, platforms};

/// The platforms for which something holds, as far as this run is not limited to others.
fn those(wanted: fn(&Platform) -> bool) -> Vec<Platform> {
    platforms().into_iter().filter(wanted).collect()
}

limited! {
    #[ignore = "needs scripts/test"]
    fn is_the_init_of_a_machine() {
        for_each(&those(|platform| platform.booted_by == "test"), |platform| {
            let kernel = Machine::of(platform).check();
            assert!(kernel.ends_with("pages: 4 kB"), "{kernel}");
        });
    }

    /// The oldest kernel on which pause is tested.
    #[ignore = "needs scripts/test"]
    fn is_the_init_of_a_machine_with_linux_5_10() {
        for_each(&those(|platform| platform.architecture == "amd64"), |platform| {
            let kernel = Machine { name: "amd64-5.10", ..Machine::of(platform) }.check();
            assert!(kernel.starts_with("Linux 5.10."), "{kernel}");
        });
    }

    /// Debian has no kernel for arm64 with pages of 64 KiB.
    #[ignore = "needs scripts/test"]
    fn is_the_init_of_a_machine_with_16_kib_pages() {
        for_each(&those(|platform| platform.architecture == "arm64"), |platform| {
            let (name, processor) = ("arm64-16k", "max,pauth-impdef=on");
            let kernel = Machine { name, processor, ..Machine::of(platform) }.check();
            assert!(kernel.ends_with("pages: 16 kB"), "{kernel}");
        });
    }
}
