//! The image in podman, Docker and containerd, each in a cell of its own, and in a registry.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use goblin::elf::Elf;
use serde_json::Value;

use harness::cell::{Cell, left_behind};
use harness::checkout::home_of;
use harness::debian::debootstrap;
use harness::programs::{
    HOST, Platform, debian_platforms, dist, emulated_platforms, host_platform, platforms, program,
    qemu_user, root, size,
};
use harness::running::sleeps_by;
use harness::suite::Suite;
use harness::tests;
use harness::{Folder, TERMINATED, documentation, run, until};

pub fn list(suite: &mut Suite) {
    suite.prepared(tests![
        builders_make_the_same_file_from_the_containerfile,
        a_cell_leaves_nothing,
        podman_holds_a_pod_with_it,
        reaps_orphans_of_a_member_of_podman_that_it_traces,
        docker_holds_a_pod_with_it,
        containerd_runs_it_on_either_snapshotter,
        a_registry_takes_it_and_gives_it_back,
        all_take_the_archive_of_a_platform_and_build_on_it,
        podman_runs_other_platforms,
    ]);
}

const NAME: &str = concat!("localhost/pause:", env!("PAUSE_VERSION"));
const VERSION: &str = concat!("pause ", env!("PAUSE_VERSION"));

fn archive() -> String {
    format!("{}/dist/pause.oci.tar", root().display())
}

/// The digest of the manifest for a platform, or of the only manifest without a platform.
#[track_caller]
fn digest_of(index: &str, arch: &str) -> String {
    let index: Value = serde_json::from_str(index).expect("JSON");
    let mut manifests = index["manifests"].as_array().expect("a list").iter();
    let ours =
        |one: &&Value| [&Value::Null, &arch.into()].contains(&&one["platform"]["architecture"]);
    let manifest = manifests.find(ours).expect("the platform");
    manifest["digest"].as_str().expect("a digest").to_string()
}

/// The options with which skopeo takes a platform of an image.
fn choose(platform: &Platform) -> String {
    let variant = platform.variant.as_deref().unwrap_or_default();
    format!("--override-arch {} --override-variant '{variant}'", platform.architecture)
}

/// The number of processes in a PID namespace.
fn processes_in(namespace: &Path) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path().join("ns/pid")).ok());
    links.filter(|link| link == namespace).count()
}

/// Waits until a container's pause sleeps. Before it has installed its handlers the kernel drops
/// a SIGTERM for it, as for every PID 1, and the engine kills it after its ten seconds.
fn await_sleep(cell: &Cell, engine: &str, container: &str) {
    let pid = cell.run(&format!("{engine} inspect --format '{{{{.State.Pid}}}}' {container}"));
    let file = format!("/proc/{}/root/proc/{pid}/syscall", cell.init);
    until("pause sleeps", || sleeps_by(Path::new(&file)).then_some(()));
}

fn a_cell_leaves_nothing() {
    let cell = Cell::docker();
    cell.run(&format!("docker load --input {}", archive()));
    let container = cell.run(&format!("docker run --detach -p 8080:80 {NAME}"));
    let namespace =
        fs::read_link(format!("/proc/{}/ns/pid", cell.init)).expect("its PID namespace");
    // While it is open, no other namespace gets its number.
    let _namespace = fs::File::open(format!("/proc/{}/ns/pid", cell.init)).expect("the same");
    let (groups, name) = (cell.groups.clone(), cell.name.clone());
    assert!(!left_behind(&name).is_empty(), "its control groups");
    // The cell's pause, dockerd, its containerd, a shim, a proxy, and the container's pause.
    assert!(processes_in(&namespace) >= 6);
    drop(cell);
    assert_eq!(processes_in(&namespace), 0);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    for name in [&name, &container] {
        assert_eq!(left_behind(name), Vec::<String>::new());
    }
}

