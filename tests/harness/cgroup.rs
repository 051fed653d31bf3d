//! Control groups of version 1 and 2. A "hybrid" machine has both.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use crate::unique;

/// A control group of one test, removed when it goes out of scope.
pub struct Cgroup {
    path: PathBuf,
    /// Whether it is in the hierarchy of version 2.
    pub unified: bool,
    /// Dropped after the group was removed.
    _controller: Option<Enabled>,
}

impl Cgroup {
    /// Makes a group in the hierarchy that has `controller`.
    #[track_caller]
    pub fn new(controller: &str) -> Self {
        let (mount, unified) = hierarchy(controller);
        // In version 2 every group can be frozen; there is no controller for that.
        let enable = unified && controller != "freezer";
        let enabled = enable.then(|| Enabled::new(&mount, controller));
        let path = mount.join(unique("group"));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: cgroups want root: run scripts/test",
                path.display()
            )
        });
        Self {
            path,
            unified,
            _controller: enabled,
        }
    }

    /// Writes `text` to a file of the group.
    #[track_caller]
    pub fn set(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The content of a file of the group.
    #[track_caller]
    pub fn get(&self, name: &str) -> String {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_string()
    }

    /// The number in a file of the group.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).parse().expect("a number")
    }

    /// The path of a file of the group, for a system call.
    pub fn file(&self, name: &str) -> CString {
        CString::new(self.path.join(name).into_os_string().into_vec()).expect("no NUL")
    }

    /// Limits the group to 1 ms of CPU time in each second, the smallest quota that the kernel
    /// takes.
    #[track_caller]
    pub fn limit_cpu(&self) {
        match self.unified {
            true => self.set("cpu.max", "1000 1000000"),
            false => {
                self.set("cpu.cfs_period_us", "1000000");
                self.set("cpu.cfs_quota_us", "1000");
            }
        }
    }

    /// Moves a process into the group.
    #[track_caller]
    pub fn add(&self, pid: i32) {
        self.set("cgroup.procs", &pid.to_string());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
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

/// Turns on all controllers of version 2 for the groups below one. At the root they stay on: a
/// service manager turns them on and off as its own groups need them.
pub fn hand_down(group: &Path) {
    let all = fs::read_to_string(group.join("cgroup.controllers")).expect("the controllers");
    for controller in all.split_whitespace() {
        // The kernel may refuse one, such as cpu while there are real-time processes.
        let _ = fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// The mount points of all hierarchies.
pub fn mounts() -> Vec<PathBuf> {
    let of = |mount: Mount| PathBuf::from(&mount[1]);
    hierarchies().into_iter().map(of).collect()
}

/// The fields of a line of /proc/mounts: source, mount point, type, options.
type Mount = Vec<String>;

/// The lines of /proc/mounts for the control groups of this machine. A chroot elsewhere may have
/// them mounted a second time.
fn hierarchies() -> Vec<Mount> {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').map(String::from).collect::<Mount>());
    fields
        .filter(|fields| fields[1].starts_with("/sys/fs/cgroup") && fields[2].starts_with("cgroup"))
        .collect()
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

/// A controller of version 2, turned on for the groups below the root while a test uses it.
struct Enabled {
    file: PathBuf,
    controller: String,
}

/// The number of tests that use each controller that was off before.
static WANTED: LazyLock<Mutex<BTreeMap<String, u32>>> = LazyLock::new(Mutex::default);

impl Enabled {
    fn new(mount: &Path, controller: &str) -> Self {
        let file = mount.join("cgroup.subtree_control");
        let mut wanted = WANTED.lock().expect("no panic within");
        let all = fs::read_to_string(&file).unwrap_or_default();
        let is_on = all.split_whitespace().any(|name| name == controller);
        if let Some(count) = wanted.get_mut(controller) {
            *count += 1;
        } else if !is_on && fs::write(&file, format!("+{controller}")).is_ok() {
            // If this fails, the test fails when it opens a file of the controller.
            wanted.insert(controller.into(), 1);
        }
        Self {
            file,
            controller: controller.into(),
        }
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock().expect("no panic within");
        if let Some(count) = wanted.get_mut(&self.controller) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.controller);
                let _ = fs::write(&self.file, format!("-{}", self.controller));
            }
        }
    }
}
