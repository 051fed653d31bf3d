//! Tests of the contract of `/pause`, row by row, and of the shape of the file. The first
//! line of a module says what it tests; the name of a test says what must happen.
//!
//! `cargo test` runs the tests that need no preparation, on the binary that cargo built.
//! `scripts/test` prepares the machine and runs all tests, also those that are marked as
//! ignored, on the files in `dist/`.

/// Declares tests that fail after fifteen minutes. Each takes much less: a state that does not
/// come fails at `harness::LIMIT`, with a message that names it.
macro_rules! limited {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => { $(
        #[test]
        #[ntest::timeout(900_000)]
        $(#[$attribute])*
        fn $name() $body
    )* };
}

/// Declares tests for pause of every platform: this machine's, and the others' under qemu-user.
macro_rules! on_every_platform {
    ($($(#[$doc:meta])* fn $name:ident($pause:ident) $body:block)*) => {
        $($(#[$doc])* fn $name($pause: &dyn Fn() -> harness::launch::Launch) $body)*

        mod host {
            limited! { $(fn $name() { super::$name(&harness::programs::pause) })* }
        }
        mod emulated {
            use harness::programs::{emulated_pause, emulated_platforms, for_each};

            limited! { $(
                #[ignore = "needs scripts/test"]
                fn $name() {
                    for_each(&emulated_platforms(), |platform| super::$name(&|| emulated_pause(platform)));
                }
            )* }
        }
    };
}

/// Declares tests for pause of every platform, and for that of this machine where a seccomp filter
/// refuses `rt_sigtimedwait` (row 11).
macro_rules! everywhere {
    ($($(#[$doc:meta])* fn $name:ident($pause:ident) $body:block)*) => {
        on_every_platform! { $($(#[$doc])* fn $name($pause) $body)* }

        mod without_rt_sigtimedwait {
            use harness::programs::pause;

            limited! { $(fn $name() { super::$name(&|| pause().without(libc::SYS_rt_sigtimedwait)) })* }
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
mod lives;
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
mod traced;
