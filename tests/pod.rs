//! `scripts/pod` as a user runs it: every step, `--keep`, interruptions, bad input.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use libc::{SIGINT, SIGTERM};

use harness::cell::Cell;
use harness::checkout::scripts_for_all;
use harness::programs::{HOST, dist, root};
use harness::{Folder, refused, unique, until};

/// The user ID of a user without rights (nobody).
const NOBODY: u32 = 65534;

/// A run of `scripts/pod` with its own folder for temporary files.
struct PodRun {
    temporary: PathBuf,
    command: Command,
    /// The copy of the scripts that another user can read.
    _scripts: Option<Folder>,
}

impl PodRun {
    fn new(name: &str, user: u32) -> Self {
        let temporary = std::env::temp_dir().join(unique(name));
        fs::create_dir(&temporary).expect("a folder");
        std::os::unix::fs::chown(&temporary, Some(user), Some(user)).expect("chown");
        let scripts = (user != 0).then(scripts_for_all);
        let (script, pause) = match &scripts {
            Some(copy) => (copy.join("scripts/pod"), copy.join("pause")),
            None => (root().join("scripts/pod"), dist(&HOST)),
        };
        let mut command = Command::new(script);
        command
            .arg("--pause")
            .arg(pause)
            .env("TMPDIR", &temporary)
            .env("HOME", &temporary)
            .stdin(Stdio::null());
        if user != 0 {
            command.uid(user).gid(user);
        }
        Self {
            temporary,
            command,
            _scripts: scripts,
        }
    }

    fn run(&mut self) -> Output {
        self.command.output().expect("scripts/pod")
    }

    /// The file for standard error, beside the folder.
    fn log(&self) -> PathBuf {
        self.temporary.with_extension("log")
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.temporary).expect("its folder").count()
    }

    /// Asserts that its folder is empty, and that no process refers to the folder.
    #[track_caller]
    fn left_nothing(&self) {
        let said = fs::read_to_string(self.log()).unwrap_or_default();
        until(&format!("no file and no process is left; {said}"), || {
            (self.files() == 0 && self.processes().is_empty()).then_some(())
        });
    }

    /// The PIDs of the processes that have its folder in their command line or environment.
    fn processes(&self) -> Vec<i32> {
        let name = self.temporary.to_str().expect("UTF-8").as_bytes();
        let names = |path: &Path, file| {
            let text = fs::read(path.join(file)).unwrap_or_default();
            text.windows(name.len()).any(|window| window == name)
        };
        fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let pid = path.file_name()?.to_str()?.parse().ok()?;
                (names(&path, "cmdline") || names(&path, "environ")).then_some(pid)
            })
            .collect()
    }
}

