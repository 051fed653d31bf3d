//! Rows 1 and 2: `-v` and `-V` print the version; every other argument is ignored.

use harness::launch::{Launch, UNWRITABLE};
use harness::programs::Pause;
use harness::programs::{Platform, dist, emulated, host, program, program_for};
use harness::running::Ended;
use harness::text;

/// What pause prints for `-v`.
fn version() -> Ended {
    let stdout = format!("pause {}\n", harness::VERSION);
    Ended { how: Ok(0), stdout, stderr: String::new() }
}

/// Starts pause as PID 1 with arguments, and asserts that it pauses until SIGTERM.
fn pauses(launch: Launch) {
    let running = launch.init().start().ready();
    let ended = running.terminate();
    assert_eq!((ended.how, ended.stdout.as_str()), (Ok(0), ""));
}

pub fn prints_its_version(pause: Pause) {
    assert_eq!(pause.launch().argument("-v").start().end(), version());
    assert_eq!(pause.launch().argument("-V").start().end(), version());
}

pub fn prints_its_version_as_the_first_process(pause: Pause) {
    assert_eq!(pause.launch().init().argument("-v").start().end(), version());
}

pub fn prints_its_version_wherever_the_argument_stands(pause: Pause) {
    let argv = ["pause", "", "-x", "--", "-vv", "-v"];
    assert_eq!(pause.launch().argv(&argv).start().end(), version());
    let argv = ["pause", "-V", "x"];
    assert_eq!(pause.launch().argv(&argv).start().end(), version());
}

pub fn version_ends_with_0_whatever_standard_output_is(pause: Pause) {
    for unwritable in UNWRITABLE {
        let ended = unwritable(pause.launch().argument("-v"), 1).start().end();
        assert_eq!((ended.how, ended.stderr.as_str()), (Ok(0), ""));
    }
}

pub fn ignores_what_is_almost_the_version(pause: Pause) {
    for argument in ["", "-", "v", "-vv", "-v ", "--version", "-w", "+v", "-\u{16}", "x-v"] {
        pauses(pause.launch().argument(argument));
    }
}

pub fn ignores_the_longest_argument(pause: Pause) {
    pauses(pause.launch().argument(&"v".repeat(LONGEST)));
}

pub fn ignores_a_mebibyte_of_arguments(pause: Pause) {
    let argument = "v".repeat(LONGEST);
    let launch = (0..8).fold(pause.launch(), |launch, _| launch.argument(&argument));
    pauses(launch);
}

/// The longest argument: the kernel's limit of 128 KiB (MAX_ARG_STRLEN) includes the NUL.
const LONGEST: usize = 128 * 1024 - 1;

/// Starts pause with argc 0 and an environment variable `-v`, and asserts that it pauses. The control has argc 2 on the
/// same stack, which makes `-v` an argument.
fn is_no_argument(argc0: &dyn Fn() -> Launch) {
    pauses(argc0());
    let argc2 = argc0().argument("1").argument("2");
    assert_eq!(argc2.init().start().end(), version());
}

// qemu-user needs the path of the program in argv, so these run on this machine only.
pub fn runs_without_any_argument() {
    pauses(harness::programs::pause().argv(&[]));
}

pub fn takes_no_variable_for_an_argument_on_the_host() {
    is_no_argument(&|| Launch::new(&program("argc0")).argument(text(&host())));
}

pub fn takes_no_variable_for_an_argument(platform: &'static Platform) {
    let argc0 = program_for(platform.architecture, "argc0");
    let pause = dist(platform.architecture);
    is_no_argument(&|| emulated(platform, &argc0).argument(text(&pause)));
}

pub fn takes_its_own_name_for_no_argument() {
    pauses(harness::programs::pause().argv(&["-v"]));
}
