//! The image in the engines themselves, each in a cell of its own: podman, Docker
//! and containerd, and a registry between them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::cell::{Cell, machine};
use crate::harness::programs::{HOST, dist, root};
use crate::harness::until;

const NAME: &str = concat!("localhost/pause:", env!("CARGO_PKG_VERSION"));
const VERSION: &str = concat!("pause ", env!("CARGO_PKG_VERSION"));
const LINE: &str = "Shutting down, got signal: Terminated";

fn archive() -> String {
    format!("{}/dist/pause.oci.tar", root().display())
}

/// The size of pause for this machine, as `docker images` has it.
fn size() -> String {
    format!("{}B", fs::metadata(dist(HOST)).expect("pause").len())
}

/// Stops by `line`, which has to be done long before an engine's SIGKILL.
#[track_caller]
fn stops_at_once(cell: &Cell, line: &str) {
    let start = Instant::now();
    cell.run(line);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{line}: {:?}",
        start.elapsed()
    );
}

/// The processes in a PID namespace.
fn processes_in(namespace: &Path) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path().join("ns/pid")).ok());
    links.filter(|link| link == namespace).count()
}

limited! {
    #[ignore = "needs scripts/test"]
    fn a_cell_leaves_nothing() {
        let before = machine();
        let cell = Cell::docker();
        cell.run(&format!("docker load --input {} && docker run --detach -p 8080:80 {NAME}", archive()));
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", cell.init)).expect("its PID namespace");
        let groups = cell.groups.clone();
        // pause, dockerd, its containerd, a shim, a proxy, and pause again.
        assert!(processes_in(&namespace) >= 6);
        drop(cell);
        assert_eq!(processes_in(&namespace), 0);
        assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
        assert_eq!(machine(), before);
    }

    #[ignore = "needs scripts/test"]
    fn podman_holds_a_pod_with_it() {
        let cell = Cell::new();
        assert_eq!(cell.run(&format!("podman load --quiet --input {}", archive())), format!("Loaded image: {NAME}"));
        assert_eq!(cell.run(&format!("podman run --rm {NAME} -v")), VERSION);
        cell.run(&format!("podman pod create --name pod --infra-name infra --infra-image {NAME} --share pid,net,ipc,uts -p 8080:80"));
        cell.run("podman pod start pod");
        stops_at_once(&cell, "podman pod stop pod");
        assert_eq!(cell.run("podman inspect --format '{{.State.ExitCode}}' infra"), "0");
        assert_eq!(cell.run("podman logs infra 2>&1"), LINE);

        // Or by its configuration, for every pod.
        cell.run(&format!("echo 'infra_image = \"{NAME}\"' >>/etc/containers/containers.conf"));
        cell.run("podman pod create --infra-name configured");
        assert_eq!(cell.run("podman inspect --format '{{.ImageName}}' configured"), NAME);
    }

    /// By Docker's own store, which reads no OCI layout.
    #[ignore = "needs scripts/test"]
    fn docker_holds_a_pod_with_it() {
        let cell = Cell::docker();
        assert!(cell.run(&format!("docker load --input {}", archive())).starts_with(&format!("Loaded image: {NAME}\n")));
        assert_eq!(cell.run(&format!("docker images --format '{{{{.Size}}}}' {NAME}")), size());
        assert_eq!(cell.run(&format!("docker run --rm {NAME} -v")), VERSION);
        cell.run(&format!("docker run --detach --name pause --ipc=shareable -p 8080:80 {NAME}"));
        stops_at_once(&cell, "docker stop pause");
        assert_eq!(cell.run("docker inspect --format '{{.State.ExitCode}}' pause"), "0");
        assert_eq!(cell.run("docker logs pause 2>&1"), LINE);
    }

    #[ignore = "needs scripts/test"]
    fn containerd_runs_it_on_either_snapshotter() {
        let cell = Cell::containerd();
        for (namespace, options) in [("k8s.io", "--all-platforms"), ("default", "")] {
            cell.run(&format!("ctr -n {namespace} images import {options} {}", archive()));
            // In k8s.io the CRI plugin adds the digest of the config, as it does for any.
            let names = cell.run(&format!("ctr -n {namespace} images list --quiet | grep -v ^sha256:"));
            assert_eq!(names, NAME);
        }
        for snapshotter in ["overlayfs", "native"] {
            cell.run(&format!("ctr images import --snapshotter {snapshotter} {}", archive()));
            for (signal, status) in [("SIGTERM", 0), ("SIGINT", 0), ("SIGKILL", 137)] {
                let mut run = cell.command("ctr");
                run.args(["run", "--rm", "--snapshotter", snapshotter, NAME, "pause"]);
                let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr");
                until("it runs", || cell.run("ctr task list").contains("RUNNING").then_some(()));
                assert_eq!(cell.run("ctr task exec --exec-id v pause /pause -v"), VERSION);
                cell.run(&format!("ctr task kill --signal {signal} pause"));
                let output = run.wait_with_output().expect("ctr");
                assert_eq!(output.status.code(), Some(status), "{snapshotter}, {signal}");
                let said = String::from_utf8_lossy(&output.stderr).contains("Shutting down, got signal: ");
                assert_eq!(said, status == 0);
            }
        }
    }

    /// As it stands, with the binaries of scripts/build, by each builder.
    #[ignore = "needs scripts/test"]
    fn builders_take_the_containerfile() {
        let cell = Cell::docker();
        let root = root().display();
        for (platform, arch) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
            cell.run(&format!("podman build --quiet --platform {platform} --tag localhost/podman:{arch} {root}"));
            cell.run(&format!("buildah build --quiet --platform {platform} --tag localhost/buildah:{arch} {root}"));
            cell.run(&format!("DOCKER_BUILDKIT=1 /usr/bin/docker build --file {root}/Containerfile --platform {platform} --tag buildkit:{arch} {root}"));
            cell.run(&format!("DOCKER_BUILDKIT=0 /usr/bin/docker build --file {root}/Containerfile --build-arg TARGETARCH={arch} --tag classic:{arch} {root}"));
            for image in ["podman", "buildah"] {
                let image = format!("localhost/{image}:{arch}");
                assert_eq!(cell.run(&format!("podman inspect --format '{{{{.Architecture}}}} {{{{.Config.User}}}} {{{{.Config.Entrypoint}}}} {{{{.Config.Cmd}}}}' {image}")),
                    format!("{arch} 65535:65535 [/pause] []"));
                cell.run(&format!("cd /run && cid=$(podman create {image}) && podman cp $cid:/pause . && cmp pause {}", dist(arch).display()));
            }
            for image in ["buildkit", "classic"] {
                let image = format!("{image}:{arch}");
                assert_eq!(cell.run(&format!("docker inspect --format '{{{{.Config.User}}}} {{{{.Config.Entrypoint}}}} {{{{.Config.Cmd}}}}' {image}")),
                    "65535:65535 [/pause] []");
                cell.run(&format!("cd /run && cid=$(docker create {image}) && docker cp $cid:/pause . && cmp pause {}", dist(arch).display()));
            }
        }
        cell.run(&format!("DOCKER_BUILDKIT=0 /usr/bin/docker build --file {root}/Containerfile --tag classic:default {root}"));
        assert_eq!(cell.run("docker run --rm classic:default -v"), VERSION);
    }

    #[ignore = "needs scripts/test"]
    fn a_registry_takes_it_and_gives_it_back() {
        let cell = Cell::docker();
        cell.registry();
        cell.daemon("containerd", "ctr version");
        let there = "127.0.0.1:5000/pause:1";
        let from = format!("oci-archive:{}", archive());
        cell.run(&format!("skopeo copy --all --preserve-digests --dest-tls-verify=false {from} docker://{there}"));
        let raw = |of: &str| cell.run(&format!("skopeo inspect --raw --tls-verify=false {of} | sha256sum"));
        assert_eq!(raw(&from), raw(&format!("docker://{there}")), "the index");

        for arch in ["amd64", "arm64"] {
            // The manifest of the platform, named by digest, in the archive.
            let digest = cell.run(&format!("skopeo inspect --raw {from} | jq -r '.manifests[] | select(.platform.architecture == \"{arch}\").digest'"));
            cell.run(&format!("skopeo --override-arch {arch} copy --src-tls-verify=false docker://{there} oci:/run/{arch}:1"));
            assert_eq!(cell.run(&format!("jq -r '.manifests[0].digest' /run/{arch}/index.json")), digest);
            cell.run(&format!("podman pull --quiet --arch {arch} --tls-verify=false {there}"));
            let pulled = cell.run(&format!("podman inspect --format '{{{{.Architecture}}}} {{{{.RepoDigests}}}}' {there}"));
            assert!(pulled.starts_with(arch) && pulled.contains(&digest), "{pulled}");
        }
        // And whoever else pulls, with a manifest that does not name its own type.
        cell.run(&format!("docker pull {there}"));
        assert_eq!(cell.run(&format!("docker run --rm {there} -v")), VERSION);
        cell.run(&format!("ctr images pull --plain-http {there} && ctr images check name=={there} | grep -q complete"));
    }

    /// By the kernel's binfmt_misc, which is the machine's: what is there is used,
    /// else an entry made, and taken out again.
    #[ignore = "needs scripts/test"]
    fn podman_runs_arm64_where_it_can() {
        let cell = Cell::new();
        let Some(_entry) = Binfmt::new(&cell) else { return };
        cell.run(&format!("skopeo --override-arch arm64 copy --quiet oci-archive:{} containers-storage:{NAME}", archive()));
        let run = format!("--name pause --platform linux/arm64 {NAME}");
        assert_eq!(cell.run(&format!("podman run --rm {run} -v")), VERSION);
        cell.run(&format!("podman run --detach {run}"));
        cell.run("podman stop pause");
        assert_eq!(cell.run("podman inspect --format '{{.State.ExitCode}} {{.ImageName}}' pause"), format!("0 {NAME}"));
        assert_eq!(cell.run("podman logs pause 2>&1"), LINE);
    }
}