fn podman_holds_a_pod_with_it() {
    let cell = Cell::start();
    assert_eq!(
        cell.run(&format!("podman load --quiet --input {}", archive())),
        format!("Loaded image: {NAME}")
    );
    assert_eq!(cell.run(&format!("podman run --rm {NAME} -v")), VERSION);
    cell.run(&format!("podman pod create --name pod --infra-name infra --infra-image {NAME} --share pid,net,ipc,uts -p 8080:80"));
    cell.run("podman pod start pod");
    await_sleep(&cell, "podman", "infra");
    cell.run("podman pod stop pod");
    assert_eq!(cell.run("podman inspect --format '{{.State.ExitCode}}' infra"), "0");
    assert_eq!(cell.run("podman logs infra 2>&1"), TERMINATED);

    // The same by the file of docs/switch.md, for every pod.
    cell.run(&format!("mkdir -p /etc/containers/containers.conf.d && printf %s '{}' >/etc/containers/containers.conf.d/99-pause.conf", documentation::block("podman", "toml")));
    cell.run("podman pod create --infra-name configured");
    assert_eq!(cell.run("podman inspect --format '{{.ImageName}}' configured"), NAME);
}

/// With podman's own seccomp profile. Neither it nor the user keeps a member from making pause
/// its tracer.
fn reaps_orphans_of_a_member_of_podman_that_it_traces() {
    let cell = Cell::start();
    cell.run(&format!("podman load --quiet --input {}", archive()));
    let folder = program("orphans").parent().expect("a folder").display().to_string();
    cell.run(&format!(
        "tar --create --directory {folder} orphans | podman import --quiet - localhost/member"
    ));
    cell.run(&format!(
        "podman pod create --name pod --infra-name infra --infra-image {NAME} --share pid"
    ));
    cell.run("podman pod start pod");
    let pid = cell.run("podman inspect --format '{{.State.Pid}}' infra");
    let sleeps = || {
        cell.run(&format!("sed -n 's/^voluntary_ctxt_switches:\t//p' /proc/{pid}/status"))
            .parse::<u64>()
            .expect("a number")
    };
    let before = sleeps();
    // 1,000 orphans, of which pause traces 100.
    cell.run("podman run --rm --pod pod --user 1000 localhost/member /orphans traced");
    until("pause has no child", || {
        cell.run(&format!("cat /proc/{pid}/task/{pid}/children")).is_empty().then_some(())
    });
    let woken = sleeps() - before;
    // On a busy machine the kernel may let pause wait for a lock while it reaps, which counts as well.
    assert!((1..=200).contains(&woken), "woken {woken} times");
    cell.run("podman pod stop pod");
    assert_eq!(cell.run("podman inspect --format '{{.State.ExitCode}}' infra"), "0");
}

/// With Docker's own image store, which reads no OCI layout.
fn docker_holds_a_pod_with_it() {
    let cell = Cell::docker();
    assert!(
        cell.run(&format!("docker load --input {}", archive()))
            .starts_with(&format!("Loaded image: {NAME}\n"))
    );
    assert_eq!(
        cell.run(&format!("docker images --format '{{{{.Size}}}}' {NAME}")),
        format!("{}B", size(&HOST))
    );
    assert_eq!(cell.run(&format!("docker run --rm {NAME} -v")), VERSION);
    cell.run(&format!("docker run --detach --name pause --ipc=shareable -p 8080:80 {NAME}"));
    await_sleep(&cell, "docker", "pause");
    cell.run("docker stop pause");
    assert_eq!(cell.run("docker inspect --format '{{.State.ExitCode}}' pause"), "0");
    assert_eq!(cell.run("docker logs pause 2>&1"), TERMINATED);
}

