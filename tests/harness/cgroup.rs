//! Control groups of version 1 and 2. A "hybrid" machine has both.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{unique, until};

/// A control group of one test, removed when it goes out of scope.
pub struct Cgroup {
    path: PathBuf,
    /// Whether it is in the hierarchy of version 2.
    pub unified: bool,
}

impl Cgroup {
    /// Makes a group in the hierarchy that has `controller`.
    pub fn new(controller: &str) -> Self {
        let (mount, unified) = hierarchy(controller);
        if unified {
            hand_down(&mount);
        }
        let path = mount.join(unique("group"));
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: cgroups want root: run scripts/test", path.display()));
        Self { path, unified }
    }

    /// Writes `text` to a file of the group.
    pub fn set(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The content of a file of the group.
    pub fn get(&self, name: &str) -> String {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_string()
    }

    /// Limits the group to 1 ms of CPU time in each second, the smallest quota that the kernel takes.
    pub fn limit_cpu(&self) {
        match self.unified {
            true => self.set("cpu.max", "1000 1000000"),
            false => {
                self.set("cpu.cfs_period_us", "1000000");
                self.set("cpu.cfs_quota_us", "1000");
            }
        }
    }

    /// Freezes or thaws the processes of the group, and waits until this is done.
    pub fn freeze(&self, frozen: bool) {
        let (file, states, event, prefix) = match self.unified {
            true => ("cgroup.freeze", ["0", "1"], "cgroup.events", "frozen "),
            false => ("freezer.state", ["THAWED", "FROZEN"], "freezer.state", ""),
        };
        let state = states[usize::from(frozen)];
        self.set(file, state);
        let wanted = format!("{prefix}{state}");
        until("frozen or thawed", || self.get(event).lines().any(|line| line == wanted).then_some(()));
    }

    /// Moves a process into the group.
    pub fn add(&self, pid: i32) {
        self.set("cgroup.procs", &pid.to_string());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Kills the processes of a group and of the groups below it.
pub fn kill(group: &Path) {
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        // SAFETY: a system call, on a process of a group that this program made.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    below.filter(|entry| entry.path().is_dir()).for_each(|entry| kill(&entry.path()));
}

/// Removes a group and the groups below it.
pub fn remove(group: &Path) {
    // The last process may stay a zombie for a moment, in which the group cannot be removed.
    for _ in 0..1000 {
        let below = fs::read_dir(group).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.path().is_dir()) {
            remove(&entry.path());
        }
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    eprintln!("left behind: {}", group.display());
}

/// Whether this machine has control groups of version 2 alone.
pub fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Turns on all controllers of version 2 for the groups below one. At the root they stay on: a service manager turns
/// them on and off as its own groups need them.
pub fn hand_down(group: &Path) {
    let all = fs::read_to_string(group.join("cgroup.controllers")).expect("the controllers");
    for controller in all.split_whitespace() {
        // The kernel may refuse one, such as cpu while there are real-time processes.
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The mount points of all hierarchies.
pub fn mounts() -> Vec<PathBuf> {
    let of = |mount: Mount| PathBuf::from(&mount[1]);
    hierarchies().into_iter().map(of).collect()
}

/// The fields of a line of /proc/mounts: source, mount point, type, options.
type Mount = Vec<String>;

/// The lines of /proc/mounts for the control groups of this machine. A chroot elsewhere may have them mounted a second
/// time.
fn hierarchies() -> Vec<Mount> {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let fields = mounts.lines().map(|line| line.split(' ').map(String::from).collect::<Mount>());
    fields.filter(|fields| fields[1].starts_with("/sys/fs/cgroup") && fields[2].starts_with("cgroup")).collect()
}

/// The mount point of `controller`, and whether it is of version 2.
fn hierarchy(controller: &str) -> (PathBuf, bool) {
    let mut unified = None;
    for fields in hierarchies() {
        match fields[2].as_str() {
            "cgroup" if fields[3].split(',').any(|option| option == controller) => {
                return (PathBuf::from(&fields[1]), false);
            }
            "cgroup2" => unified = Some(PathBuf::from(&fields[1])),
            _ => {}
        }
    }
    (unified.expect("no cgroups are mounted"), true)
}
