//! Control groups, of either version: a machine may have both ("hybrid").

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use crate::unique;

/// A group of the test's own, removed when it goes out of scope.
pub struct Cgroup {
    path: PathBuf,
    /// Version 2, the unified hierarchy.
    pub unified: bool,
    /// Goes after the group.
    _controller: Option<Enabled>,
}

impl Cgroup {
    /// A new group in the hierarchy that has `controller`.
    #[track_caller]
    pub fn new(controller: &str) -> Self {
        let (mount, unified) = hierarchy(controller);
        // Every group of version 2 has a freezer: it is no controller.
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

    /// Writes `text` to the file `name`.
    #[track_caller]
    pub fn set(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The content of the file `name`.
    #[track_caller]
    pub fn get(&self, name: &str) -> String {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_string()
    }

    /// The number in the file `name`.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).parse().expect("a number")
    }

    /// The path of the file `name`, for a system call.
    pub fn file(&self, name: &str) -> CString {
        CString::new(self.path.join(name).into_os_string().into_vec()).expect("no NUL")
    }

    /// Moves a process in.
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

/// Removes a group and those below it.
pub fn remove(group: &Path) {
    // The last member may be a zombie for a moment longer.
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

/// Where each hierarchy is mounted.
pub fn mounts() -> Vec<PathBuf> {
    let of = |mount: Mount| PathBuf::from(&mount[1]);
    hierarchies().into_iter().map(of).collect()
}

/// The fields of a line of /proc/mounts: source, place, type, options.
type Mount = Vec<String>;

/// Those of control groups.
fn hierarchies() -> Vec<Mount> {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').map(String::from).collect::<Mount>());
    fields
        .filter(|fields| fields[2].starts_with("cgroup"))
        .collect()
}

/// Where `controller` is mounted, and whether that is version 2.
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

/// A controller of version 2 that the groups below the root have, while any test wants it.
struct Enabled {
    file: PathBuf,
    controller: String,
}

/// How many tests want each controller that was not on before.
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
            // If it cannot be turned on, the test fails at the file that it lacks.
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
