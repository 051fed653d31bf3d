//! A cell: a machine of a test's own for container engines, made of namespaces
//! and control groups. Engines run in it with their ordinary configuration and
//! paths; pause is its PID 1, and takes all of it along when it is killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::launch::checked;
use crate::programs::host;
use crate::{cgroup, unique, until};

/// Joins the cell's groups, then leaves the machine's namespaces for its own. What
/// is written to /etc, /opt and /var is lost with them.
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

/// What is on the machine, outside of any cell, and carries `name`: that of a cell, or of
/// something that was made in one.
pub fn left_behind(name: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mut left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(name))
        .map(String::from)
        .collect();
    let pattern = format!("*{name}*");
    for (folder, depth) in [
        ("/sys/fs/cgroup", "9"),
        ("/run", "5"),
        ("/etc", "3"),
        ("/opt", "3"),
        ("/var/lib", "5"),
    ] {
        // What ends while find looks is no reason to fail.
        let find = Command::new("find")
            .args([folder, "-maxdepth", depth, "-name", &pattern])
            .output();
        let found = String::from_utf8_lossy(&find.expect("find").stdout).into_owned();
        left.extend(found.lines().map(String::from));
    }
    left
}

pub struct Cell {
    /// The name of its control groups, which no other run has.
    pub name: String,
    unshare: Child,
    /// PID 1, as seen from outside.
    pub init: i32,
    pub groups: Vec<PathBuf>,
    /// The PATH of what is started in it, if not that of the tests.
    pub path: Option<String>,
}

impl Cell {
    #[track_caller]
    pub fn start() -> Self {
        let name = unique("cell");
        let groups: Vec<_> = cgroup::mounts()
            .into_iter()
            .map(|m| m.join(&name))
            .collect();
        for group in &groups {
            fs::create_dir(group).expect("a cgroup: run scripts/test, as root");
            // A new cpuset is empty, and takes no process in.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if group.join(file).exists() && !group.join("cgroup.controllers").exists() {
                    let all = fs::read(group.with_file_name(file)).expect("the set above");
                    fs::write(group.join(file), all).expect("a cpuset");
                    fs::write(group.join("cgroup.clone_children"), "1").expect("for those below");
                }
            }
        }
        let mut unshare = Command::new("sh");
        // SAFETY: one system call. A cell does not outlive the test, however that ends.
        unsafe { unshare.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))) };
        let unshare = unshare
            .args(["-c", START, "sh"])
            .args(&groups)
            .env("PAUSE", host())
            .stdin(Stdio::null())
            // Said if it fails; at the end unshare has a complaint of its own.
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut cell = Self {
            name,
            unshare,
            init: 0,
            groups,
            path: None,
        };
        cell.init = until("pause is PID 1 of the cell", || {
            let path = format!("/proc/{0}/task/{0}/children", cell.unshare.id());
            let child: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            name.starts_with("pause").then_some(child)
        });
        cell
    }

    /// A program, about to be started in the cell.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"])
            .args(["--wdns=/", program])
            .env("TMPDIR", "/run/tmp")
            // podman 5 would warn in each command's standard error.
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .stdin(Stdio::null());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }

    /// Runs a line for the shell to its end.
    pub fn output(&self, line: &str) -> Output {
        self.command("sh")
            .args(["-ec", line])
            .output()
            .expect("nsenter")
    }

    /// Runs a line for the shell that has to succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_string();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{stdout}\n{stderr}");
        stdout
    }

    /// Starts a daemon, and waits until the line `ready` succeeds.
    #[track_caller]
    pub fn daemon(&self, line: &str, ready: &str) {
        let name = line.split(' ').next().expect("a name");
        let log = format!("/run/{name}.log");
        self.run(&format!("exec setsid {line} >{log} 2>&1 &"));
        until(&format!("{name} answers"), || {
            self.output(ready).status.success().then_some(())
        });
    }

    /// Starts a registry at 127.0.0.1:5000.
    #[track_caller]
    pub fn registry(&self) {
        // Debian's configuration, without its passwords.
        self.run("sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/run/registry.yml");
        self.daemon(
            "docker-registry serve /run/registry.yml",
            "curl --silent --fail 127.0.0.1:5000/v2/",
        );
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
            let _ = std::io::copy(
                self.unshare.stderr.as_mut().expect("a pipe"),
                &mut std::io::stderr(),
            );
        } else {
            // The kernel kills the rest first, and unshare waits for all of it.
            // SAFETY: a child of unshare, which has not reaped it.
            unsafe { libc::kill(self.init, libc::SIGKILL) };
        }
        let _ = self.unshare.wait();
        for group in &self.groups {
            cgroup::remove(group);
        }
    }
}
