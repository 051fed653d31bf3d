//! A pod that crictl makes as a kubelet would: a sandbox and its containers.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use procfs_core::FromRead;
use procfs_core::process::{Stat, Status};
use serde_json::{Value, json};

use crate::node::{LIMIT, Node};
use harness::programs::{HOST, dist};
use harness::running::Cost;
use harness::{unique, until, until_at_most};

/// The PID namespace of a pod's containers. The numbers are those of CRI.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// One namespace for all containers (`shareProcessNamespace: true`).
    Pod = 0,
    Container = 1,
    /// The namespace of the node (`hostPID: true`).
    Node = 2,
}

pub struct CriPod<'a> {
    pub node: &'a Node,
    pub id: String,
    /// The PID of pause on the node.
    pub pid: i32,
    mode: Mode,
    config: String,
    removed: AtomicBool,
}

/// A container of a pod.
pub struct Container {
    pub id: String,
    pub pid: i32,
}

/// The identity and the cost of a pause process. Both stay the same as long as pause is not replaced and not woken.
#[derive(Debug, PartialEq)]
pub struct Pause {
    pid: i32,
    start: u64,
    pub cost: Cost,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "PID {}, {} context switches since its start", self.pid, self.cost.switches)
    }
}

pub fn status(node: &Node, pid: i32) -> Status {
    Status::from_file(node.proc(pid, "status")).expect("its status")
}

/// Reads the identity and the cost of a pause process.
pub fn pause(node: &Node, pid: i32) -> Pause {
    let stat = Stat::from_file(node.proc(pid, "stat")).expect("its stat");
    Pause { pid, start: stat.starttime, cost: Cost::of(&node.proc(pid, "")) }
}

/// Asserts that a process runs the file in `dist/`.
pub fn is_ours(node: &Node, pid: i32) {
    let [file, ours] = [node.proc(pid, "exe"), dist(&HOST)].map(|file| fs::read(file).expect("a program"));
    assert!(file == ours, "the node's sandboxes run another pause, of {} bytes", file.len());
}

/// Asserts that the pause of a restricted pod has no rights, and returns its user.
pub fn confined(node: &Node, pid: i32) -> String {
    let status = status(node, pid);
    assert_eq!(status.seccomp, Some(2), "no filter of seccomp");
    // CRI-O starts pause as root with some capabilities, whatever the pod asks for.
    if !node.crio {
        assert_eq!((status.capprm, status.capeff), (0, 0), "capabilities");
    }
    format!("pause as uid {}, capabilities {:x}, seccomp", status.ruid, status.capeff)
}

/// The PIDs of the children of a process, zombies included.
pub fn children(node: &Node, pid: i32) -> Vec<String> {
    let children = fs::read_to_string(node.proc(pid, &format!("task/{pid}/children")));
    children.expect("its children").split_whitespace().map(String::from).collect()
}

/// Makes 200 orphans, whose new parent is the pause `pid`, kills them, and waits until pause has no child. `exec` runs
/// a shell command in a container.
pub fn orphans(node: &Node, pid: i32, exec: impl FnOnce(&str)) {
    let before = pause(node, pid);
    exec("for i in $(seq 200); do (sleep 600 >/dev/null 2>&1 &); done");
    let all = until("pause is the parent of 200 orphans", || Some(children(node, pid)).filter(|all| all.len() == 200));
    node.sh(&format!("kill {}", all.join(" ")));
    until("they are gone", || children(node, pid).is_empty().then_some(()));
    assert_eq!(pause(node, pid), before, "pause was woken");
}

/// Makes 1,000 orphans, of which the pause `pid` traces 100, and waits until it has reaped all. `exec` runs a shell
/// command in a container. Returns how often pause was woken, for the evidence.
pub fn traced_orphans(node: &Node, pid: i32, exec: impl FnOnce(&str)) -> String {
    let sleeps = || status(node, pid).voluntary_ctxt_switches.expect("Linux 2.6.23");
    let before = sleeps();
    exec("/orphans traced");
    until("they are gone", || children(node, pid).is_empty().then_some(()));
    let woken = sleeps() - before;
    // On a busy machine the kernel may let pause wait for a lock while it reaps, which counts as well.
    assert!((1..=200).contains(&woken), "woken {woken} times");
    format!("0 zombies; woken {woken} times by 1,000 orphans of which it traces 100")
}

