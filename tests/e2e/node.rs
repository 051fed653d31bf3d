//! A node: a container runtime with a CRI endpoint, in a cell, on a machine that was booted for it, or
//! one that runs already.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::Work;
use crate::images::{Images, PAUSE, PREVIOUS};
use harness::cell::Cell;
use harness::cgroup::is_unified;
use harness::programs::root;
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
    /// The versions of the runtime and of the programs that it starts.
    pub programs: Vec<String>,
    pub crio: bool,
    pub endpoint: String,
    /// The `ctr` command for the containerd namespace of Kubernetes.
    pub ctr: String,
    /// Nothing for a runtime that ran before (`--endpoint`).
    runtime: Option<Runtime>,
    /// Whether the runtime uses the systemd cgroup driver.
    systemd: bool,
    /// The cell of the node, unless it is on a machine or was there before.
    cell: Option<Cell>,
    /// The folder for the configuration files that crictl reads.
    folder: PathBuf,
    logs: PathBuf,
    events: Option<Child>,
}

/// The time limit for a daemon to start and for a kubelet or runtime to act, which may wait
/// for their own timers.
pub static LIMIT: LazyLock<Duration> =
    LazyLock::new(|| Duration::from_secs(90).max(*harness::LIMIT));

/// The beginning of the names of the units of systemd that this run starts.
const UNIT: &str = "pause-e2e";

static ON_MACHINE: OnceLock<()> = OnceLock::new();

/// Says that nodes are on the machine in which this program runs, and not in cells.
pub fn on_machine() {
    let _ = ON_MACHINE.set(());
    harness::programs::are_built();
}

fn is_on_machine() -> bool {
    ON_MACHINE.get().is_some()
}

/// The folder with the programs that were built for a node. On a machine this program is in it.
pub fn bin() -> PathBuf {
    match is_on_machine() {
        true => std::env::current_exe().expect("this program").with_file_name(""),
        false => root().join("target/e2e/bin"),
    }
}

/// The PATH of a node: what was built comes before what is installed.
fn path() -> String {
    let installed = std::env::var("PATH").expect("PATH");
    format!("{}:{installed}", bin().display())
}

/// The path, outside of a cell, of a file in it.
pub fn path_in(cell: &Cell, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", cell.init))
}

impl Node {
    /// Starts a runtime that uses `pause` as its sandbox image, and imports the images.
    pub fn new(runtime: Runtime, pause: &str, work: &Work, images: &Images) -> Self {
        let cell = (!is_on_machine()).then(|| Self::new_cell(runtime, work));
        Self::start_in(cell, runtime, pause, work, images)
    }

    /// The same in a cell, also on a machine.
    pub fn in_cell(runtime: Runtime, pause: &str, work: &Work, images: &Images) -> Self {
        Self::start_in(Some(Self::new_cell(runtime, work)), runtime, pause, work, images)
    }

