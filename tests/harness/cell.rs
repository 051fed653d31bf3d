//! A cell: namespaces and control groups in which container engines run with their ordinary configuration and paths,
//! separate from this machine and from other tests. pause is PID 1 of the cell; when it is killed, every process of the
//! cell ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::fork::checked;
use crate::programs::host;
use crate::{cgroup, unique, until};

/// Joins the control groups of the cell, then enters new namespaces. Changes below /etc, /opt and /var go to an overlay
/// that is lost at the end.
const START: &str = r#"
set -e
for group in "$@"; do echo $$ >"$group/cgroup.procs"; done
exec unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child --mount-proc sh -ec '
    for group in "$@"; do mount --bind "$group" "${group%/*}"; done
    mount -t tmpfs tmpfs /run
    for folder in etc opt var; do
        mkdir -p /run/cell/$folder/upper /run/cell/$folder/work
        mount -t overlay -o lowerdir=/$folder,upperdir=/run/cell/$folder/upper,workdir=/run/cell/$folder/work overlay /$folder
    done
    # Engines cannot put their own overlays onto this one.
    for folder in containers docker containerd kubelet; do
        mkdir -p /var/lib/$folder && mount -t tmpfs tmpfs /var/lib/$folder
    done
    mkdir /run/tmp && mkdir -p /etc/containers
    # Without CAP_SYS_RESOURCE, as in a container, podman may not raise a limit;
    # and its crun knows no hybrid control groups. In a store that it finds with
    # images, it takes its network for that of an older podman.
    cat >/etc/containers/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
END
    ip link set lo up
    exec "$PAUSE"' sh "$@"
"#;

pub struct Cell {
    /// The unique name of its control groups.
    pub name: String,
    unshare: Child,
    /// The PID, outside of the cell, of its PID 1.
    pub init: i32,
    pub groups: Vec<PathBuf>,
    /// What programs write to join the cell's own processes, if only version 2 is there. A daemon outside would find
    /// its containers outside of its view.
    leaf: Option<PathBuf>,
    /// The PATH for programs in the cell, if it is not that of the tests.
    pub path: Option<String>,
}

impl Cell {
    pub fn start() -> Self {
        let name = unique("cell");
        let groups: Vec<_> = cgroup::mounts().into_iter().map(|m| m.join(&name)).collect();
        let unified = cgroup::is_unified();
        if unified {
            cgroup::hand_down(groups[0].parent().expect("its mount"));
        }
        for group in &groups {
            fs::create_dir(group).expect("a cgroup: run scripts/test, as root");
            // A new cpuset has no CPU and no memory node, so no process can join it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if group.join(file).exists() && !group.join("cgroup.controllers").exists() {
                    let all = fs::read(group.with_file_name(file)).expect("the set above");
                    fs::write(group.join(file), all).expect("a cpuset");
                    fs::write(group.join("cgroup.clone_children"), "1").expect("for those below");
                }
            }
        }
        let mut unshare = Command::new("sh");
        // SAFETY: a system call. The cell ends when the test does, however that ends.
        unsafe { unshare.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))) };
        let unshare = unshare
            .args(["-c", START, "sh"])
            .args(&groups)
            .env("PAUSE", host())
            .stdin(Stdio::null())
            // Shown only if the start fails, as unshare also prints an error when it is killed.
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut cell = Self {
            name,
            unshare,
            init: 0,
            leaf: unified.then(|| groups[0].join("init/cgroup.procs")),
            groups,
            path: None,
        };
        cell.init = until("pause is PID 1 of the cell", || {
            let path = format!("/proc/{0}/task/{0}/children", cell.unshare.id());
            let child: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            name.starts_with("pause").then_some(child)
        });
        // A group with processes can hand no controller down, so they go into a leaf (cgroups(7), "no internal
        // processes").
        if let Some(leaf) = &cell.leaf {
            let group = &cell.groups[0];
            fs::create_dir(group.join("init")).expect("a leaf");
            let processes = fs::read_to_string(group.join("cgroup.procs")).expect("its processes");
            for process in processes.lines() {
                fs::write(leaf, process).expect("a process of the cell");
            }
            cgroup::hand_down(group);
        }
        cell
    }

    /// A command that will run a program in the cell.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.leaf {
            Some(leaf) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $$ >\"$0\" && exec nsenter \"$@\""]).arg(leaf);
                command
            }
            None => Command::new("nsenter"),
        };
        command
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"])
            .args(["--wdns=/", program])
            .env("TMPDIR", "/run/tmp")
            // podman 5 prints a warning on version 1 for each command without this variable.
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .stdin(Stdio::null());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }

    /// Runs a shell command and waits for its end.
    pub fn output(&self, line: &str) -> Output {
        self.command("sh").args(["-ec", line]).output().expect("nsenter")
    }

    /// Runs a shell command that must succeed, and returns its standard output.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_string();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{stdout}\n{stderr}");
        stdout
    }

    /// Starts a daemon, and waits until the command `ready` succeeds.
    pub fn daemon(&self, line: &str, ready: &str) {
        let name = line.split(' ').next().expect("a name");
        let log = format!("/run/{name}.log");
        self.run(&format!("exec setsid {line} >{log} 2>&1 &"));
        until(&format!("{name} answers"), || self.output(ready).status.success().then_some(()));
    }

    /// Starts a registry at 127.0.0.1:5000.
    pub fn registry(&self) {
        // Debian's configuration without its password file.
        self.run("sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/run/registry.yml");
        self.daemon("docker-registry serve /run/registry.yml", "curl --silent --fail 127.0.0.1:5000/v2/");
    }

    pub fn docker() -> Self {
        let cell = Self::start();
        cell.daemon("dockerd", "docker version");
        cell
    }

    pub fn containerd() -> Self {
        let cell = Self::start();
        cell.daemon("containerd", "ctr version");
        cell
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.init == 0 {
            let _ = self.unshare.kill(); // and the kernel its child
            let _ = std::io::copy(self.unshare.stderr.as_mut().expect("a pipe"), &mut std::io::stderr());
        } else {
            // The kernel kills the other processes first; unshare ends after all of them.
            // SAFETY: a child of unshare, which has not reaped it.
            unsafe { libc::kill(self.init, libc::SIGKILL) };
        }
        let _ = self.unshare.wait();
        for group in &self.groups {
            cgroup::remove(group);
        }
    }
}
