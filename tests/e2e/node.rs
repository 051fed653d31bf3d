//! A node: a container runtime with a CRI endpoint, in a container environment or on a machine that was booted for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::work::{PAUSE, Work, bin, on_machine};
use harness::cell::Cell;
use harness::cgroup::is_unified;
use harness::until_at_most;

#[derive(Clone, Copy, PartialEq)]
pub enum Runtime {
    Containerd1,
    Containerd2,
    Crio,
}

pub struct Node {
    /// The name and version of the runtime.
    pub name: String,
    /// The versions of the runtime and of what it starts and depends on.
    pub programs: Vec<String>,
    pub crio: bool,
    pub endpoint: &'static str,
    /// The `ctr` command for the containerd namespace of Kubernetes.
    pub ctr: String,
    runtime: Option<Runtime>,
    /// Whether the runtime uses the systemd cgroup driver.
    systemd: bool,
    /// The container environment of the node, unless it is on a machine.
    cell: Option<Cell>,
    /// The folder for the configuration files that crictl reads.
    folder: PathBuf,
    logs: PathBuf,
    events: Option<Child>,
}

/// The time limit for a daemon to start and for a kubelet or runtime to act, which may wait for their own timers.
pub static LIMIT: LazyLock<Duration> = LazyLock::new(|| Duration::from_secs(90).max(*harness::LIMIT));

const ONE_IN_CELL: &str =
    concat!(include_str!("config/containerd-1.toml"), include_str!("config/containerd-1-cell.toml"));
const ONE_ON_MACHINE: &str =
    concat!(include_str!("config/containerd-1.toml"), include_str!("config/containerd-1-systemd.toml"));
const TWO_IN_CELL: &str =
    concat!(include_str!("config/containerd-2.toml"), include_str!("config/containerd-2-cell.toml"));
const TWO_ON_MACHINE: &str =
    concat!(include_str!("config/containerd-2.toml"), include_str!("config/containerd-2-systemd.toml"));

/// The beginning of the names of the units of systemd that this run starts.
const UNIT: &str = "pause-e2e";

