//! Tests of the contract of `/pause`, row by row, of the shape of the file, of the image and the
//! release, and of the scripts. The first line of a module says what it tests; the name of a test
//! says what must happen.
//!
//! `cargo test` runs the tests that need no preparation, on the binary that cargo built.
//! `scripts/test` prepares the machine and runs all tests, also those that are marked as
//! ignored, on the files in `dist/`.

mod arguments;
mod benchmark;
mod building;
mod cost;
mod debian;
mod documentation;
mod ending;
mod engines;
mod image;
mod linking;
mod lives;
mod machine;
mod pod;
mod reaping;
mod refusals;
mod release;
mod shape;
mod signals;
mod starting;
mod surroundings;
mod switch;
mod system_calls;
mod traced;

use std::process::ExitCode;

use harness::suite::Suite;
use harness::supervise::supervise;

fn main() -> ExitCode {
    let run = || {
        let mut suite = Suite::default();
        // Those that take long begin first.
        for list in [
            engines::list,
            release::list,
            debian::list,
            machine::list,
            building::list,
            benchmark::list,
            pod::list,
            lives::list,
            arguments::list,
            cost::list,
            documentation::list,
            ending::list,
            image::list,
            linking::list,
            reaping::list,
            refusals::list,
            shape::list,
            signals::list,
            starting::list,
            surroundings::list,
            switch::list,
            system_calls::list,
            traced::list,
        ] {
            list(&mut suite);
        }
        suite.run()
    };
    supervise(run, || ())
}
