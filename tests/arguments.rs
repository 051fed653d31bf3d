//! Rows 1 and 2: `-v` and `-V` print the version; every other argument is ignored.

use std::path::Path;

use libc::SIGTERM;

use harness::launch::{DEAF, Launch};
use harness::programs::{dist, emulated, emulated_platforms, for_each, host, program, program_for};
use harness::running::Ended;

/// What pause prints for `-v`.
fn version() -> Ended {
    let stdout = format!("pause {}\n", harness::VERSION);
    Ended {
        how: Ok(0),
        stdout,
        stderr: String::new(),
    }
}

/// Starts pause as PID 1 with arguments, and asserts that it pauses until SIGTERM.
#[track_caller]
fn pauses(launch: Launch) {
    let running = launch.init().start().ready();
    running.signal(SIGTERM);
    let ended = running.end();
    assert_eq!((ended.how, ended.stdout.as_str()), (Ok(0), ""));
}

everywhere! {
    fn prints_its_version(pause) {
        assert_eq!(pause().argument("-v").start().end(), version());
        assert_eq!(pause().argument("-V").start().end(), version());
    }

    fn prints_its_version_as_the_first_process(pause) {
        assert_eq!(pause().init().argument("-v").start().end(), version());
    }

    fn prints_its_version_wherever_the_argument_stands(pause) {
        let argv = ["pause", "", "-x", "--", "-vv", "-v"];
        assert_eq!(pause().argv(&argv).start().end(), version());
        let argv = ["pause", "-V", "x"];
        assert_eq!(pause().argv(&argv).start().end(), version());
    }

    fn version_ends_with_0_whatever_standard_output_is(pause) {
        for deaf in DEAF {
            let ended = deaf(pause().argument("-v"), 1).start().end();
            assert_eq!((ended.how, ended.stderr.as_str()), (Ok(0), ""));
        }
    }

    fn ignores_what_is_almost_the_version(pause) {
        for argument in ["", "-", "v", "-vv", "-v ", "--version", "-w", "+v", "-\u{16}", "x-v"] {
            pauses(pause().argument(argument));
        }
    }

    fn ignores_the_longest_argument(pause) {
        pauses(pause().argument(&"v".repeat(LONGEST)));
    }

    fn ignores_a_mebibyte_of_arguments(pause) {
        let argument = "v".repeat(LONGEST);
        let launch = (0..8).fold(pause(), |launch, _| launch.argument(&argument));
        pauses(launch);
    }
}

/// The longest argument: the kernel's limit of 128 KiB (MAX_ARG_STRLEN) includes the NUL.
const LONGEST: usize = 128 * 1024 - 1;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Starts pause with argc 0 and an environment variable `-v`, and asserts that it pauses.
/// The control has argc 2 on the same stack, which makes `-v` an argument.
#[track_caller]
fn takes_no_variable_for_an_argument(argc0: &dyn Fn() -> Launch) {
    pauses(argc0());
    let argc2 = argc0().argument("1").argument("2");
    assert_eq!(argc2.init().start().end(), version());
}

// qemu-user needs the path of the program in argv, so these run on this machine only.
limited! {
    fn runs_without_any_argument() {
        pauses(harness::programs::pause().argv(&[]));
    }

    fn takes_no_variable_for_an_argument_on_the_host() {
        takes_no_variable_for_an_argument(&|| Launch::new(&program("argc0")).argument(text(&host())));
    }

    #[ignore = "needs scripts/test"]
    fn takes_no_variable_for_an_argument_emulated() {
        for_each(&emulated_platforms(), |platform| {
            let architecture = platform.architecture;
            let argc0 = program_for(architecture, "argc0");
            takes_no_variable_for_an_argument(&|| emulated(platform, &argc0).argument(text(&dist(architecture))));
        });
    }

    fn takes_its_own_name_for_no_argument() {
        pauses(harness::programs::pause().argv(&["-v"]));
    }
}
