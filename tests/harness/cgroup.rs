//! Control groups, of either version: a machine may have both ("hybrid").

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group of the test's own, removed when it goes out of scope.
pub struct Cgroup {
    path: PathBuf,
    /// Version 2, the unified hierarchy.
    pub unified: bool,
}

impl Cgroup {
    /// A new group in the hierarchy that has `controller`.
    #[track_caller]
    pub fn new(controller: &str) -> Self {
        let (mount, unified) = hierarchy(controller);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("pause-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: cgroups want root: run scripts/test",
                path.display()
            )
        });
        Self { path, unified }
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

/// Where `controller` is mounted, and whether that is version 2. The freezer of
/// version 2 is no controller: every group has it.
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
    let mount = unified.expect("no cgroups are mounted");
    if controller != "freezer" {
        // Not there if the controller is on already, or not at all: then the
        // test fails at the file that it lacks.
        let _ = fs::write(
            mount.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    (mount, true)
}