/// An interpreter for arm64, with the flag that makes it work in any root.
struct Binfmt<'a>(Option<&'a Cell>);

impl<'a> Binfmt<'a> {
    const ENTRY: &'static str = "/proc/sys/fs/binfmt_misc/pause-test-aarch64";

    /// Says in one line why there is none.
    fn new(cell: &'a Cell) -> Option<Self> {
        let mounted = cell.output("mount -t binfmt_misc none /proc/sys/fs/binfmt_misc");
        let there = "grep -qs '^interpreter .*qemu-aarch64' /proc/sys/fs/binfmt_misc/*";
        if cell.output(there).status.success() {
            return Some(Self(None));
        }
        // Debian's own line, under a name that cannot be another's.
        let register = "sed s/^:qemu-aarch64:/:pause-test-aarch64:/ /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register";
        let registered = cell.output(register);
        if registered.status.success() {
            return Some(Self(Some(cell)));
        }
        let why = [mounted.stderr, registered.stderr].concat();
        println!(
            "arm64 was not run under podman: this kernel takes no binfmt_misc: {}",
            String::from_utf8_lossy(&why).trim().replace('\n', "; ")
        );
        None
    }
}

impl Drop for Binfmt<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.0 {
            cell.output(&format!("echo -1 >{}", Self::ENTRY));
        }
    }
}
