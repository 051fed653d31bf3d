//! What programs that were killed have left.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::{kill, mounts, remove};
use crate::programs::root;

/// Removes what programs that run no more have left: control groups, and folders of tests.
pub fn sweep() {
    let is_left = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pid = name.strip_prefix("pause-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    let left = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(is_left).collect()
    };
    for group in mounts().iter().flat_map(|mount| left(mount)) {
        kill(&group);
        remove(&group);
    }
    for folder in [root().join("target/tests"), std::env::temp_dir()].iter().flat_map(|folder| left(folder)) {
        let _ = fs::remove_dir_all(&folder);
    }
}