fn containerd_runs_it_on_either_snapshotter() {
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
            // On a busy machine ctr may end before it has copied what the container printed
            // (containerd#8643, containerd#13931): then it is tried again.
            until("ctr prints pause's last line, or none after SIGKILL", || {
                let mut run = cell.command("ctr");
                run.args(["run", "--rm", "--snapshotter", snapshotter, NAME, "pause"]);
                let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr");
                until("it runs", || cell.run("ctr task list").contains("RUNNING").then_some(()));
                until("ctr prints the version", || {
                    (cell.run("ctr task exec --exec-id v pause /pause -v") == VERSION).then_some(())
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

/// Builds the Containerfile as it is, from nothing, by each builder: podman for this machine, buildah
/// and BuildKit for another platform. The build stage is an image of Debian's packages and the
/// toolchain of this machine, as no registry can be reached. BuildKit makes the tool as well; podman
/// and buildah get it with this image, as each would take a minute for it.
fn builders_make_the_same_file_from_the_containerfile() {
    let other = debian_platforms();
    let other = other.iter().find(|one| one.architecture != *HOST).expect("another platform");
    let builder = Builder::new(&[host_platform(), other]);
    let cell = Cell::docker();
    let tar = builder.0.join("builder.tar");
    cell.run(&format!(
        "docker import {0} localhost/builder
         podman import --quiet --change 'ENV PAUSE_XTASK=/xtask' {0} localhost/builder",
        tar.display()
    ));
    for (engine, build, platform) in [
        // Where they isolate a build by more, a cell is not enough.
        ("podman", "BUILDAH_ISOLATION=chroot podman build --quiet --pull=never", host_platform()),
        ("podman", "BUILDAH_ISOLATION=chroot buildah build --quiet --pull=never", other),
        ("docker", "DOCKER_BUILDKIT=1 /usr/bin/docker build", other),
    ] {
        let (root, arch) = (root().display(), platform.architecture.as_str());
        cell.run(&format!(
            "{build} --file {root}/Containerfile --tag localhost/built --platform {platform} \
             --build-arg BUILDER=localhost/builder --build-arg BUILDPLATFORM=linux/{} {root}",
            *HOST
        ));
        let fields = ["Architecture", "Config.User", "Config.Entrypoint", "Config.Cmd"];
        let format = fields.map(|field| format!("{{{{.{field}}}}}")).join(" ");
        let shown = cell.run(&format!("{engine} inspect --format '{format}' localhost/built"));
        assert_eq!(shown, format!("{arch} 65535:65535 [/pause] []"), "{build}");
        let pause = dist(arch);
        cell.run(&format!(
            "cd /run; cid=$({engine} create localhost/built); {engine} cp $cid:/pause .; cmp pause {}",
            pause.display()
        ));
    }
}

fn a_registry_takes_it_and_gives_it_back() {
    let cell = Cell::docker();
    cell.registry();
    cell.daemon("containerd", "ctr version");
    let there = "127.0.0.1:5000/pause:1";
    let from = format!("oci-archive:{}", archive());
    cell.run(&format!(
        "skopeo copy --all --preserve-digests --dest-tls-verify=false {from} docker://{there}"
    ));
    let raw =
        |of: &str| cell.run(&format!("skopeo inspect --raw --tls-verify=false {of} | sha256sum"));
    assert_eq!(raw(&from), raw(&format!("docker://{there}")), "the index");

    for platform in platforms() {
        let arch = platform.architecture.as_str();
        let digest = digest_of(&cell.run(&format!("skopeo inspect --raw {from}")), arch);
        cell.run(&format!(
            "skopeo {} copy --src-tls-verify=false docker://{there} oci:/run/{arch}:1",
            choose(platform)
        ));
        assert_eq!(digest_of(&cell.run(&format!("cat /run/{arch}/index.json")), arch), digest);
        cell.run(&format!("podman pull --quiet --platform {platform} --tls-verify=false {there}"));
        let pulled = cell.run(&format!(
            "podman inspect --format '{{{{.Architecture}}}} {{{{.RepoDigests}}}}' {there}"
        ));
        assert!(pulled.starts_with(arch) && pulled.contains(&digest), "{pulled}");
    }
    // Another client that pulls gets the same image.
    cell.run(&format!("docker pull {there}"));
    assert_eq!(cell.run(&format!("docker run --rm {there} -v")), VERSION);
    cell.run(&format!(
        "ctr images pull --plain-http {there} && ctr images check name=={there} | grep -q complete"
    ));
}

/// Engines, and tools that take an archive with one image only. They know when it was created, can
/// convert it, and build another image on it.
fn all_take_the_archive_of_a_platform_and_build_on_it() {
    let cell = Cell::docker();
    cell.daemon("containerd", "ctr version");
    let archive = format!("{}/dist/{}", root().display(), host_platform().archive());
    cell.run(&format!("podman load --quiet --input {archive} && podman rmi {NAME}"));
    cell.run(&format!("podman pull --quiet docker-archive:{archive}"));
    cell.run(&format!("docker load --input {archive} && ctr images import {archive}"));
    assert_eq!(cell.run("ctr images list --quiet"), NAME);
    let config = cell.run(&format!("skopeo inspect --config docker-archive:{archive}"));
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let created = config["created"].as_str().expect("a time").trim_end_matches('Z');
    for engine in ["podman", "docker"] {
        let shown = cell.run(&format!("{engine} inspect --format '{{{{.Created}}}}' {NAME}"));
        assert!(shown.replace(' ', "T").starts_with(created), "{engine}: {shown}, not {created}");
        assert_eq!(cell.run(&format!("{engine} history --quiet {NAME} | wc -l")), "1");
        assert_eq!(cell.run(&format!("{engine} run --rm {NAME} -v")), VERSION);
    }
    cell.run(&format!("skopeo copy --quiet --format v2s1 oci-archive:{archive} dir:/run/v2s1"));
    cell.run(&format!("buildah rm $(buildah from --pull-never {NAME})"));
    cell.run(&format!("printf 'FROM {NAME}\\nLABEL a=b\\n' >/run/Containerfile"));
    for build in ["podman build --quiet", "docker build --quiet"] {
        cell.run(&format!("{build} --tag localhost/child --file /run/Containerfile /run"));
    }
}

/// The kernel's binfmt_misc runs programs for other architectures by qemu-user. From Linux 6.7
/// on a user namespace has a binfmt_misc of its own. Before, there is one for the whole
/// machine, in which the test adds entries and removes them.
fn podman_runs_other_platforms() {
    let cell = Cell::start();
    let binfmt = Binfmt::new(&cell);
    for platform in emulated_platforms() {
        let arch = &platform.architecture;
        cell.run(&format!(
            "skopeo {} copy --quiet oci-archive:{} containers-storage:{NAME}",
            choose(platform),
            archive()
        ));
        // The network belongs to another user namespace, so podman could not configure it.
        let run = format!("--network none --name {arch} --platform {platform} {NAME}");
        assert_eq!(binfmt.run(&format!("podman run --rm {run} -v")), VERSION);
        binfmt.run(&format!("podman run --detach {run}"));
        await_sleep(&cell, "podman", arch);
        cell.run(&format!("podman stop {arch}"));
        assert_eq!(
            cell.run(&format!(
                "podman inspect --format '{{{{.State.ExitCode}}}} {{{{.ImageName}}}}' {arch}"
            )),
            format!("0 {NAME}")
        );
        assert_eq!(cell.run(&format!("podman logs {arch} 2>&1")), TERMINATED);
    }
}

/// The root filesystem of a build stage, as a tar archive in a folder.
struct Builder(Folder);

impl Builder {
    /// Debian 13, which has rustup as a package, with the toolchain and the crates of this machine.
    #[track_caller]
    fn new(platforms: &[&Platform]) -> Self {
        let folder = Folder::new("builder");
        let packages = ["rustup", "gcc", "libc6-dev", "ca-certificates"];
        debootstrap("trixie", &packages, &folder.join("root"));
        let targets: Vec<_> =
            platforms.iter().map(|one| format!("lib/rustlib/{}", one.target)).collect();
        let line = format!(
            "cd {root} && from=$(rustc --print sysroot)
             to={folder}/root/root/.rustup/toolchains/$(rustup show active-toolchain | cut -d' ' -f1)
             mkdir -p $to && cd $from && cp -r --parents bin lib/*.so* $(find lib/rustlib -maxdepth 1 -type f) {targets} $to
             cp {rustup}/settings.toml {folder}/root/root/.rustup/
             cp $PAUSE_XTASK {folder}/root/xtask
             mkdir -p {folder}/root/root/.cargo && cp -r --parents {cargo}/registry/index {cargo}/registry/cache {folder}/root
             tar -C {folder}/root -cf {folder}/builder.tar . && rm -r {folder}/root",
            root = root().display(),
            folder = folder.display(),
            targets = targets.join(" "),
            rustup = home_of("RUSTUP_HOME", ".rustup").display(),
            cargo = home_of("CARGO_HOME", ".cargo").display(),
        );
        run("bash", &["-ec", &line]);
        Self(folder)
    }
}

/// Entries of binfmt_misc for platforms, with the flag F, which makes them work in any root.
struct Binfmt<'a> {
    cell: &'a Cell,
    /// The command that enters the user namespace with the entries, if it is not the machine's.
    enter: String,
    /// The names of entries that must be removed at the end.
    entries: Vec<String>,
}

/// The folder where binfmt_misc is mounted.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// The unique name of an entry for a platform, and the line that registers it: programs are told
/// by the first 20 bytes of their ELF header.
fn entry(platform: &Platform) -> (String, String) {
    let file = fs::read(dist(&platform.architecture)).expect("pause");
    let elf = Elf::parse(&file).expect("an ELF file");
    let mut mask = [0xff; 20];
    mask[7] = 0; // the ABI, which may be that of Linux or none
    mask[if elf.little_endian { 16 } else { 17 }] = 0xfe; // ET_EXEC or ET_DYN
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let header: Vec<_> = file.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
    let name = harness::unique(&platform.architecture);
    let emulator = qemu_user(platform);
    let line = format!(":{name}:M::{}:{}:{emulator}:F", text(&header), text(&mask));
    (name, line)
}

impl<'a> Binfmt<'a> {
    #[track_caller]
    fn new(cell: &'a Cell) -> Self {
        let mut entries: Vec<_> = emulated_platforms().into_iter().map(entry).collect();
        let register = |entries: &[(String, String)]| {
            let echo = |(_, line): &(String, String)| format!("echo \"{line}\" >{BINFMT}/register");
            entries.iter().map(echo).collect::<Vec<_>>().join("; ")
        };
        // A user namespace has no owner inside until its user IDs are mapped.
        cell.run(&format!(
            "unshare --user --mount sh -ec 'echo $$ >/run/binfmt; until grep -q . /proc/$$/uid_map; do sleep 0.1; done
                mount -t binfmt_misc none {BINFMT}; {}; touch /run/registered; exec sleep infinity' >/run/binfmt.log 2>&1 &
            until [ -s /run/binfmt ]; do sleep 0.1; done; pid=$(cat /run/binfmt)
            echo 0 0 65536 >/proc/$pid/uid_map; echo 0 0 65536 >/proc/$pid/gid_map",
            register(&entries)
        ));
        let log = harness::until("a binfmt_misc of its own, or the reason why not", || {
            let state = cell.run(
                "if [ -e /run/registered ]; then echo registered; else cat /run/binfmt.log; fi",
            );
            (!state.is_empty()).then_some(state)
        });
        if log == "registered" {
            let enter = format!("nsenter --target {} --user --mount ", cell.run("cat /run/binfmt"));
            return Self { cell, enter, entries: Vec::new() };
        }
        cell.output(&format!("mount -t binfmt_misc none {BINFMT}"));
        entries.retain(|(_, line)| {
            // The machine may have an entry for this emulator.
            let emulator = line.split(':').nth_back(1).expect("its path");
            !cell
                .output(&format!("grep -qs '^interpreter {emulator}$' {BINFMT}/*"))
                .status
                .success()
        });
        let registered = cell.output(&format!("set -e; {}", register(&entries)));
        assert!(
            registered.status.success(),
            "no other platform can be run under podman: this kernel takes no binfmt_misc: {log}; {}",
            String::from_utf8_lossy(&registered.stderr).trim()
        );
        Self {
            cell,
            enter: String::new(),
            entries: entries.into_iter().map(|(name, _)| name).collect(),
        }
    }

    /// Runs a shell command where programs for the platforms can be run.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        self.cell.run(&format!("{}sh -ec '{line}'", self.enter))
    }
}

impl Drop for Binfmt<'_> {
    fn drop(&mut self) {
        for entry in &self.entries {
            self.cell.output(&format!("echo -1 >{BINFMT}/{entry}"));
        }
    }
}