impl Node {
    /// Starts a runtime that uses `pause` as its sandbox image.
    pub fn new(runtime: Runtime, pause: &str, work: &Work) -> Self {
        let cell = (!on_machine()).then(|| Self::new_cell(runtime));
        let crio = runtime == Runtime::Crio;
        let endpoint = if crio { "unix:///run/crio/crio.sock" } else { "unix:///run/containerd/containerd.sock" };
        let mut node = Self::connect(endpoint, cell, work);
        node.runtime = Some(runtime);
        node.write("/etc/cni/net.d/10-pods.conflist", include_str!("config/cni.conflist"));
        // The configuration files of docs/switch.md, unchanged but for the image name.
        let configure = |path: &str, text: &str| node.write(path, &text.replace(PAUSE, pause));
        configure("/etc/containerd/certs.d/_default/hosts.toml", "[host.'http://127.0.0.1:5000']\n");
        configure(
            "/etc/containers/registries.conf",
            "[[registry]]\nlocation = '127.0.0.1:5000'\ninsecure = true\n\
             [[registry]]\nprefix = '*.example'\nlocation = '127.0.0.1:5000'\ninsecure = true\n",
        );
        if crio {
            configure("/etc/crio/crio.conf.d/10-pause.conf", include_str!("config/crio.conf"));
            configure("/etc/crio/crio.conf.d/20-cell.conf", include_str!("config/crio-cell.conf"));
            configure("/etc/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
            configure("/run/wrappers/runc", include_str!("config/runc-wrapper"));
            node.sh("chmod 755 /run/wrappers/runc");
        } else {
            // A second file has what is of the machine, not of pause.
            let config = match (runtime, node.is_in_cell()) {
                (Runtime::Containerd1, true) => ONE_IN_CELL,
                (Runtime::Containerd1, false) => ONE_ON_MACHINE,
                (_, true) => TWO_IN_CELL,
                (_, false) => TWO_ON_MACHINE,
            };
            configure("/etc/containerd/config.toml", config);
        }
        node.start();
        node
    }

    fn new_cell(runtime: Runtime) -> Cell {
        let mut cell = Cell::start();
        let mut path = std::env::var("PATH").expect("PATH");
        if runtime == Runtime::Containerd1 {
            // An old containerd, and what it starts, are those of the machine.
            cell.run(
                "mkdir /run/installed; for program in containerd containerd-shim-runc-v2 ctr runc; do
                     ln -s $(ls /usr/bin/$program /usr/sbin/$program 2>/dev/null | head -n 1) /run/installed; done
                 /run/installed/containerd --version | grep -q ' 1\\.'",
            );
            path = format!("/run/installed:{path}");
        }
        cell.path = Some(path);
        cell
    }

    /// A node whose runtime runs already.
    pub fn connect(endpoint: &'static str, cell: Option<Cell>, work: &Work) -> Self {
        let folder = work.folder.join(format!("node-{}", cell.as_ref().map_or(1, |cell| cell.init)));
        let seconds = LIMIT.as_secs();
        let config = format!("runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\ntimeout: {seconds}\n");
        harness::write(&folder.join("crictl.yaml"), &config);
        Self {
            name: String::new(),
            programs: Vec::new(),
            crio: endpoint.contains("crio"),
            endpoint,
            ctr: format!("ctr --address {} --namespace k8s.io", endpoint.trim_start_matches("unix://")),
            runtime: None,
            systemd: false,
            cell,
            folder,
            logs: work.logs.clone(),
            events: None,
        }
    }

    /// Writes a file of the node, with the paths of this machine filled in.
    pub fn write(&self, path: &str, text: &str) {
        let cni = ["/usr/lib/cni", "/opt/cni/bin"].into_iter().find(|folder| Path::new(folder).join("bridge").exists());
        let text = text.replace("@CNI@", cni.expect("CNI plugins: run scripts/setup"));
        let text = text.replace("@BIN@", bin().to_str().expect("UTF-8")).replace("@ENDPOINT@", self.endpoint);
        harness::write(&self.path(path), &text);
    }

    /// Starts the runtime, or restarts it where it has a unit.
    pub fn start(&self) {
        let ready = format!("{} version", self.crictl_command());
        if self.cell.is_none() && self.runtime == Some(Runtime::Containerd1) {
            // Debian's containerd has a unit.
            self.sh("systemctl restart containerd");
            self.answers("containerd", &ready);
        } else {
            self.daemon(if self.crio { "crio" } else { "containerd" }, &ready);
        }
    }

    /// Reads the versions, and records the events of containerd.
    pub fn read_versions(&mut self) {
        let version = self.crictl("version");
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
        let number = field("RuntimeVersion:").trim_start_matches('v');
        let number = number.split(['+', '~', '-']).next().expect("a part");
        self.name = format!("{} {number}", field("RuntimeName:"));
        self.programs.push(self.name.clone());
        self.programs.push(self.sh("runc --version | head -n1").replace(" version", ""));
        // containerd before 2.0 does not implement this call, but shows its settings.
        let config = self.crictl_output("runtime-config").stdout;
        let options = &self.inspect("info")["config"]["containerd"]["runtimes"]["runc"]["options"];
        self.systemd = String::from_utf8_lossy(&config).contains("SYSTEMD") || options["SystemdCgroup"] == true;
        self.programs.extend(surroundings(self.driver()));
        if !self.crio {
            let events = fs::File::create(self.folder.join("events")).expect("a file");
            let mut command = self.command("sh");
            command.args(["-c", &format!("exec {} events 2>&1", self.ctr)]).stdout(events);
            self.events = Some(command.spawn().expect("ctr"));
        }
    }

    /// The path, outside of the node's cell, of a file of the node.
    pub fn path(&self, path: &str) -> PathBuf {
        self.cell.as_ref().map_or(path.into(), |cell| PathBuf::from(format!("/proc/{}/root{path}", cell.init)))
    }

    fn command(&self, program: &str) -> Command {
        if let Some(cell) = &self.cell {
            return cell.command(program);
        }
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell command and waits until it exits.
    pub fn output(&self, line: &str) -> Output {
        self.command("sh").args(["-ec", line]).output().expect("sh")
    }

    /// Runs a shell command that must succeed, and returns its standard output.
    pub fn sh(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_string();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {} {stdout}", stderr.trim());
        stdout
    }

    /// The cell of a node that has one.
    pub fn cell(&self) -> &Cell {
        self.cell.as_ref().expect("a node in a cell")
    }

    /// Starts a daemon on the node, and waits until the command `ready` succeeds.
    pub fn daemon(&self, line: &str, ready: &str) {
        if let Some(cell) = &self.cell {
            return cell.daemon(line, ready);
        }
        let (name, bin) = (line.split(' ').next().expect("a name"), bin());
        // What Debian's units of such daemons say: their containers are not theirs to kill.
        self.sh(&format!(
            "systemd-run --quiet --collect --unit={UNIT}-{name} --property=Delegate=yes --property=KillMode=process \
             --property=TasksMax=infinity --setenv=PATH=$PATH {}/{line}",
            bin.display()
        ));
        self.answers(name, ready);
    }

    fn answers(&self, name: &str, ready: &str) {
        until_at_most(*LIMIT, &format!("{name} answers"), || self.output(ready).status.success().then_some(()));
    }

    pub fn crictl_command(&self) -> String {
        format!("crictl --config {}/crictl.yaml", self.folder.display())
    }

    pub fn crictl(&self, line: &str) -> String {
        let output = self.crictl_output(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // The last line is crictl's own error; warnings of its gRPC client come before.
        assert!(output.status.success(), "crictl {line}: {}", stderr.lines().last().unwrap_or_default());
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    /// Whether the runtime pins images, as Debian's containerd 1.6.20 does not (containerd#8720, #9382).
    pub fn pins(&self) -> bool {
        !self.name.contains(" 1.6.")
    }

    pub fn crictl_output(&self, line: &str) -> Output {
        self.output(&format!("{} {line}", self.crictl_command()))
    }

    /// Runs a command of crictl that prints JSON.
    pub fn inspect(&self, line: &str) -> Value {
        serde_json::from_str(&self.crictl(line)).expect("JSON")
    }

    /// The PID of the pause of a sandbox, if that runs.
    pub fn find_pause(&self, sandbox: &str) -> Option<i32> {
        let output = self.crictl_output(&format!("inspectp {sandbox}"));
        let info: Value = serde_json::from_slice(&output.stdout).ok()?;
        let pid = info["info"]["pid"].as_i64()? as i32;
        // CRI-O may report the process while it is still that of runc, about to start pause.
        let name = fs::read_to_string(self.proc(pid, "comm")).ok()?;
        (name != "runc:[2:INIT]\n").then_some(pid)
    }

    /// The PID of the pause of a sandbox.
    pub fn pause_of(&self, sandbox: &str) -> i32 {
        until_at_most(*LIMIT, "the sandbox has a pause that runs", || self.find_pause(sandbox))
    }

    /// Writes a file that crictl will read.
    pub fn file(&self, name: &str, content: &Value) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, content.to_string()).expect("a file");
        path
    }

    /// The path of a file in /proc for a process, given its PID on the node.
    pub fn proc(&self, pid: i32, file: &str) -> PathBuf {
        self.path(&format!("/proc/{pid}/{file}"))
    }

    /// Whether the node is in a cell, beside others and on the kernel of this machine.
    pub fn is_in_cell(&self) -> bool {
        self.cell.is_some()
    }

    /// The cgroup driver of the runtime, and so of the kubelet.
    pub fn driver(&self) -> &'static str {
        if self.systemd { "systemd" } else { "cgroupfs" }
    }

    /// The parent control group of the pods.
    pub fn parent(&self) -> &str {
        if self.systemd { "pause-e2e.slice" } else { "/pause-e2e" }
    }

    /// The exit status of the pause of a sandbox, as the runtime recorded it.
    pub fn exit_status(&self, sandbox: &str) -> i64 {
        let exit = format!("/var/lib/containers/storage/overlay-containers/{sandbox}/userdata/exit");
        until_at_most(*LIMIT, "the runtime says how pause exited", || {
            if self.crio {
                return fs::read_to_string(self.path(&exit)).ok()?.trim().parse().ok();
            }
            let events = fs::read_to_string(self.folder.join("events")).expect("events");
            let mut events = events.lines().filter_map(|line| line.split_once("/tasks/exit "));
            let event = events.find_map(|(_, event)| {
                let event: Value = serde_json::from_str(event).ok()?;
                (event["id"] == sandbox).then_some(event)
            })?;
            Some(event["exit_status"].as_i64().unwrap_or(0)) // protobuf leaves zeros out
        })
    }
}

/// What a result depends on beside the runtime: control groups, their driver, the security module (LSM) that confines
/// containers, the kernel and the architecture.
pub fn surroundings(driver: &str) -> Vec<String> {
    let version = match (is_unified(), Path::new("/sys/fs/cgroup/unified").exists()) {
        (true, _) => "cgroup v2",
        (_, true) => "cgroup v1 and v2 (hybrid)",
        _ => "cgroup v1",
    };
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let lsm = if apparmor.is_ok_and(|enabled| enabled.starts_with('Y')) { "AppArmor" } else { "no AppArmor" };
    let kernel = harness::run("uname", &["-srm"]);
    vec![version.into(), format!("driver {driver}"), lsm.into(), kernel.trim().into()]
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut events) = self.events.take() {
            let _ = events.kill();
            let _ = events.wait();
        }
        let name = self.name.replace(' ', "-");
        let Some(cell) = &self.cell else {
            let crictl = self.crictl_command();
            self.output(&format!(
                "{crictl} pods --quiet | xargs -r {crictl} rmp --force; systemctl stop containerd '{UNIT}-*'
                 journalctl --boot --unit=containerd --unit='{UNIT}-*' >{}/{name}.log",
                self.logs.display()
            ));
            return;
        };
        let logs = self.logs.join(format!("{name}-{}", cell.init));
        let _ = fs::create_dir_all(&logs);
        for entry in fs::read_dir(self.path("/run")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let _ = fs::copy(entry.path(), logs.join(entry.file_name()));
            }
        }
    }
}