impl<'a> CriPod<'a> {
    pub fn new(node: &'a Node, mode: Mode) -> Self {
        Self::with(node, mode, json!({}), "")
    }

    /// The same with more fields for the security context, and options for `crictl runp`.
    pub fn with(node: &'a Node, mode: Mode, security: Value, options: &str) -> Self {
        let name = unique("e2e");
        let config = json!({
            "metadata": {"name": name, "namespace": "pause-e2e", "uid": name},
            "hostname": "pod",
            "log_directory": format!("/run/log/{name}"),
            "linux": {"cgroup_parent": node.parent(), "security_context": context(mode, security)},
        });
        let config = node.file(&format!("{name}.json"), &config).display().to_string();
        let id = node.crictl(&format!("runp {options} {config}"));
        let mut pod = Self { node, pid: 0, id, mode, config, removed: AtomicBool::new(false) };
        pod.pid = node.pause_of(&pod.id);
        pod
    }

    /// Starts a container from one of the images.
    pub fn start(&self, name: &str, image: &str) -> Container {
        self.start_with(name, image, json!({}))
    }

    /// The same with more fields for the security context.
    pub fn start_with(&self, name: &str, image: &str, security: Value) -> Container {
        let config = json!({
            "metadata": {"name": name},
            "image": {"image": format!("localhost/e2e:{image}")},
            "log_path": format!("{name}.log"),
            "linux": {"security_context": context(self.mode, security)},
        });
        let file = self.node.file(&format!("{}-{name}.json", self.id), &config);
        let id = self.node.crictl(&format!("create {} {} {}", self.id, file.display(), self.config));
        self.node.crictl(&format!("start {id}"));
        let pid = self.node.inspect(&format!("inspect {id}"))["info"]["pid"].as_i64().expect("its PID") as i32;
        Container { id, pid }
    }

    /// Runs a shell command in a container.
    pub fn exec(&self, container: &Container, line: &str) -> String {
        self.node.crictl(&format!("exec {} sh -c '{line}'", container.id))
    }

    pub fn pause(&self) -> Pause {
        pause(self.node, self.pid)
    }

    /// The name of a namespace of a process, which has its inode number.
    pub fn namespace(&self, pid: i32, name: &str) -> String {
        let link = fs::read_link(self.node.proc(pid, &format!("ns/{name}")));
        link.expect("a namespace").display().to_string()
    }

    /// What crictl shows of the sandbox.
    pub fn inspect(&self) -> Value {
        self.node.inspect(&format!("inspectp {}", self.id))
    }

    pub fn state(&self) -> String {
        self.inspect()["status"]["state"].as_str().expect("a state").to_string()
    }

    /// Sends a signal to pause from the node.
    pub fn kill(&self, signal: &str) {
        self.node.sh(&format!("kill -{signal} {}", self.pid));
    }

    /// Waits until the runtime reports the end of pause, and asserts its exit status.
    pub fn ended(&self, status: i64) {
        until_at_most(*LIMIT, "the sandbox is not ready", || (self.state() == "SANDBOX_NOTREADY").then_some(()));
        assert_eq!(self.node.exit_status(&self.id), status);
    }

    /// Stops and removes the pod, as a kubelet does.
    pub fn remove(&self) {
        self.node.crictl(&format!("stopp {}", self.id));
        // containerd may not have seen yet that a container ended with pause.
        until_at_most(*LIMIT, "the sandbox can be removed", || {
            self.node.crictl_output(&format!("rmp {}", self.id)).status.success().then_some(())
        });
        self.removed.store(true, Ordering::Relaxed);
    }
}

impl Drop for CriPod<'_> {
    fn drop(&mut self) {
        if !self.removed.load(Ordering::Relaxed) {
            self.node.crictl_output(&format!("rmp --force {}", self.id));
        }
    }
}

/// A security context: the PID namespace, and more fields.
fn context(mode: Mode, mut more: Value) -> Value {
    more["namespace_options"]["pid"] = json!(mode as i32);
    more
}
