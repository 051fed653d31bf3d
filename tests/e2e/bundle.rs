//! An OCI bundle with pause and a busybox, run by an OCI runtime without an engine.

use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::json;

use crate::node::LIMIT;
use crate::work::Work;
use harness::programs::{HOST, dist};
use harness::{run, text, unique, until_at_most};

/// An OCI runtime, and the options that it needs on this machine.
#[derive(Clone)]
pub struct Runtime {
    pub name: &'static str,
    pub program: PathBuf,
    pub options: Vec<String>,
    /// Whether it needs a /sys/fs/cgroup of version 2 alone, which this machine does not have.
    pub unified: bool,
}

impl Runtime {
    fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        // A mount namespace of its own: what is mounted there is seen by nobody else.
        command.args(["--mount", "sh", "-ec"]).arg(match self.unified {
            true => "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"",
            false => "exec \"$@\"",
        });
        command.arg("sh").arg(&self.program).args(&self.options).stdin(Stdio::null());
        command
    }

    /// Its name and version.
    pub fn version(&self) -> String {
        let output = String::from_utf8_lossy(&self.output(&["--version"]).stdout).into_owned();
        let line = output.lines().next().unwrap_or_default();
        format!("{} {}", self.name, line.rsplit([' ', '-']).next().unwrap_or_default())
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let output = self.command().args(arguments).output();
        output.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// A container with a root that is read-only, a `/tmp` and a network namespace without interfaces. It is removed when
/// it goes out of scope.
pub struct Bundle {
    runtime: Runtime,
    pub id: String,
    folder: PathBuf,
    /// The runtime in the foreground, and what the container prints.
    running: RefCell<Option<(Child, JoinHandle<String>)>>,
}

impl Bundle {
    /// Makes a bundle that runs `arguments`.
    pub fn new(work: &Work, runtime: &Runtime, arguments: &[&str]) -> Self {
        let tree = work.folder.join("bundle");
        if !tree.exists() {
            run("cp", &["-a", text(&work.folder.join("root")), text(&tree)]);
            run("cp", &[text(&dist(&HOST)), text(&tree.join("pause"))]);
        }
        let id = unique(runtime.name);
        let folder = work.folder.join(&id);
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|name| json!({"type": name}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": arguments,
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                // For kill(2) from another process of the container.
                "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
                "noNewPrivileges": true,
            },
            "root": {"path": tree, "readonly": true},
            "hostname": "pod",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"namespaces": namespaces},
        });
        harness::write(&folder.join("config.json"), &config.to_string());
        Self { runtime: runtime.clone(), id, folder, running: RefCell::new(None) }
    }

    /// A container that runs `arguments`.
    pub fn started(work: &Work, runtime: &Runtime, arguments: &[&str]) -> Self {
        let bundle = Self::new(work, runtime, arguments);
        bundle.start("run", &[]);
        bundle
    }

    /// A container in which pause sleeps.
    pub fn sleeping(work: &Work, runtime: &Runtime, arguments: &[&str]) -> Self {
        let bundle = Self::started(work, runtime, arguments);
        bundle.sleeps();
        bundle
    }

    /// Runs a command of the runtime for this container: its name, and what stands before and after the ID.
    pub fn runtime(&self, command: &str, options: &[&str], more: &[&str]) -> String {
        let output = self.runtime.output(&[&[command], options, &[&self.id], more].concat());
        assert!(output.status.success(), "{} {command} {options:?} {more:?}: {output:?}", self.runtime.name);
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    /// Starts the container, by `run` or by `restore` with its options.
    pub fn start(&self, command: &str, options: &[&str]) {
        // gVisor overwrites an output that is a plain file.
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let bundle = format!("--bundle={}", self.folder.display());
        let mut run = self.runtime.command();
        run.arg(command).arg(bundle).args(options).arg(&self.id);
        run.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
        let child = run.spawn().expect("unshare");
        drop(run); // and its copy of the pipe, or the reader would never see the end
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = reader.read_to_string(&mut text);
            text
        });
        *self.running.borrow_mut() = Some((child, output));
    }

    /// Waits until pause runs, and sleeps.
    pub fn sleeps(&self) {
        until_at_most(*LIMIT, "pause sleeps in the container", || {
            let line = "test \"$(cut -d' ' -f2,3 /proc/1/stat)\" = '(pause) S'";
            self.runtime.output(&["exec", &self.id, "sh", "-c", line]).status.success().then_some(())
        });
    }

    /// Runs a shell command in the container.
    pub fn exec(&self, line: &str) -> String {
        self.runtime("exec", &[], &["sh", "-ec", line])
    }

    pub fn kill(&self, signal: &str) {
        self.runtime("kill", &[], &[signal]);
    }

    /// Waits for the end of pause: its exit status, and what it printed.
    pub fn end(&self) -> (Option<i32>, String) {
        let (mut child, output) = self.running.take().expect("it was started");
        let status = until_at_most(*LIMIT, "the container ends", || child.try_wait().expect("its status"));
        (status.code(), output.join().expect("its output").trim().to_string())
    }

    /// The states of the children of pause, as the container sees them: `S` or `Z`.
    pub fn children(&self) -> String {
        // Of /proc/PID/stat the third field is the state, and the fourth the parent.
        self.exec("cat /proc/[0-9]*/stat 2>/dev/null | awk '$4 == 1 { printf \"%s\", $3 }'")
    }

    /// Waits until pause has no child.
    pub fn childless(&self) {
        until_at_most(*LIMIT, "the orphans are gone", || self.children().is_empty().then_some(()));
    }

    /// How often pause was scheduled.
    pub fn switches(&self) -> u64 {
        self.exec("awk '/ctxt_switches/ { n += $2 } END { print n }' /proc/1/status").parse().expect("a number")
    }

    /// Makes 200 orphans, ends them, and waits until no child is left.
    pub fn orphans(&self) {
        // Each gives up the output of the command first, or that would not end before it.
        self.exec("mkfifo /tmp/gate; for i in $(seq 200); do (exec >/dev/null 2>&1; read -r _ </tmp/gate) & done");
        until_at_most(*LIMIT, "pause is the parent of 200 orphans", || {
            (self.children() == "S".repeat(200)).then_some(())
        });
        self.exec(": >/tmp/gate; rm /tmp/gate");
        self.childless();
    }

    /// Removes the container, also one that runs.
    pub fn delete(&self) {
        self.runtime.output(&["delete", "--force", &self.id]);
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.delete();
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
