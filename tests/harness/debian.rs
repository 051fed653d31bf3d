//! Another release of Debian in a fresh root filesystem, made by mmdebstrap, with the rustup of
//! this machine.

use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use xtask::project::debian_mirror;

use crate::checkout::{copy_project, home_of};
use crate::programs::root;
use crate::{Folder, run, text};

/// Makes a folder the root of a new mount namespace, and runs a shell command in it.
const ENTER: &str = r#"
set -e
root=$1 rustup=$2 cargo=$3 line=$4
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
# Where they are here, as toolchains may be links; and nothing there changes them.
for folder in "$rustup" "$cargo"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mount -o remount,bind,ro "$root$rustup"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cd "$root"
pivot_root . mnt
umount -l mnt
cd /project
export HOME=/root RUSTUP_HOME="$rustup" CARGO_HOME="$cargo" PAUSE_XTASK=$([ ! -e /xtask ] || echo /xtask)
export PATH="$cargo/bin":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec sh -ec "$line"
"#;

/// Makes the root filesystem of a minimal release of Debian in a folder, with some packages more. It
/// is kept as an archive in target/debian; `scripts/test` makes it anew when it is a day old.
#[track_caller]
pub fn debootstrap(suite: &str, packages: &[&str], folder: &Path) {
    let kept = root().join("target/debian");
    fs::create_dir_all(&kept).expect("a folder");
    let include = packages.join(",");
    let archive = kept.join(format!("{suite}-{:016x}.tar", hash(&include)));
    let age = || fs::metadata(&archive).ok()?.modified().ok()?.elapsed().ok();
    if age().is_none_or(|age| age > Duration::from_secs(24 * 3600)) {
        // The Release file of an old copy of the mirror may have expired.
        let mirror = debian_mirror().expect("a mirror");
        let source = format!("deb [check-valid-until=no] {mirror} {suite} main");
        let include = format!("--include={include}");
        let new = archive.with_extension("new.tar");
        run("mmdebstrap", &["--quiet", "--variant=apt", &include, suite, text(&new), &source]);
        fs::rename(&new, &archive).expect("the archive");
    }
    fs::create_dir_all(folder).expect("a folder");
    run(
        "tar",
        &["--extract", "--numeric-owner", "--file", text(&archive), "--directory", text(folder)],
    );
}

/// A number for a text, the same in each run.
fn hash(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A minimal release of Debian with the project in `/project`.
pub struct Debian(Folder);

impl Debian {
    /// Makes one, with some packages more.
    #[track_caller]
    pub fn new(suite: &str, packages: &[&str]) -> Self {
        let folder = Folder::new(suite);
        // ENTER needs mount in it.
        debootstrap(suite, &[&["mount"], packages].concat(), &folder);
        copy_project(&folder.join("project"), ".git");
        Self(folder)
    }

    /// Copies the tool of the scripts, which scripts/test has built.
    #[track_caller]
    pub fn take_xtask(&self) {
        let tool = std::env::var_os("PAUSE_XTASK").expect("scripts/test sets PAUSE_XTASK");
        fs::copy(tool, self.join("xtask")).expect("a copy");
    }

    /// The path of a file in it.
    pub fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Runs a shell command in the folder of the project.
    pub fn output(&self, line: &str) -> Output {
        let unshare = ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"];
        let mut command = Command::new("unshare");
        command.args(unshare).arg(&*self.0);
        command.arg(home_of("RUSTUP_HOME", ".rustup")).arg(home_of("CARGO_HOME", ".cargo"));
        command.arg(line).output().expect("unshare")
    }

    /// The same for a command that must succeed; returns its standard output.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{stdout}\n{stderr}");
        stdout
    }
}