    fn start_in(
        cell: Option<Cell>,
        runtime: Runtime,
        pause: &str,
        work: &Work,
        images: &Images,
    ) -> Self {
        let endpoint = match runtime {
            Runtime::Crio => "unix:///run/crio/crio.sock",
            _ => "unix:///run/containerd/containerd.sock",
        };
        let mut node = Self::unconnected(endpoint, cell, work);
        node.runtime = Some(runtime);
        node.write("/etc/cni/net.d/10-pods.conflist", include_str!("config/cni.conflist"));
        // The configuration files of docs/switch.md, unchanged but for the image name, and for each a second file
        // with what a cell needs in addition.
        let configure = |path: &str, text: &str| node.write(path, &text.replace(PAUSE, pause));
        // A registry in the cell is the mirror of every other.
        configure(
            "/etc/containerd/certs.d/_default/hosts.toml",
            "[host.'http://127.0.0.1:5000']\n",
        );
        configure(
            "/etc/containers/registries.conf",
            "[[registry]]\nlocation = '127.0.0.1:5000'\ninsecure = true\n\
             [[registry]]\nprefix = '*.example'\nlocation = '127.0.0.1:5000'\ninsecure = true\n",
        );
        match runtime {
            Runtime::Containerd1 => {
                let rest = match node.cell {
                    None => include_str!("config/containerd-1-systemd.toml"),
                    Some(_) => include_str!("config/containerd-1-cell.toml"),
                };
                let config = include_str!("config/containerd-1.toml").to_string() + rest;
                configure("/etc/containerd/config.toml", &config);
            }
            Runtime::Containerd2 => {
                let rest = match node.cell {
                    None => include_str!("config/containerd-2-systemd.toml"),
                    Some(_) => include_str!("config/containerd-2-cell.toml"),
                };
                let mut config = include_str!("config/containerd-2.toml").to_string() + rest;
                if bin().join("runc-userns").exists() {
                    config += include_str!("config/containerd-2-userns.toml");
                }
                configure("/etc/containerd/config.toml", &config);
            }
            Runtime::Crio => {
                configure("/etc/crio/crio.conf.d/10-pause.conf", include_str!("config/crio.conf"));
                configure(
                    "/etc/crio/crio.conf.d/20-cell.conf",
                    include_str!("config/crio-cell.conf"),
                );
                configure(
                    "/etc/containers/policy.json",
                    r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
                );
                for name in ["runc", "runc-userns"] {
                    let path = format!("/run/wrappers/{name}");
                    configure(&path, include_str!("config/runc-wrapper"));
                    node.sh(&format!("chmod 755 {path}"));
                }
            }
        }
        node.start();
        images.import(&node);
        // A node that will be switched gets pause by pause-switch.
        if pause != PREVIOUS {
            images.import_pause(&node);
        }
        if runtime == Runtime::Containerd1 && pause != PREVIOUS {
            node.sh(&format!("{} images label {pause} io.cri-containerd.pinned=pinned", node.ctr));
            if node.cell.is_some() {
                node.sh("pkill -x containerd");
            }
            node.start();
        }
        node.connect();
        node
    }

    fn new_cell(runtime: Runtime, work: &Work) -> Cell {
        let mut cell = Cell::start();
        let cells = work.logs.join("cells");
        let cells = fs::File::options().create(true).append(true).open(cells);
        writeln!(cells.expect("a log"), "{}", cell.name).expect("a log");
        let mut path = path();
        if runtime == Runtime::Containerd1 {
            // The programs of an old containerd are those of the machine.
            cell.run(
                "mkdir /run/containerd-1
                 for program in containerd containerd-shim-runc-v2 ctr; do
                     ln -s $(command -v $program) /run/containerd-1
                 done",
            );
            path = format!("/run/containerd-1:{path}");
        }
        cell.path = Some(path);
        cell
    }

    /// Uses a runtime that runs already.
    pub fn at(endpoint: &str, work: &Work, images: &Images) -> Self {
        let mut node = Self::unconnected(endpoint, None, work);
        node.connect();
        images.import(&node);
        node
    }

