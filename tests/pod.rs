//! `scripts/pod` as a user runs it: every step, `--keep`, interruptions, bad input.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use libc::{SIGINT, SIGTERM};

use harness::checkout::scripts_for_all;
use harness::{Folder, refused, text, until};

/// The user ID of a user without rights (nobody).
const NOBODY: u32 = 65534;

/// A run of `scripts/pod`, with its own folder for temporary files.
struct Run {
    temporary: Folder,
    /// A copy of the scripts that another user can read.
    _scripts: Folder,
    command: Command,
}

impl Run {
    fn new(user: u32) -> Self {
        let (temporary, scripts) = (Folder::for_all("pod"), scripts_for_all());
        chown(&*temporary, Some(user), Some(user)).expect("chown");
        let mut command = Command::new(scripts.join("scripts/pod"));
        command.arg("--pause").arg(scripts.join("pause")).uid(user).gid(user).stdin(Stdio::null());
        command.env("TMPDIR", &*temporary).env("HOME", &*temporary);
        Self { temporary, _scripts: scripts, command }
    }

    fn output(&mut self) -> Output {
        self.command.output().expect("scripts/pod")
    }

    /// Asserts that its folder is empty, and that no process refers to the folder.
    fn left_nothing(&self) {
        let name = text(&self.temporary).as_bytes();
        let has_name = |file: PathBuf| {
            let text = fs::read(file).unwrap_or_default();
            text.windows(name.len()).any(|window| window == name)
        };
        until("no file and no process is left", || {
            let files = fs::read_dir(&*self.temporary).expect("its folder").count();
            let mut processes = fs::read_dir("/proc").expect("/proc").flatten().map(|one| one.path());
            let left = processes.any(|path| has_name(path.join("cmdline")) || has_name(path.join("environ")));
            (files == 0 && !left).then_some(())
        });
    }
}

/// All steps, each of which must succeed.
pub fn runs_a_pod_as_root_and_as_anybody() {
    for user in [0, NOBODY] {
        let mut pod = Run::new(user);
        let output = pod.output();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        assert!(output.status.success() && stderr.is_empty(), "{stdout}{stderr}");
        let steps: String = stdout.lines().filter_map(|line| Some(line.split_once(". ")?.0)).collect();
        assert_eq!(steps, "123456", "{stdout}");
        for part in ["1 /pause", "not woken once", "application 2", "exited with status 0"] {
            assert!(stdout.contains(part), "no '{part}' in:\n{stdout}");
        }
        pod.left_nothing();
    }
}

pub fn keeps_a_pod_until_it_is_stopped() {
    let mut pod = Run::new(NOBODY);
    pod.command.arg("--keep");
    let stdout = String::from_utf8(pod.output().stdout).expect("UTF-8");
    let (_, rest) = stdout.split_once("To enter it: ").expect("how to enter it");
    let (enter, stop) = rest.split_once("; to stop it: ").expect("how to stop it");
    let shell = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).uid(NOBODY).gid(NOBODY).output();
        String::from_utf8(output.expect("sh").stdout).expect("UTF-8")
    };
    assert_eq!(shell(&format!("{enter} curl -s http://127.0.0.1/")), "application 2\n");
    shell(stop);
    pod.left_nothing();
}

/// Before the first step and after each: by a terminal, which signals the process group, and by kill, which signals the
/// script alone.
pub fn an_interruption_leaves_nothing() {
    for (step, signal) in (0..=5).flat_map(|step| [(step, SIGINT), (step, SIGTERM)]) {
        let mut pod = Run::new(NOBODY);
        pod.command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = pod.command.spawn().expect("scripts/pod");
        let has_files = || fs::read_dir(&*pod.temporary).expect("its folder").count() > 0;
        if step == 0 {
            until("a file of its own", || has_files().then_some(()));
        } else {
            let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines().map_while(Result::ok);
            lines.find(|line| line.starts_with(&format!("{step}. "))).expect("the line of the step");
        }
        let group = if signal == SIGINT { -1 } else { 1 };
        // SAFETY: a process or process group that this test made.
        unsafe { libc::kill(group * child.id() as i32, signal) };
        let status = child.wait().expect("its status");
        // 128 + signal, or 1 if the script sees first that its pod has exited. Any time may be
        // after its last step, which comes soon after step 5.
        assert!([0, 5].contains(&step) || !status.success(), "step {step}, signal {signal}");
        pod.left_nothing();
    }
}

pub fn refuses_what_it_does_not_know() {
    for (arguments, reason) in
        [(&["--frob"][..], "unexpected argument '--frob'"), (&["--pause", "/none"], "expects a program, not '/none'")]
    {
        let mut pod = Run::new(0);
        pod.command.args(arguments);
        refused(&pod.output(), reason);
        pod.left_nothing();
    }
}

/// A limit in an outer user namespace takes the place of the machine's setting.
pub fn says_when_user_namespaces_are_forbidden() {
    let pod = Run::new(NOBODY);
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script, "sh"]);
    unshare.arg(pod.command.get_program()).args(pod.command.get_args());
    unshare.env("TMPDIR", &*pod.temporary).uid(NOBODY).gid(NOBODY);
    refused(&unshare.output().expect("unshare"), "this machine forbids new namespaces");
}
