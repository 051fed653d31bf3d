//! The image in podman, Docker and containerd, each in a cell of its own, and in a registry.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use harness::cell::Cell;
use harness::checkout::home_of;
use harness::programs::{HOST, Platform, dist, emulated_platforms, host_platform, platforms, root, size};
use harness::running::sleeps_by;
use harness::{Folder, TERMINATED, run, until};

const NAME: &str = concat!("localhost/pause:", env!("PAUSE_VERSION"));
const VERSION: &str = concat!("pause ", env!("PAUSE_VERSION"));

fn archive() -> String {
    format!("{}/dist/pause.oci.tar", root().display())
}

/// The digest of the manifest for a platform, or of the only manifest without a platform.
fn digest_of(index: &str, arch: &str) -> String {
    let index: Value = serde_json::from_str(index).expect("JSON");
    let mut manifests = index["manifests"].as_array().expect("a list").iter();
    let ours = |one: &&Value| [&Value::Null, &arch.into()].contains(&&one["platform"]["architecture"]);
    let manifest = manifests.find(ours).expect("the platform");
    manifest["digest"].as_str().expect("a digest").to_string()
}

/// The options with which skopeo takes a platform of an image.
fn choose(platform: &Platform) -> String {
    let variant = platform.variant.unwrap_or_default();
    format!("--override-arch {} --override-variant '{variant}'", platform.architecture)
}

/// Waits until a container's pause sleeps. Before it has installed its handlers the kernel drops a SIGTERM for it, as
/// for every PID 1, and the engine kills it after its ten seconds.
fn await_sleep(cell: &Cell, engine: &str, container: &str) {
    let pid = cell.run(&format!("{engine} inspect --format '{{{{.State.Pid}}}}' {container}"));
    let file = format!("/proc/{}/root/proc/{pid}/syscall", cell.init);
    until("pause sleeps", || sleeps_by(Path::new(&file)).then_some(()));
}

pub fn podman_holds_a_pod_with_it() {
    let cell = Cell::start();
    assert_eq!(cell.run(&format!("podman load --quiet --input {}", archive())), format!("Loaded image: {NAME}"));
    assert_eq!(cell.run(&format!("podman run --rm {NAME} -v")), VERSION);
    cell.run(&format!(
        "podman pod create --name pod --infra-name infra --infra-image {NAME} --share pid,net,ipc,uts -p 8080:80"
    ));
    cell.run("podman pod start pod");
    await_sleep(&cell, "podman", "infra");
    cell.run("podman pod stop pod");
    assert_eq!(cell.run("podman inspect --format '{{.State.ExitCode}}' infra"), "0");
    assert_eq!(cell.run("podman logs infra 2>&1"), TERMINATED);

    // The same by the file of docs/switch.md, for every pod.
    let config = format!("[engine]\ninfra_image = \"{NAME}\"\n");
    let page = fs::read_to_string(root().join("docs/switch.md")).expect("a page");
    assert!(page.replace("\n   ", "\n").contains(&config), "docs/switch.md has not: {config}");
    let folder = "/etc/containers/containers.conf.d";
    cell.run(&format!("mkdir -p {folder} && printf %s '{config}' >{folder}/99-pause.conf"));
    cell.run("podman pod create --infra-name configured");
    assert_eq!(cell.run("podman inspect --format '{{.ImageName}}' configured"), NAME);
}

/// With Docker's own image store, which reads no OCI layout.
pub fn docker_holds_a_pod_with_it() {
    let cell = Cell::docker();
    assert!(cell.run(&format!("docker load --input {}", archive())).starts_with(&format!("Loaded image: {NAME}\n")));
    assert_eq!(cell.run(&format!("docker images --format '{{{{.Size}}}}' {NAME}")), format!("{}B", size(&HOST)));
    assert_eq!(cell.run(&format!("docker run --rm {NAME} -v")), VERSION);
    cell.run(&format!("docker run --detach --name pause --ipc=shareable -p 8080:80 {NAME}"));
    await_sleep(&cell, "docker", "pause");
    cell.run("docker stop pause");
    assert_eq!(cell.run("docker inspect --format '{{.State.ExitCode}}' pause"), "0");
    assert_eq!(cell.run("docker logs pause 2>&1"), TERMINATED);
}

pub fn containerd_runs_it_on_either_snapshotter() {
    let cell = Cell::containerd();
    for (namespace, options) in [("k8s.io", "--all-platforms"), ("default", "")] {
        cell.run(&format!("ctr -n {namespace} images import {options} {}", archive()));
        // In the namespace k8s.io, containerd's CRI plugin adds a name with the digest of the config.
        let names = cell.run(&format!("ctr -n {namespace} images list --quiet | grep -v ^sha256:"));
        assert_eq!(names, NAME);
    }
    for snapshotter in ["overlayfs", "native"] {
        cell.run(&format!("ctr images import --snapshotter {snapshotter} {}", archive()));
        for (signal, status) in [("SIGTERM", 0), ("SIGINT", 0), ("SIGKILL", 137)] {
            // On a busy machine ctr may end before it has copied what the container printed (containerd#8643,
            // containerd#13931): then it is tried again.
            until("ctr prints pause's last line, or none after SIGKILL", || {
                let mut run = cell.command("ctr");
                run.args(["run", "--rm", "--snapshotter", snapshotter, NAME, "pause"]);
                let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr");
                until("ctr prints the version", || {
                    let output = cell.output("ctr task exec --exec-id v pause /pause -v");
                    (String::from_utf8_lossy(&output.stdout).trim() == VERSION).then_some(())
                });
                cell.run(&format!("ctr task kill --signal {signal} pause"));
                let output = run.wait_with_output().expect("ctr");
                assert_eq!(output.status.code(), Some(status), "{snapshotter}, {signal}");
                let wrote = String::from_utf8_lossy(&output.stderr).contains("Shutting down");
                (wrote == (status == 0)).then_some(())
            });
        }
    }
}