    fn unconnected(endpoint: &str, cell: Option<Cell>, work: &Work) -> Self {
        let folder = work.folder.join(match &cell {
            Some(cell) => format!("node-{}", cell.init),
            None => "node".into(),
        });
        fs::create_dir_all(&folder).expect("a folder");
        let config = format!(
            "runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\ntimeout: {}\n",
            LIMIT.as_secs()
        );
        fs::write(folder.join("crictl.yaml"), config).expect("a file");
        Self {
            name: String::new(),
            programs: Vec::new(),
            crio: endpoint.contains("crio"),
            endpoint: endpoint.into(),
            ctr: format!(
                "ctr --address {} --namespace k8s.io",
                endpoint.trim_start_matches("unix://")
            ),
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
        let mut cni = ["/usr/lib/cni", "/opt/cni/bin"].into_iter();
        let cni = cni.find(|folder| Path::new(folder).join("bridge").exists());
        let text = text
            .replace(
                "@CNI@",
                cni.expect("CNI plugins: apt-get install containernetworking-plugins"),
            )
            .replace("@BIN@", bin().to_str().expect("UTF-8"))
            .replace("@ENDPOINT@", &self.endpoint);
        harness::write(&self.path(path), &text);
    }

    /// Starts the runtime, or restarts it where it has a unit.
    pub fn start(&self) {
        let ready = format!("{} version", self.crictl_command());
        match (&self.cell, self.runtime) {
            // Debian's containerd has a unit.
            (None, Some(Runtime::Containerd1)) => {
                self.sh("systemctl restart containerd");
                self.answers("containerd", &ready);
            }
            (_, Some(Runtime::Crio)) => self.daemon("crio", &ready),
            _ => self.daemon("containerd", &ready),
        }
    }

    /// Reads the versions, and records the events of containerd.
    fn connect(&mut self) {
        let version = self.crictl("version");
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.expect("crictl version has it").trim().to_string()
        };
        let (name, version) = (field("RuntimeName:"), field("RuntimeVersion:"));
        let version =
            version.trim_start_matches('v').split(['+', '~', '-']).next().expect("a part");
        self.name = format!("{name} {version}");
        self.crio = name == "cri-o";
        self.programs.push(self.name.clone());
        if self.runtime.is_some() {
            let parts: &[_] = if self.crio { &["runc", "conmon"] } else { &["runc"] };
            for part in parts {
                let line = self.sh(&format!("{part} --version | head -n1"));
                self.programs.push(line.replace(" version", ""));
            }
        }
        // containerd before 2.0 does not implement this call, but shows its settings.
        let config = self.crictl_output("runtime-config").stdout;
        let info = self.inspect("info");
        let options = &info["config"]["containerd"]["runtimes"]["runc"]["options"];
        self.systemd = String::from_utf8_lossy(&config).contains("SYSTEMD")
            || options["SystemdCgroup"] == true;
        self.programs.extend(surroundings(self.driver()));
        if !self.crio {
            let events = fs::File::create(self.folder.join("events")).expect("a file");
            let mut command = self.command("sh");
            let line = format!("exec {} events 2>&1", self.ctr);
            command.args(["-c", &line]).stdout(events);
            self.events = Some(command.spawn().expect("ctr"));
        }
    }

    /// The path, outside of the node's cell, of a file of the node.
    pub fn path(&self, path: &str) -> PathBuf {
        self.cell.as_ref().map_or(path.into(), |cell| path_in(cell, path))
    }

    /// The folder for logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    fn command(&self, program: &str) -> Command {
        if let Some(cell) = &self.cell {
            return cell.command(program);
        }
        let mut command = Command::new(program);
        if self.runtime.is_some() {
            command.env("PATH", path());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell command and waits for its end.
    pub fn output(&self, line: &str) -> Output {
        self.command("sh").args(["-ec", line]).output().expect("sh")
    }

    /// Runs a shell command that must succeed, and returns its standard output.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_string();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {} {stdout}", stderr.trim());
        stdout
    }

    /// The cell of a node that has one.
    #[track_caller]
    pub fn cell(&self) -> &Cell {
        self.cell.as_ref().expect("a node in a cell")
    }

    /// Starts a daemon on the node, and waits until the command `ready` succeeds.
    #[track_caller]
    pub fn daemon(&self, line: &str, ready: &str) {
        if let Some(cell) = &self.cell {
            return cell.daemon(line, ready);
        }
        let name = line.split(' ').next().expect("a name");
        let bin = bin();
        // What Debian's units of such daemons say: their containers are not theirs to kill.
        self.sh(&format!(
            "systemd-run --quiet --collect --unit={UNIT}-{name} --property=Delegate=yes --property=KillMode=process \
             --property=TasksMax=infinity --setenv=PATH={}:$PATH {}/{line}",
            bin.display(),
            bin.display()
        ));
        self.answers(name, ready);
    }