impl Drop for PodRun {
    fn drop(&mut self) {
        for pid in self.processes() {
            // SAFETY: a process of this run.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = fs::remove_dir_all(&self.temporary);
        let _ = fs::remove_file(self.log());
    }
}

/// Asserts that every step succeeded.
#[track_caller]
fn held(output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    let steps: String = stdout
        .lines()
        .filter_map(|line| line.split_once(". "))
        .map(|s| s.0)
        .collect();
    assert_eq!(steps, "123456", "{stdout}");
    for seen in [
        "1 /pause",
        "application 1",
        "not woken once",
        "application 2",
        "exited with 0",
    ] {
        assert!(stdout.contains(seen), "no '{seen}' in:\n{stdout}");
    }
}

/// Runs `scripts/pod` in a cell with the image in `dist/`.
fn engine(cell: &Cell, arguments: &str) -> Command {
    let mut command = cell.command("sh");
    let root = root().display();
    let line = format!(
        "mkdir -p $TMPDIR; exec {root}/scripts/pod --archive {root}/dist/pause.oci.tar {arguments}"
    );
    command.args(["-c", &line]);
    command
}

/// Asserts that the engine has only what every new podman or Docker has.
#[track_caller]
fn engine_left_nothing(cell: &Cell, engine: &str) {
    let networks = if engine == "podman" {
        "podman"
    } else {
        "bridge host none"
    };
    let line = format!(
        "echo $({engine} ps --all --quiet; {engine} images --quiet --all; {engine} volume ls --quiet; ls $TMPDIR) ;\
         echo $({engine} network ls --format '{{{{.Name}}}}')"
    );
    assert_eq!(cell.run(&line), networks);
}

/// Runs all of `scripts/pod` with an engine in `cell`.
#[track_caller]
fn engine_runs_a_pod(cell: &Cell, name: &str) {
    let flag = format!("--engine {name}");
    held(&engine(cell, &flag).output().expect("scripts/pod"));
    engine_left_nothing(cell, name);

    // The same with images of the user, which must not be removed, and another port.
    let output = engine(cell, &format!("{flag} --keep --port 8081"))
        .output()
        .expect("scripts/pod");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (_, rest) = stdout.split_once("; to stop it: ").expect("how to stop it");
    assert_eq!(
        cell.run("curl --silent http://127.0.0.1:8081/"),
        "application 2"
    );
    for own in ["web", "app"] {
        cell.run(&format!(
            "{name} tag $({name} images --quiet '*/pause-*-{own}') localhost/own/{own}:1"
        ));
    }
    cell.run(rest);
    let own = "--web-image localhost/own/web:1 --app-image localhost/own/app:1";
    held(
        &engine(cell, &format!("{flag} {own}"))
            .output()
            .expect("scripts/pod"),
    );
    cell.run(&format!(
        "{name} rmi localhost/own/web:1 localhost/own/app:1"
    ));
    engine_left_nothing(cell, name);

    for signal in [SIGINT, SIGTERM] {
        let mut command = engine(cell, &flag);
        command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("scripts/pod");
        line_of(2, &mut child);
        // nsenter is its parent. The whole process group gets the signal, as from a terminal.
        // SAFETY: a process group that this test made.
        unsafe { libc::kill(-(child.id() as i32), signal) };
        child.wait().expect("its end");
        until("the script is gone", || {
            (!cell.output("pgrep -f 'scripts/[p]od'").status.success()).then_some(())
        });
        engine_left_nothing(cell, name);
    }

    cell.run(&format!(
        "head -c 7000 {}/dist/pause.oci.tar >/run/short.tar",
        root().display()
    ));
    let short = engine(cell, &format!("{flag} --archive /run/short.tar")).output();
    refused(
        &short.expect("scripts/pod"),
        "cannot load /run/short.tar: is it whole",
    );
    let none = engine(cell, &format!("{flag} --app-image localhost/none:1")).output();
    refused(&none.expect("scripts/pod"), "localhost/none:1");
    cell.run("busybox httpd -p 127.0.0.1:8080 -h /");
    refused(
        &engine(cell, &flag).output().expect("scripts/pod"),
        "port 8080 is in use",
    );
    engine_left_nothing(cell, name);
}

/// Waits until the line of `step` is printed, and returns it.
fn line_of(step: usize, child: &mut Child) -> String {
    let stdout = BufReader::new(child.stdout.as_mut().expect("a pipe"));
    let mut lines = stdout.lines().map_while(Result::ok);
    lines
        .find(|line| line.starts_with(&format!("{step}. ")))
        .expect("the step")
}

limited! {
    #[ignore = "needs scripts/test"]
    fn runs_a_pod_as_root() {
        let mut pod = PodRun::new("root", 0);
        held(&pod.run());
        pod.left_nothing();
    }

    #[ignore = "needs scripts/test"]
    fn runs_a_pod_as_anybody() {
        let mut pod = PodRun::new("nobody", NOBODY);
        held(&pod.run());
        pod.left_nothing();
    }

    #[ignore = "needs scripts/test"]
    fn keeps_a_pod_until_it_is_stopped() {
        let mut pod = PodRun::new("keep", NOBODY);
        let output = pod.command.arg("--keep").output().expect("scripts/pod");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let (_, rest) = stdout.split_once("To enter it: ").expect("how to enter it");
        let (enter, stop) = rest.split_once("; to stop it: ").expect("how to stop it");
        let shell = |command: &str| {
            let command = Command::new("sh").args(["-c", command]).uid(NOBODY).gid(NOBODY).output();
            String::from_utf8_lossy(&command.expect("sh").stdout).into_owned()
        };
        assert_eq!(shell(&format!("{enter} curl -s http://127.0.0.1/")), "application 2\n");
        shell(stop);
        pod.left_nothing();
    }

    /// Before the first step and after each: by a terminal, which signals the process group, and
    /// by kill, which signals the script alone.
    #[ignore = "needs scripts/test"]
    fn an_interruption_leaves_nothing() {
        for (step, signal) in (0..=5).flat_map(|step| [(step, SIGINT), (step, SIGTERM)]) {
            let mut pod = PodRun::new(&format!("interrupted-{step}-{signal}"), NOBODY);
            let log = File::create(pod.log()).expect("a log");
            pod.command.process_group(0).stdout(Stdio::piped()).stderr(log);
            let mut child = pod.command.spawn().expect("scripts/pod");
            match step {
                // Any time after its start.
                0 => until("a file of its own", || (pod.files() > 0).then_some(())),
                _ => drop(line_of(step, &mut child)),
            }
            let group = if signal == SIGINT { -1 } else { 1 };
            // SAFETY: a process or process group that this test made.
            unsafe { libc::kill(group * child.id() as i32, signal) };
            let status = child.wait().expect("its end");
            // 128 + signal; or 1 if the script noticed first that its pod had ended.
            let said = fs::read_to_string(pod.log()).expect("the log");
            assert!(!status.success(), "step {step}, signal {signal}: {said}");
            pod.left_nothing();
        }
    }

    #[ignore = "needs scripts/test"]
    fn refuses_what_it_does_not_know() {
        let mut pod = PodRun::new("flag", 0);
        refused(&pod.command.arg("--frob").output().expect("scripts/pod"), "unknown argument '--frob'");
        pod.left_nothing();
        let mut pod = PodRun::new("file", 0);
        refused(&pod.command.args(["--pause", "/none"]).output().expect("scripts/pod"), "'/none'");
        pod.left_nothing();
    }

    /// The line has the command that installs what is missing. Without apt-get it names all
    /// missing commands.
    #[ignore = "needs scripts/test"]
    fn names_what_is_missing() {
        for (hidden, text) in [
            (&["nginx", "curl"][..], "/scripts/install curl=curl nginx=nginx-light\n"),
            (&["nginx", "curl", "apt-get"], "these commands are missing, and there is no apt-get to install them: curl nginx\n"),
        ] {
            let pod = PodRun::new("missing", NOBODY);
            let commands = Folder::for_all("commands");
            // All commands but the hidden ones, from the folders of ordinary users.
            for folder in ["/usr/bin", "/usr/sbin"] {
                for entry in fs::read_dir(folder).expect("commands").flatten() {
                    let name = entry.file_name();
                    if !hidden.iter().any(|hidden| *hidden == name) {
                        let _ = std::os::unix::fs::symlink(entry.path(), commands.join(name));
                    }
                }
            }
            harness::run("chmod", &["a+rx", commands.to_str().expect("UTF-8")]);
            let script = pod.command.get_program().to_owned();
            let arguments: Vec<_> = pod.command.get_args().map(|argument| argument.to_owned()).collect();
            let hide = "mount -t tmpfs tmpfs /usr/sbin && exec \"$@\"";
            let output = Command::new("unshare")
                .args(["--mount", "sh", "-c", hide, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(script)
                .args(arguments)
                .env("PATH", &*commands)
                .env("TMPDIR", &pod.temporary)
                .output();
            refused(&output.expect("unshare"), text.trim_end());
            pod.left_nothing();
        }
    }

    /// A limit in an outer user namespace takes the place of the machine's setting.
    #[ignore = "needs scripts/test"]
    fn says_when_user_namespaces_are_forbidden() {
        let pod = PodRun::new("forbidden", NOBODY);
        let home = &pod.temporary;
        let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
        let output = Command::new("unshare")
            .args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script, "sh"])
            .arg(pod.command.get_program())
            .args(pod.command.get_args())
            .env("HOME", home)
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        refused(&output.expect("unshare"), "this machine forbids user namespaces");
    }

    #[ignore = "needs scripts/test"]
    fn runs_a_pod_with_podman() {
        engine_runs_a_pod(&Cell::start(), "podman");
    }

    #[ignore = "needs scripts/test"]
    fn runs_a_pod_with_docker() {
        engine_runs_a_pod(&Cell::docker(), "docker");
    }

    #[ignore = "needs scripts/test"]
    fn says_what_an_engine_lacks() {
        let cell = Cell::start();
        let says = |arguments: &str, text: &str| {
            refused(&engine(&cell, arguments).output().expect("scripts/pod"), text);
        };
        says("--engine docker", "docker does not run here: Cannot connect to the Docker daemon");
        says("--engine rkt", "podman or docker, not 'rkt'");
        says("--engine", "--engine wants a value");
        says("", "--engine podman or docker");
        says("--engine podman --pause /bin/true", "--pause is for bare namespaces");
        says("--engine podman --port 70000", "1 to 65535, not '70000'");
        says("--engine podman --archive /none", "wants a file, not '/none'");
        let options = "lowerdir=/usr/bin,upperdir=/run/upper,workdir=/run/work";
        cell.run(&format!("mkdir /run/upper /run/work; mount -t overlay -o {options} overlay /usr/bin; rm /usr/bin/podman"));
        says("--engine podman", "podman is not installed: apt-get install podman");
    }
}
