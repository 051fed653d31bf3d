//! Row 4: SIGINT and SIGTERM end pause with 0 in any state of standard error. Rows 11 and 12.

use libc::{SIGINT, SIGTERM};

use harness::launch::{Launch, UNWRITABLE};
use harness::programs::Pause;
use harness::programs::program;
use harness::running::Ended;
use harness::{INTERRUPT, TERMINATED};

pub fn a_signal_ends_it_with_one_line_and_0(pause: Pause) {
    for (signal, line) in [(SIGINT, INTERRUPT), (SIGTERM, TERMINATED)] {
        let running = pause.launch().init().start().ready();
        running.signal(signal);
        let stderr = format!("{line}\n");
        assert_eq!(running.end(), Ended { how: Ok(0), stdout: String::new(), stderr });
    }
}

pub fn a_signal_from_inside_ends_it(pause: Pause) {
    for signal in [SIGINT, SIGTERM] {
        let running = pause.launch().init().start().ready();
        running.signal_from_inside(signal);
        assert_eq!(running.end().how, Ok(0));
    }
}

pub fn a_signal_ends_it_whatever_standard_error_is(pause: Pause) {
    for signal in [SIGINT, SIGTERM] {
        for unwritable in UNWRITABLE {
            let running = unwritable(pause.launch(), 2).init().start().ready();
            running.signal(signal);
            assert_eq!(running.end().how, Ok(0));
        }
    }
}

/// Outside of a PID namespace SIGPIPE would kill pause. The pipe breaks after the warning.
pub fn a_pipe_that_breaks_later_does_not_kill_it(pause: Pause) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let running = pause.launch().stream(2, writer).start().ready();
    drop(reader);
    assert_eq!(running.terminate().how, Ok(0));
}

/// No panic can be reached in pause itself, so a program that only panics runs pause's panic handler.
pub fn a_panic_ends_it_with_42() {
    let ended = Launch::new(&program("panic")).start().end();
    assert_eq!(ended, Ended { how: Ok(42), stdout: String::new(), stderr: String::new() });
}