    #[track_caller]
    fn answers(&self, name: &str, ready: &str) {
        until_at_most(*LIMIT, &format!("{name} answers"), || {
            self.output(ready).status.success().then_some(())
        });
    }

    pub fn crictl_command(&self) -> String {
        format!("crictl --config {}/crictl.yaml", self.folder.display())
    }

    #[track_caller]
    pub fn crictl(&self, line: &str) -> String {
        let output = self.crictl_output(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // The last line is crictl's own error; warnings of its gRPC client come before.
        let stderr = stderr.lines().last().unwrap_or_default();
        assert!(output.status.success(), "crictl {line}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    /// Whether containerd knows the label that pins an image (containerd#8720, #9382).
    pub fn pins(&self) -> bool {
        let version = self.name.split([' ', '.']).skip(1);
        let version: Vec<u32> = version.map(|part| part.parse().unwrap_or(0)).collect();
        match version[..] {
            [1, 6, patch, ..] => self.crio || patch >= 25,
            [1, 7, patch, ..] => self.crio || patch >= 10,
            _ => true,
        }
    }

    /// Runs crictl, which may fail.
    pub fn crictl_output(&self, line: &str) -> Output {
        self.output(&format!("{} {line}", self.crictl_command()))
    }

    /// Runs a command of crictl that prints JSON.
    #[track_caller]
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
    #[track_caller]
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
        until_at_most(*LIMIT, "the runtime says how pause ended", || {
            if self.crio {
                let path = self.path(&format!(
                    "/var/lib/containers/storage/overlay-containers/{sandbox}/userdata/exit"
                ));
                return fs::read_to_string(path).ok()?.trim().parse().ok();
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

/// Removes the pods and images of these checks from a node that existed before.
pub fn clean(endpoint: &str) {
    let crictl = format!(
        "crictl --config /dev/null --runtime-endpoint {endpoint} --image-endpoint {endpoint}"
    );
    let line = format!(
        "PATH=$PATH:{}; {crictl} pods --namespace pause-e2e --quiet | xargs -r {crictl} rmp --force
         {crictl} images --quiet localhost/e2e | sort -u | xargs -r {crictl} rmi",
        bin().display()
    );
    let _ = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status();
}

/// What a result depends on beside the runtime: control groups, their driver, the security
/// module (LSM) that confines containers, the kernel and the architecture.
pub fn surroundings(driver: &str) -> Vec<String> {
    let version = match (is_unified(), Path::new("/sys/fs/cgroup/unified").exists()) {
        (true, _) => "cgroup v2",
        (_, true) => "cgroup v1 and v2 (hybrid)",
        _ => "cgroup v1",
    };
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let lsm = match apparmor.is_ok_and(|enabled| enabled.starts_with('Y')) {
        true => "AppArmor",
        false => "no AppArmor",
    };
    let kernel = harness::run("uname", &["-srm"]);
    vec![version.into(), format!("driver {driver}"), lsm.into(), kernel.trim().into()]
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut events) = self.events.take() {
            let _ = events.kill();
            let _ = events.wait();
        }
        let crictl = self.crictl_command();
        let Some(cell) = &self.cell else {
            if self.runtime.is_none() {
                return clean(&self.endpoint);
            }
            self.output(&format!("{crictl} pods --quiet | xargs -r {crictl} rmp --force"));
            let logs = self.logs.join(self.name.replace(' ', "-"));
            self.output(&format!(
                "systemctl stop containerd '{UNIT}-*'
                 journalctl --boot --unit=containerd --unit='{UNIT}-*' >{}.log",
                logs.display()
            ));
            return;
        };
        let logs = self.logs.join(format!("{}-{}", self.name.replace(' ', "-"), cell.init));
        let _ = fs::create_dir_all(&logs);
        for entry in fs::read_dir(self.path("/run")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let _ = fs::copy(entry.path(), logs.join(entry.file_name()));
            }
        }
    }
}
