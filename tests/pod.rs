//! `scripts/pod` as a user runs it: every step, `--keep`, interruptions, bad input.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use libc::{SIGINT, SIGTERM};

use harness::cell::Cell;
use harness::checkout::scripts_for_all;
use harness::programs::root;
use harness::suite::Suite;
use harness::{Folder, refused, tests, text, until};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        runs_a_pod_as_root,
        runs_a_pod_as_anybody,
        runs_a_pod_with_podman,
        runs_a_pod_with_docker,
        keeps_a_pod_until_it_is_stopped,
        an_interruption_leaves_nothing,
        refuses_what_it_does_not_know,
        names_what_is_missing,
        says_when_user_namespaces_are_forbidden,
        says_what_an_engine_lacks,
    ]);
}

/// The user ID of a user without rights (nobody).
const NOBODY: u32 = 65534;

/// A run of `scripts/pod` in bare namespaces, with its own folder for temporary files.
struct Run {
    temporary: Folder,
    /// A copy of the scripts that another user can read.
    scripts: Folder,
    command: Command,
}

impl Run {
    fn new(user: u32) -> Self {
        let (temporary, scripts) = (Folder::for_all("pod"), scripts_for_all());
        chown(&*temporary, Some(user), Some(user)).expect("chown");
        let mut command = Command::new(scripts.join("scripts/pod"));
        command.arg("--pause").arg(scripts.join("pause")).uid(user).gid(user).stdin(Stdio::null());
        command.env("TMPDIR", &*temporary).env("HOME", &*temporary);
        Self { temporary, scripts, command }
    }

    fn output(&mut self) -> Output {
        self.command.output().expect("scripts/pod")
    }

    /// Asserts that its folder is empty, and that no process refers to the folder.
    #[track_caller]
    fn left_nothing(&self) {
        let name = text(&self.temporary).as_bytes();
        let has_name = |file: PathBuf| {
            let text = fs::read(file).unwrap_or_default();
            text.windows(name.len()).any(|window| window == name)
        };
        until("no file and no process is left", || {
            let files = fs::read_dir(&*self.temporary).expect("its folder").count();
            let mut processes =
                fs::read_dir("/proc").expect("/proc").flatten().map(|one| one.path());
            let left = processes
                .any(|path| has_name(path.join("cmdline")) || has_name(path.join("environ")));
            (files == 0 && !left).then_some(())
        });
    }
}

/// Asserts that every step succeeded.
#[track_caller]
fn ran_all_steps(output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stdout}{stderr}");
    let steps: String = stdout.lines().filter_map(|line| Some(line.split_once(". ")?.0)).collect();
    assert_eq!(steps, "123456", "{stdout}");
    for part in ["1 /pause", "application 1", "not woken once", "application 2", "exited with 0"] {
        assert!(stdout.contains(part), "no '{part}' in:\n{stdout}");
    }
}

/// Waits until the line of `step` is printed.
fn await_step(step: usize, child: &mut Child) {
    let stdout = BufReader::new(child.stdout.as_mut().expect("a pipe"));
    let mut lines = stdout.lines().map_while(Result::ok);
    lines.find(|line| line.starts_with(&format!("{step}. "))).expect("the step");
}

fn runs_a_pod_as_root() {
    let mut pod = Run::new(0);
    ran_all_steps(&pod.output());
    pod.left_nothing();
}

fn runs_a_pod_as_anybody() {
    let mut pod = Run::new(NOBODY);
    ran_all_steps(&pod.output());
    pod.left_nothing();
}

fn keeps_a_pod_until_it_is_stopped() {
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

/// Before the first step and after each: by a terminal, which signals the process group, and
/// by kill, which signals the script alone.
fn an_interruption_leaves_nothing() {
    for (step, signal) in (0..=5).flat_map(|step| [(step, SIGINT), (step, SIGTERM)]) {
        let mut pod = Run::new(NOBODY);
        pod.command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = pod.command.spawn().expect("scripts/pod");
        let has_files = || fs::read_dir(&*pod.temporary).expect("its folder").count() > 0;
        match step {
            // Any time after its start.
            0 => until("a file of its own", || has_files().then_some(())),
            _ => await_step(step, &mut child),
        }
        let group = if signal == SIGINT { -1 } else { 1 };
        // SAFETY: a process or process group that this test made.
        unsafe { libc::kill(group * child.id() as i32, signal) };
        // 128 + signal; or 1 if the script noticed first that its pod had ended.
        assert!(!child.wait().expect("its end").success(), "step {step}, signal {signal}");
        pod.left_nothing();
    }
}

fn refuses_what_it_does_not_know() {
    for (arguments, reason) in [
        (&["--frob"][..], "unknown argument '--frob'"),
        (&["--pause", "/none"], "'/none'"),
        (&["--engine"], "--engine wants a value"),
        (&["--engine", "rkt"], "podman or docker, not 'rkt'"),
    ] {
        let mut pod = Run::new(0);
        pod.command.args(arguments);
        refused(&pod.output(), reason);
        pod.left_nothing();
    }
}

/// The line has the command that installs what is missing. Without apt-get it names all
/// missing commands.
fn names_what_is_missing() {
    for (hidden, reason) in [
        (&["nginx", "curl"][..], "/scripts/setup curl=curl nginx=nginx-light"),
        (&["nginx", "curl", "apt-get"], "there is no apt-get to install them: curl nginx"),
    ] {
        let pod = Run::new(NOBODY);
        let commands = Folder::for_all("commands");
        // All commands but the hidden ones, from the folders of ordinary users.
        for entry in ["/usr/bin", "/usr/sbin"].map(|one| fs::read_dir(one).expect("commands")) {
            for entry in entry.flatten() {
                if !hidden.iter().any(|hidden| entry.file_name() == **hidden) {
                    let _ = symlink(entry.path(), commands.join(entry.file_name()));
                }
            }
        }
        harness::run("chmod", &["a+rx", text(&commands)]);
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /usr/sbin && exec \"$@\"",
            "sh",
        ]);
        unshare.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        unshare.arg(pod.command.get_program()).args(pod.command.get_args());
        unshare.env("PATH", &*commands).env("TMPDIR", &*pod.temporary);
        refused(&unshare.output().expect("unshare"), reason);
        pod.left_nothing();
    }
}

