//! Another release of Debian in a fresh root filesystem, made by mmdebstrap, with the rustup of
//! this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::programs::{HOST, platform, root};
use crate::{Folder, run};

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
export HOME=/root RUSTUP_HOME="$rustup" CARGO_HOME="$cargo"
export PATH="$cargo/bin":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec sh -ec "$line"
"#;

/// A minimal release of Debian with the project in `/project`.
pub struct Debian(Folder);

impl Debian {
    /// Makes one, with some packages more.
    #[track_caller]
    pub fn new(suite: &str, packages: &[&str]) -> Self {
        let folder = Folder::new(suite);
        let path = folder.to_str().expect("UTF-8");
        let line = format!(". {}/scripts/common; debian_mirror", root().display());
        let mirror = run("bash", &["-c", &line]);
        // The Release file of an old copy of the mirror may have expired.
        let source = format!("deb [check-valid-until=no] {} {suite} main", mirror.trim());
        // ENTER needs mount in it.
        let include = format!("--include={}", [&["mount"], packages].concat().join(","));
        let options = ["--quiet", "--variant=apt", &include, suite, path, &source];
        run("mmdebstrap", &options);
        let project = folder.join("project");
        fs::create_dir(&project).expect("a folder");
        let built = ["dist", "target", ".git", "mutants.out", "mutants.out.old"];
        for entry in fs::read_dir(root()).expect("the project").flatten() {
            if !built.iter().any(|name| entry.file_name() == *name) {
                let (from, to) = (entry.path(), project.join(entry.file_name()));
                run(
                    "cp",
                    &[
                        "-r",
                        from.to_str().expect("UTF-8"),
                        to.to_str().expect("UTF-8"),
                    ],
                );
            }
        }
        Self(folder)
    }

    /// Copies programs of scripts/tools, which scripts/test has built, to `/tools` (PAUSE_TOOLS).
    #[track_caller]
    pub fn take_tools(&self, names: &[&str]) {
        let built = root()
            .join("target")
            .join(platform(&HOST).target)
            .join("debug");
        fs::create_dir(self.join("tools")).expect("a folder");
        for name in names {
            let copy = self.join("tools").join(name);
            fs::copy(built.join(name), copy).expect("scripts/test builds it");
        }
    }

    /// The path of a file in it.
    pub fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Runs a shell command in the folder of the project.
    pub fn output(&self, line: &str) -> Output {
        let home = |variable: &str, folder: &str| {
            let set = std::env::var_os(variable).map(PathBuf::from);
            set.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME")).join(folder))
        };
        Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(&*self.0)
            .arg(home("RUSTUP_HOME", ".rustup"))
            .arg(home("CARGO_HOME", ".cargo"))
            .arg(line)
            .output()
            .expect("unshare")
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
