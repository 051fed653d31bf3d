//! The contract of `/pause`, row by row, and the shape of the file. What a
//! module holds is said on its first line; a test's name is the behaviour.
//!
//! `cargo test` runs what needs no preparation, on the binary that cargo built.
//! `scripts/test` prepares the machine and runs all of it, the ignored tests
//! included, on the files in `dist/`.

mod harness;

/// Tests that are given up after five minutes. Each takes a small part of that, and
/// `harness::LIMIT` names the state that did not come long before.
macro_rules! limited {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => { $(
        #[test]
        #[ntest::timeout(300_000)]
        $(#[$attribute])*
        fn $name() $body
    )* };
}

/// Tests for every form in which pause runs here: on this machine, and for arm64
/// under qemu on kernels with small and with large pages.
macro_rules! everywhere {
    ($($(#[$doc:meta])* fn $name:ident($pause:ident) $body:block)*) => {
        $($(#[$doc])* fn $name($pause: fn() -> crate::harness::launch::Launch) $body)*

        mod host {
            limited! { $(fn $name() { super::$name(crate::harness::programs::pause) })* }
        }
        mod arm64_4k {
            limited! { $(
                #[ignore = "needs scripts/test"]
                fn $name() { super::$name(|| crate::harness::programs::arm64(4096)) }
            )* }
        }
        mod arm64_64k {
            limited! { $(
                #[ignore = "needs scripts/test"]
                fn $name() { super::$name(|| crate::harness::programs::arm64(65536)) }
            )* }
        }
    };
}

mod arguments;
mod benchmark;
mod building;
mod cost;
mod ending;
mod engines;
mod image;
mod machine;
mod pod;
mod readme;
mod reaping;
mod refusals;
mod release;
mod shape;
mod signals;
mod starting;
mod surroundings;
mod system_calls;