/// A limit in an outer user namespace takes the place of the machine's setting.
fn says_when_user_namespaces_are_forbidden() {
    let pod = Run::new(NOBODY);
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script, "sh"]);
    unshare.arg(pod.command.get_program()).args(pod.command.get_args());
    unshare.env("TMPDIR", &*pod.temporary).uid(NOBODY).gid(NOBODY);
    refused(&unshare.output().expect("unshare"), "this machine forbids user namespaces");
    drop(pod.scripts);
}

/// `scripts/pod` with an engine in a cell, and the image in `dist/`.
fn in_cell(cell: &Cell, arguments: &str) -> Command {
    let (mut command, root) = (cell.command("sh"), root().display());
    let archive = format!("{root}/dist/pause.oci.tar");
    let line =
        format!("mkdir -p $TMPDIR; exec {root}/scripts/pod --pause {archive} --engine {arguments}");
    command.args(["-c", &line]);
    command
}

/// Runs all of `scripts/pod` with an engine in a cell.
#[track_caller]
fn runs_a_pod_with(cell: &Cell, engine: &str) {
    // What every new podman or Docker has, and nothing else.
    let networks = if engine == "podman" { "podman" } else { "bridge host none" };
    let left_nothing = || {
        let lists = ["ps --all --quiet", "images --quiet --all", "volume ls --quiet"];
        let lists = lists.map(|list| format!("{engine} {list}")).join("; ");
        let network = format!("{engine} network ls --format '{{{{.Name}}}}'");
        assert_eq!(cell.run(&format!("echo $({lists}; ls $TMPDIR); echo $({network})")), networks);
    };
    ran_all_steps(&in_cell(cell, engine).output().expect("scripts/pod"));
    left_nothing();

    let output = in_cell(cell, &format!("{engine} --keep")).output().expect("scripts/pod");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, rest) = stdout.split_once("its port 80 is ").expect("the port");
    let (address, rest) = rest.split_once('\n').expect("a line");
    assert_eq!(cell.run(&format!("curl --silent http://{address}/")), "application 2");
    cell.run(rest.split_once("; to stop it: ").expect("how to stop it").1);
    left_nothing();

    for signal in [SIGINT, SIGTERM] {
        let mut command = in_cell(cell, engine);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("scripts/pod");
        await_step(2, &mut child);
        // nsenter is its parent. The whole process group gets the signal, as from a terminal.
        // SAFETY: a process group that this test made.
        unsafe { libc::kill(-(child.id() as i32), signal) };
        child.wait().expect("its end");
        until("the script is gone", || {
            (!cell.output("pgrep -f 'scripts/[p]od'").status.success()).then_some(())
        });
        left_nothing();
    }
    cell.run(&format!("head -c 7000 {}/dist/pause.oci.tar >/run/short.tar", root().display()));
    let short = in_cell(cell, &format!("{engine} --pause /run/short.tar")).output();
    refused(&short.expect("scripts/pod"), "cannot load /run/short.tar: is it whole");
    left_nothing();
}

fn runs_a_pod_with_podman() {
    runs_a_pod_with(&Cell::start(), "podman");
}

fn runs_a_pod_with_docker() {
    runs_a_pod_with(&Cell::docker(), "docker");
}

fn says_what_an_engine_lacks() {
    let cell = Cell::start();
    let says = |arguments: &str, reason: &str| {
        refused(&in_cell(&cell, arguments).output().expect("scripts/pod"), reason);
    };
    says("docker", "docker does not run here: Cannot connect to the Docker daemon");
    let options = "lowerdir=/usr/bin,upperdir=/run/upper,workdir=/run/work";
    cell.run(&format!("mkdir /run/upper /run/work; mount -t overlay -o {options} overlay /usr/bin; rm /usr/bin/podman"));
    says("podman", "podman is not installed: apt-get install podman");
}
