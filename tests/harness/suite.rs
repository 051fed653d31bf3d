//! The list of all tests, and how they run: libtest-mimic runs them as cargo's own harness would,
//! each platform with a result of its own.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Conclusion, Trial};

use crate::launch::Launch;
use crate::programs::{self, Platform, emulated_platforms};

/// The time limit of a test. Each takes much less: a state that does not come fails at
/// [`crate::LIMIT`], with a message that names it.
const LIMIT: Duration = Duration::from_secs(900);

/// How long each test took, in seconds.
static TIMES: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());

/// The names of some tests, with the functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*]
    };
}

/// A list that the macro `tests!` makes, of functions of this type.
pub type Tests<'a, F> = &'a [(&'static str, F)];

/// pause in one of the forms in which it runs here.
#[derive(Clone, Copy)]
pub enum Pause {
    /// That of this machine.
    Host,
    /// The same, where a seccomp filter refuses `rt_sigtimedwait` (row 11).
    WithoutRtSigtimedwait,
    /// That of another platform, under qemu-user.
    Emulated(&'static Platform),
}

impl Pause {
    pub fn launch(self) -> Launch {
        match self {
            Self::Host => programs::pause(),
            Self::WithoutRtSigtimedwait => programs::pause().without(libc::SYS_rt_sigtimedwait),
            Self::Emulated(platform) => programs::emulated_pause(platform),
        }
    }
}

#[derive(Default)]
pub struct Suite {
    tests: Vec<Trial>,
    timed: Vec<Trial>,
}

impl Suite {
    /// Adds tests that need no preparation.
    pub fn host(&mut self, tests: Tests<fn()>) {
        self.tests.extend(tests.iter().map(|(name, test)| trial(false, name, "", *test)));
    }

    /// Adds tests that need what `scripts/test` prepares.
    pub fn prepared(&mut self, tests: Tests<fn()>) {
        self.tests.extend(tests.iter().map(|(name, test)| trial(true, name, "", *test)));
    }

    /// Adds tests that measure a time. They need what `scripts/test` prepares, and run at the end,
    /// one after another.
    pub fn timed(&mut self, tests: Tests<fn()>) {
        self.timed.extend(tests.iter().map(|(name, test)| trial(true, name, "", *test)));
    }

    /// Adds tests of pause on every platform: this machine's, and the others' under qemu-user.
    pub fn every_platform(&mut self, tests: Tests<fn(Pause)>) {
        self.each(false, "host", Pause::Host, tests);
        for platform in emulated_platforms() {
            self.each(true, &platform.architecture, Pause::Emulated(platform), tests);
        }
    }

    /// The same, and with pause where rt_sigtimedwait is refused.
    pub fn every_form(&mut self, tests: Tests<fn(Pause)>) {
        self.every_platform(tests);
        self.each(false, "without_rt_sigtimedwait", Pause::WithoutRtSigtimedwait, tests);
    }

    /// Adds tests of some platforms, with a result for each.
    pub fn per_platform(
        &mut self,
        prepared: bool,
        platforms: &[&'static Platform],
        tests: Tests<fn(&'static Platform)>,
    ) {
        for platform in platforms {
            self.each(prepared, &platform.architecture, *platform, tests);
        }
    }

    fn each<T: Copy + Send + 'static>(
        &mut self,
        prepared: bool,
        form: &str,
        of: T,
        tests: Tests<fn(T)>,
    ) {
        for (name, test) in tests {
            let test = *test;
            self.tests.push(trial(prepared, name, form, move || test(of)));
        }
    }

    /// Runs the tests that the arguments of this program name.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        let ran = |conclusion: &Conclusion| conclusion.num_passed + conclusion.num_failed;
        let first = libtest_mimic::run(&arguments, self.tests);
        arguments.test_threads = Some(1);
        let second = libtest_mimic::run(&arguments, self.timed);
        let mut times = TIMES.lock().expect("the times");
        times.sort();
        for (seconds, name) in times.iter().rev().take(5).filter(|(seconds, _)| *seconds > 20) {
            println!("{seconds} s: {name}");
        }
        if !arguments.list && ran(&first) + ran(&second) == 0 {
            let name = arguments.filter.unwrap_or_default();
            let reason = match first.num_ignored + second.num_ignored {
                0 => "none has this; `cargo test -- --list` in tests/ prints all names",
                _ => "those that have this need scripts/test",
            };
            eprintln!("no test was run with '{name}' in its name: {reason}");
            return ExitCode::FAILURE;
        }
        match first.has_failed() || second.has_failed() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }
}

fn trial(prepared: bool, name: &str, form: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    // Without the name of this program.
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let name = if form.is_empty() { name.to_string() } else { format!("{name}::{form}") };
    let shown = name.clone();
    let limited = move || {
        let start = Instant::now();
        let (end, ended) = channel::<()>();
        let thread = thread::spawn(move || {
            let _end = end; // dropped at the end of the test, however it ends
            test();
        });
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            return Err(format!("it did not end within {LIMIT:?}").into());
        }
        TIMES.lock().expect("the times").push((start.elapsed().as_secs(), shown));
        thread.join().map_err(|panic| crate::message(&*panic).into())
    };
    Trial::test(name, limited).with_ignored_flag(prepared)
}