/// Builds the Containerfile as it is, from nothing, for another platform. The build stage is an image of Debian's
/// packages and the toolchain of this machine, as no registry can be reached.
pub fn podman_makes_the_same_file_from_the_containerfile() {
    let (cell, folder) = (Cell::start(), Folder::new("builder"));
    let (root, folder) = (root().display(), folder.display());
    let arch = emulated_platforms()[0].architecture;
    run(
        "bash",
        &[
            "-ec",
            &format!(
                "mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)
                mmdebstrap --quiet --variant=apt --include=rustup,gcc,libc6-dev,ca-certificates trixie {folder}/root $mirror
                cd {root} && from=$(rustc --print sysroot)
                to={folder}/root/root/.rustup/toolchains/$(rustup show active-toolchain | cut -d' ' -f1)
                mkdir -p $to {folder}/root/root/.cargo && cp -r $from/. $to
                cp {rustup}/settings.toml {folder}/root/root/.rustup/
                cp -r {cargo}/registry {folder}/root/root/.cargo/
                tar -C {folder}/root -cf {folder}/builder.tar . && rm -r {folder}/root",
                rustup = home_of("RUSTUP_HOME", ".rustup").display(),
                cargo = home_of("CARGO_HOME", ".cargo").display(),
            ),
        ],
    );
    // Where podman isolates a build by more, a cell is not enough.
    cell.run(&format!(
        "podman import --quiet {folder}/builder.tar localhost/builder
         BUILDAH_ISOLATION=chroot podman build --quiet --pull=never --file {root}/Containerfile --tag localhost/built \
             --platform linux/{arch} --build-arg BUILDER=localhost/builder --build-arg BUILDPLATFORM=linux/{} {root}",
        *HOST
    ));
    let fields = ["Architecture", "Config.User", "Config.Entrypoint", "Config.Cmd"];
    let format = fields.map(|field| format!("{{{{.{field}}}}}")).join(" ");
    let shown = cell.run(&format!("podman inspect --format '{format}' localhost/built"));
    assert_eq!(shown, format!("{arch} 65535:65535 [/pause] []"));
    cell.run(&format!(
        "cd /run; cid=$(podman create localhost/built); podman cp $cid:/pause .; cmp pause {}",
        dist(arch).display()
    ));
}

pub fn a_registry_takes_it_and_gives_it_back() {
    let cell = Cell::docker();
    cell.registry();
    cell.daemon("containerd", "ctr version");
    let there = "127.0.0.1:5000/pause:1";
    let from = format!("oci-archive:{}", archive());
    cell.run(&format!("skopeo copy --all --preserve-digests --dest-tls-verify=false {from} docker://{there}"));
    let raw = |of: &str| cell.run(&format!("skopeo inspect --raw --tls-verify=false {of} | sha256sum"));
    assert_eq!(raw(&from), raw(&format!("docker://{there}")), "the index");

    for platform in platforms() {
        let arch = platform.architecture;
        let digest = digest_of(&cell.run(&format!("skopeo inspect --raw {from}")), arch);
        cell.run(&format!(
            "skopeo {} copy --src-tls-verify=false docker://{there} oci:/run/{arch}:1",
            choose(platform)
        ));
        assert_eq!(digest_of(&cell.run(&format!("cat /run/{arch}/index.json")), arch), digest);
        cell.run(&format!("podman pull --quiet --platform {platform} --tls-verify=false {there}"));
        let pulled = cell.run(&format!("podman inspect --format '{{{{.Architecture}}}} {{{{.RepoDigests}}}}' {there}"));
        assert!(pulled.starts_with(arch) && pulled.contains(&digest), "{pulled}");
    }
    // Another client that pulls gets the same image.
    cell.run(&format!("docker pull {there}"));
    assert_eq!(cell.run(&format!("docker run --rm {there} -v")), VERSION);
    cell.run(&format!("ctr images pull --plain-http {there} && ctr images check name=={there} | grep -q complete"));
}

/// Engines, and tools that take an archive with one image only. They know when it was created, can convert it, and
/// build another image on it.
pub fn all_take_the_archive_of_a_platform_and_build_on_it() {
    let cell = Cell::docker();
    cell.daemon("containerd", "ctr version");
    let archive = format!("{}/dist/{}", root().display(), host_platform().archive());
    cell.run(&format!("podman load --quiet --input {archive} && podman rmi {NAME}"));
    cell.run(&format!("podman pull --quiet docker-archive:{archive}"));
    cell.run(&format!("docker load --input {archive} && ctr images import {archive}"));
    assert_eq!(cell.run("ctr images list --quiet"), NAME);
    for engine in ["podman", "docker"] {
        assert_eq!(cell.run(&format!("{engine} run --rm {NAME} -v")), VERSION);
    }
    cell.run(&format!("skopeo copy --quiet --format v2s1 oci-archive:{archive} dir:/run/v2s1"));
    cell.run(&format!("buildah rm $(buildah from --pull-never {NAME})"));
    cell.run(&format!("printf 'FROM {NAME}\\nLABEL a=b\\n' >/run/Containerfile"));
    for build in ["podman build --quiet", "docker build --quiet"] {
        cell.run(&format!("{build} --tag localhost/child --file /run/Containerfile /run"));
    }
}
