//! README's commands on other releases of Debian. Each runs in a fresh root filesystem made
//! by mmdebstrap, with the rustup of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::programs::{HOST, platform, root};
use harness::{Folder, run};

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
struct Debian(Folder);

impl Debian {
    #[track_caller]
    fn new(suite: &str) -> Self {
        let folder = Folder::new(suite);
        let path = folder.to_str().expect("UTF-8");
        let line = format!(". {}/scripts/common; debian_mirror", root().display());
        let mirror = run("bash", &["-c", &line]);
        // The Release file of an old copy of the mirror may have expired.
        let source = format!("deb [check-valid-until=no] {} {suite} main", mirror.trim());
        // ENTER needs mount in it.
        let options = [
            "--quiet",
            "--variant=apt",
            "--include=mount",
            suite,
            path,
            &source,
        ];
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

    /// Runs a shell command in the folder of the project.
    fn output(&self, line: &str) -> Output {
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
    fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{stdout}\n{stderr}");
        stdout
    }

    /// Runs README's first command.
    #[track_caller]
    fn runs_a_pod(&self) {
        let steps = self.run("scripts/pod");
        assert!(steps.contains("6. SIGTERM: Shutting down"), "{steps}");
    }
}

/// The digests of the manifests in an archive. They cover the configs and layers as well.
fn manifests(archive: &Path) -> Vec<String> {
    let from = format!("oci-archive:{}", archive.display());
    let index: serde_json::Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--raw", &from])).expect("JSON");
    let manifests = index["manifests"].as_array().expect("manifests").iter();
    let digests = manifests.map(|one| one["digest"].as_str().expect("a digest").to_string());
    digests.collect()
}

limited! {
    /// The packer is the one that was built here; the compiler and the rest are Debian 13's.
    #[ignore = "needs scripts/test"]
    fn debian_13_runs_a_pod_and_packs_the_same_image() {
        let debian = Debian::new("trixie");
        debian.runs_a_pod();
        let tools = root().join("target").join(platform(&HOST).target).join("debug/pause-tools");
        fs::copy(tools, debian.0.join("pause-tools")).expect("what scripts/image built");
        debian.run(&format!("PAUSE_TOOLS=/pause-tools scripts/image --only {}", *HOST));
        let there = manifests(&debian.0.join("project/dist/pause.oci.tar"));
        let [manifest] = &there[..] else {
            panic!("one platform: {there:?}");
        };
        assert!(manifests(&root().join("dist/pause.oci.tar")).contains(manifest), "{manifest}");
    }

    #[ignore = "needs scripts/test"]
    fn debian_sid_runs_a_pod() {
        Debian::new("sid").runs_a_pod();
    }
}
