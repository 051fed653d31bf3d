//! Tests of the contract of `/pause`, row by row, of the shape of the file, of the image and the release, and of the
//! scripts. The first line of a module says what it tests; the name of a test says what must happen. This file is the
//! list of all tests, and runs them by libtest-mimic, each platform with a result of its own.
//!
//! `cargo test` runs the tests that need no preparation, on the program that cargo built. `scripts/test` prepares the
//! machine and runs all tests, also those that are marked as ignored, on the files in `dist/`.

mod arguments;
mod benchmark;
mod building;
mod cost;
mod documentation;
mod ending;
mod engines;
mod image;
mod linking;
mod machine;
mod pod;
mod proof;
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
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use harness::programs::{Pause, Platform, emulated_platforms, host_platform, platforms};

/// The time limit of a test. Each takes much less: a state that does not come fails at [`harness::LIMIT`], with a
/// message that names it.
const LIMIT: Duration = Duration::from_secs(1800);

/// Some functions of a module, with their names.
macro_rules! tests {
    ($module:ident: $($name:ident)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

/// A form in which a test runs: its name, whether it needs what `scripts/test` prepares, and what the test gets.
type Form<T> = (&'static str, bool, T);

/// A test that runs in several forms: its name and its function.
type Test<T> = (&'static str, fn(T));

#[derive(Default)]
struct Suite(Vec<Trial>);

impl Suite {
    /// Adds tests that need no preparation, and tests that need what `scripts/test` prepares.
    fn host(&mut self, tests: &[(&str, fn())]) {
        self.0.extend(tests.iter().map(|(name, test)| trial(false, name, *test)));
    }

    fn prepared(&mut self, tests: &[(&str, fn())]) {
        self.0.extend(tests.iter().map(|(name, test)| trial(true, name, *test)));
    }

    /// Adds tests that run once for each form.
    fn each<T: Copy + Send + 'static>(&mut self, forms: &[Form<T>], tests: &[Test<T>]) {
        for (name, test) in tests {
            let test = *test;
            let trial = |(form, prepared, of): &Form<T>| {
                let of = *of;
                trial(*prepared, &format!("{name}::{form}"), move || test(of))
            };
            self.0.extend(forms.iter().map(trial));
        }
    }
}

fn trial(prepared: bool, name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    let limited = move || {
        let (end, ended) = channel::<()>();
        let thread = thread::spawn(move || {
            let _end = end; // dropped at the end of the test, however it ends
            test();
        });
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            return Err(format!("it did not end within {LIMIT:?}").into());
        }
        thread.join().map_err(|panic| harness::message(&*panic).into())
    };
    Trial::test(name, limited).with_ignored_flag(prepared)
}

/// All tests. Those that take long begin first.
fn all() -> Suite {
    let per = |platform: &'static Platform| (platform.architecture, true, platform);
    let platforms: Vec<_> = platforms().into_iter().map(per).collect();
    let booted: Vec<_> = platforms.iter().filter(|(.., one)| !one.booted(true).is_empty()).copied().collect();
    let emulated: Vec<_> = emulated_platforms().into_iter().map(per).collect();
    let linked = [&[("host", false, host_platform())], &emulated[..]].concat();
    let emulated_pauses = emulated.iter().map(|(name, _, platform)| (*name, true, Pause::Emulated(platform)));
    let every_platform = [vec![("host", false, Pause::Host)], emulated_pauses.collect()].concat();
    let without = ("without_rt_sigtimedwait", false, Pause::WithoutRtSigtimedwait);
    let every_form = [&every_platform[..], &[without]].concat();

    let mut suite = Suite::default();
    suite.prepared(tests![engines: docker_holds_a_pod_with_it podman_holds_a_pod_with_it
        containerd_runs_it_on_either_snapshotter a_registry_takes_it_and_gives_it_back
        all_take_the_archive_of_a_platform_and_build_on_it]);
    suite.prepared(tests![release: describes_what_it_has a_core_file_is_read_with_the_symbols]);
    suite.each(&booted, tests![machine: is_the_init_of_a_machine]);
    suite.prepared(tests![building: makes_the_same_programs_and_image_elsewhere_as_another_user
        builds_the_same_whatever_a_config_file_says]);
    suite.prepared(tests![benchmark: check_fails_on_any_difference_until_it_is_blessed the_map_has_every_byte
        a_dashboard_reads_what_it_prints]);
    suite.prepared(tests![pod: runs_a_pod_as_root_and_as_anybody keeps_a_pod_until_it_is_stopped
        an_interruption_leaves_nothing refuses_what_it_does_not_know says_when_user_namespaces_are_forbidden]);
    suite.each(&platforms, tests![proof: is_proven]);
    suite.prepared(tests![proof: nothing_that_departs_is_proven]);

    suite.each(
        &every_form,
        tests![arguments: prints_its_version prints_its_version_as_the_first_process
        prints_its_version_wherever_the_argument_stands version_ends_with_0_whatever_standard_output_is
        ignores_what_is_almost_the_version ignores_the_longest_argument ignores_a_mebibyte_of_arguments],
    );
    suite.host(tests![arguments: runs_without_any_argument takes_no_variable_for_an_argument_on_the_host
        takes_its_own_name_for_no_argument]);
    suite.each(&emulated, tests![arguments: takes_no_variable_for_an_argument]);
    suite.host(tests![cost: takes_no_more_memory_than_doing_nothing]);
    suite.host(tests![documentation: its_image_has_this_version they_have_the_sizes_of_size_toml]);
    suite.each(
        &every_form,
        tests![ending: a_signal_ends_it_with_one_line_and_0 a_signal_from_inside_ends_it
        a_signal_ends_it_whatever_standard_error_is a_pipe_that_breaks_later_does_not_kill_it],
    );
    suite.host(tests![ending: a_panic_ends_it_with_42]);
    suite.each(&platforms, tests![image: holds_pause_alone has_an_archive_of_its_own]);
    suite.prepared(tests![image: has_each_platform_and_annotations_that_cost_a_platform_nothing
        names_the_same_blobs_for_docker takes_a_name_and_a_source is_the_same_from_a_source_archive
        refuses_bad_names_sources_and_times]);
    suite.each(&linked, tests![linking: links_what_needs_nothing refuses_what_pause_must_not_have]);
    suite.each(
        &every_form,
        tests![reaping: reaps_one_orphan reaps_200_orphans_at_once
        reaps_grandchildren reaps_orphans_that_arrive_dead
        leaves_no_zombie_while_it_is_stopped],
    );
    suite.host(tests![reaping: a_stopped_parent_with_a_handler_leaves_zombies]);
    suite.prepared(tests![reaping: reaps_20000_orphans_in_a_row_without_waking
        leaves_no_zombie_while_it_is_frozen
        leaves_no_zombie_with_the_least_cpu_there_is]);
    suite.host(tests![refusals: ends_with_1_2_or_3_without_a_handler ends_with_1_without_any_handler
        ends_with_42_when_it_may_not_sleep sleeps_in_pause_where_rt_sigtimedwait_is_refused
        does_not_miss_pause_where_it_is_refused takes_eintr_for_again_however_often_it_comes
        pauses_without_any_one_of_the_other_system_calls
       
        a_fault_ends_it_without_exit_group prints_no_version_without_ppoll goes_on_after_no_warning_without_ppoll
        a_signal_ends_it_without_ppoll ends_with_42_without_ppoll]);
    suite.each(
        &platforms,
        tests![shape: is_one_segment ordinary_tools_read_it clamav_does_not_call_it_broken
        the_oldest_processors_run_it],
    );
    suite.each(&every_form, tests![signals: goes_on_after_a_stop sigterm_while_stopped_ends_it_once_continued]);
    suite.host(tests![signals: every_signal_from_outside_as_the_first_process
        every_signal_from_inside_as_the_first_process every_signal_elsewhere
        no_signal_but_those_that_it_waits_for_wakes_it a_sigchld_that_somebody_sends_wakes_it_once
        goes_on_after_a_debugger]);
    suite.prepared(tests![signals: goes_on_after_the_freezer]);
    suite.each(
        &every_form,
        tests![starting: warns_when_it_is_not_the_first_process is_silent_as_the_first_process
        goes_on_after_the_warning_whatever_standard_error_is sigterm_ends_it_when_the_starter_blocked_it
        sigterm_ends_it_when_the_starter_ignored_it a_signal_that_was_pending_ends_it_at_once
        two_pending_signals_make_one_line reaps_when_the_starter_blocked_or_ignored_sigchld
        reaps_a_zombie_from_before_the_start reaps_200_zombies_from_before_the_start
        reaps_zombies_whatever_their_exit_signal sleeps_beside_a_child_from_before_the_start
        reaps_children_from_before_the_start_that_end_later],
    );
    suite.host(tests![surroundings: needs_no_descriptor needs_no_resources]);
    suite.prepared(tests![surroundings: needs_no_proc_and_no_writable_root needs_no_user_and_no_capability
        prints_its_version_as_any_user]);
    suite.host(tests![switch: any_file_is_the_same_after_there_and_back]);
    suite.prepared(tests![switch: changes_the_one_setting_in_files_as_people_have_them
        keeps_what_others_have_changed_since goes_on_after_it_was_killed_at_any_step
        keeps_the_mode_the_owner_and_a_link_also_on_a_mount stays_below_the_root lets_one_run_at_a_time
        refuses_bad_input]);
    suite.host(tests![system_calls: makes_just_these_system_calls_in_a_whole_life
        makes_just_these_system_calls_for_its_version a_second_signal_makes_no_second_line
        sleeps_again_when_a_tracer_interrupts_it_three_times tries_each_way_to_sleep_once_when_it_may_not
        needs_no_other_system_call one_system_call_less_kills_it]);
    suite.each(&emulated, tests![system_calls: makes_just_these_system_calls_on_other_platforms]);
    suite.each(
        &every_platform,
        tests![traced: reaps_orphans_that_it_traces
        reaps_orphans_that_it_traces_and_that_are_killed reaps_a_child_that_its_starter_had_seized
        reaps_orphans_that_it_traces_when_it_is_continued],
    );
    suite.prepared(tests![traced: reaps_orphans_of_another_user_that_it_traces is_woken_by_no_other_orphan
    ]);
    suite.host(tests![traced: a_parent_that_only_ignores_sigchld_leaves_zombies
        leaves_zombies_of_them_where_rt_sigtimedwait_is_refused]);
    suite
}

fn main() -> ExitCode {
    harness::sweep::sweep();
    let mut arguments = Arguments::from_args();
    // Many of them wait for machines and daemons.
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(threads);
    let first = libtest_mimic::run(&arguments, all().0);
    // It takes all of the machine, so nothing runs beside it.
    let mut alone = Suite::default();
    alone.prepared(tests![engines: podman_makes_the_same_file_from_the_containerfile]);
    arguments.test_threads = Some(1);
    let second = libtest_mimic::run(&arguments, alone.0);
    let ran = first.num_passed + first.num_failed + second.num_passed + second.num_failed;
    if !arguments.list && ran == 0 {
        eprintln!("no test was run: `cargo test -- --list` in tests/ prints all names; some of them need scripts/test");
    }
    ExitCode::from(u8::from(first.has_failed() || second.has_failed() || !arguments.list && ran == 0))
}
