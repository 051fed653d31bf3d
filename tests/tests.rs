//! The contract of `/pause`, row by row, and the shape of the file. What a
//! module holds is said on its first line; a test's name is the behaviour.
//!
//! `cargo test` runs what needs no preparation, on the binary that cargo built.
//! `scripts/test` prepares the machine and runs all of it, the ignored tests
//! included, on the files in `dist/`.

/// Tests that are given up after fifteen minutes. Each takes a small part of that, and
/// `harness::LIMIT` names the state that did not come long before.
macro_rules! limited {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => { $(
        #[test]
        #[ntest::timeout(900_000)]
        $(#[$attribute])*
        fn $name() $body
    )* };
}

/// Tests for every form in which pause runs here: on this machine, and for arm64 under
/// qemu-user.
macro_rules! everywhere {
    ($($(#[$doc:meta])* fn $name:ident($pause:ident) $body:block)*) => {
        $($(#[$doc])* fn $name($pause: fn() -> harness::launch::Launch) $body)*

        mod host {
            limited! { $(fn $name() { super::$name(harness::programs::pause) })* }
        }
        mod arm64 {
            limited! { $(
                #[ignore = "needs scripts/test"]
                fn $name() { super::$name(harness::programs::arm64) }
            )* }
        }
    };
}

mod arguments;
mod benchmark;
mod building;
mod cost;
mod debian;
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
