//! pause-switch on a node whose kubelet runs pods on another pause: there and back.

use std::fs;

use harness::programs::{HOST, host_platform, platform, root};

use crate::images::{Images, archive};
use crate::kubelet::{self, StaticPod, manifest};
use crate::node::{Node, Runtime};
use crate::pod::is_ours;
use crate::report::Report;
use crate::work::{PAUSE, PREVIOUS, Work, bin};

/// The name of our image on a node with a registry. The registry of the container environment is the mirror of every
/// host.
const NEW: &str = concat!("registry.example/pause:", env!("PAUSE_VERSION"));

/// A name that no registry has, and that is not the one in the archive.
const AIR_GAPPED: &str = "air-gapped.example/infra/pause:1";

const CONFIG: &str = "/etc/containerd/config.toml";

/// Prints the image that containerd 1.x uses if nothing sets another.
const DEFAULT_IMAGE: &str = r#"containerd config dump 2>/dev/null | sed -n 's/^ *sandbox_image = "\(.*\)"$/\1/p'"#;

/// The checksums of the files that a switch may change.
const SETTINGS: &str = "find /etc/containerd /etc/crio /etc/containers -type f 2>/dev/null | sort | xargs sha256sum";

/// An image that no container uses and nobody pins, as a control.
const UNPINNED: &str = "localhost/e2e:app-2";

/// Makes a node whose sandboxes run the old pause, and what pause-switch calls. A container environment has a registry,
/// and no systemd, so a small script restarts the daemons. A machine with systemd has no registry: it is an air-gapped
/// node.
fn old_node(runtime: Runtime, work: &Work, images: &Images) -> Node {
    let node = images.node(runtime, PREVIOUS, work);
    let (ctr, imported) = (&node.ctr, "localhost/e2e:old");
    node.write("/run/switch/systemctl", include_str!("config/systemctl"));
    if node.is_in_cell() {
        node.cell().registry();
        images.serve_pause(&node);
        node.sh("chmod 755 /run/switch/systemctl");
    } else {
        node.sh(&format!("{ctr} images tag {imported} {PREVIOUS}; ln -sf {}/crictl /run/switch/", bin().display()));
    }
    // Under two names, the runtime would show either.
    if !node.crio {
        node.sh(&format!("{ctr} images remove --sync {imported}"));
    }
    match node.is_in_cell() {
        true => drop(node.crictl(&format!("pull {PREVIOUS}"))),
        // The CRI plugin of containerd 1.7 finds a name that ctr has given when it starts (containerd#13494).
        false => node.start(),
    }
    node.write("/etc/crictl.yaml", &format!("runtime-endpoint: {0}\nimage-endpoint: {0}\n", node.endpoint));
    node
}

/// The name of the image that the pause of a pod comes from.
fn image_of(pod: &StaticPod) -> String {
    let info = pod.node.inspect(&format!("inspectp {}", pod.running().0));
    info["info"]["image"].as_str().expect("the image of a sandbox").to_string()
}

/// Starts a static pod with one container and returns it when it runs.
fn start<'a>(node: &'a Node, name: &'static str) -> StaticPod<'a> {
    let text = include_str!("config/member.yaml").replace("@NAME@", name);
    manifest(node, &format!("{name}.yaml"), &text.replace("@IMAGE@", "localhost/e2e:sleeper"));
    let pod = StaticPod { node, name };
    pod.runs("member");
    pod
}

/// Runs pause-switch, and returns its last line. It must end with a status, and say something.
fn says(node: &Node, arguments: &str, status: i32, text: &str) -> String {
    // On a machine it is beside this program.
    let program = std::env::var("PAUSE_SWITCH").unwrap_or(bin().join("pause-switch").display().to_string());
    let output = node.output(&format!("PATH=/run/switch:$PATH {program} {arguments}"));
    let both = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments}: {both}");
    assert!(both.contains(text), "{arguments}: {both}");
    both.trim().lines().last().unwrap_or_default().to_string()
}

/// pause-switch on a new node: there and back, and what it refuses or undoes.
pub fn check(runtime: Runtime, work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(runtime, work, images);
    report.versions(&[&node.programs[..], &[kubelet::version(node)]].concat());
    let says = |arguments: &str, status: i32, text: &str| says(node, arguments, status, text);
    let has = |image: &str| node.crictl_output(&format!("inspecti {image}")).status.success();
    let (new, to) = match node.is_in_cell() {
        true => (NEW, format!("to {NEW}")),
        false => (PAUSE, format!("to {PAUSE} --archive {}", archive())),
    };
    let before_all = node.sh(SETTINGS);
    kubelet::start(node);
    let before = start(node, "before");
    let held = before.running();
    assert_eq!(image_of(&before), PREVIOUS);

    report.check("what is wrong with the image is noticed before anything is changed", || {
        says("to registry.example/none:1", 1, "none");
        says(&format!("to {UNPINNED}"), 1, "is not the pause of this release");
        let other = platform(if *HOST == "amd64" { "arm64" } else { "amd64" });
        let other = root().join("dist").join(other.archive());
        says(&format!("--limit 5 to {AIR_GAPPED} --archive {}", other.display()), 1, "for this platform");
        assert_eq!(node.sh(SETTINGS), before_all);
    });
    report.check("--dry-run prints each change and command, and changes nothing", || {
        says(&format!("{to} --dry-run"), 0, "systemctl restart");
        assert_eq!(node.sh(SETTINGS), before_all);
    });
    // The systemd of a machine cannot be told to fail.
    if node.is_in_cell() {
        report.check("a runtime that does not answer, and no systemd, are noticed", || {
            let daemon = if node.crio { "crio" } else { "containerd" };
            node.sh(&format!("pkill -STOP -x {daemon}"));
            says(&to, 1, "does not answer");
            node.sh(&format!("pkill -CONT -x {daemon}; chmod 644 /run/switch/systemctl"));
            says(&to, 3, "systemd has no unit");
            node.sh("chmod 755 /run/switch/systemctl");
            assert_eq!(node.sh(SETTINGS), before_all);
        });
        report.check("a runtime that does not come up is undone, and pods run on", || {
            node.write("/run/switch/refuse", new);
            says(&to, 1, "the change was undone");
            // A restart that does not end is one that failed.
            node.sh("mv /run/switch/refuse /run/switch/hang");
            says(&format!("--limit 5 {to}"), 1, "the change was undone");
            node.sh("rm /run/switch/hang");
            assert_eq!(node.sh(SETTINGS), before_all);
            assert_eq!(before.running(), held);
            assert_eq!(image_of(&start(node, "undone")), PREVIOUS);
        });
    }
    report.check("it switches the node, pods run on, and new pods run on ours", || {
        let line = says(&to, 0, new);
        says(&to, 0, "unchanged");
        says("status", 0, &format!("switched from {PREVIOUS} to {new}"));
        assert_eq!(before.running(), held);
        let after = start(node, "after");
        is_ours(node, after.running().1);
        assert_eq!(image_of(&after), new);
        says("check --pod", 0, "a pod was started and removed");
        line
    });
    report.check("under disk pressure the kubelet removes an image that nobody pins, and neither pause", || {
        assert!(has(UNPINNED) && has(new));
        kubelet::under_disk_pressure(node, || !has(UNPINNED));
        assert!(!node.pins() || has(new) && has(PREVIOUS), "one of the images is gone");
    });
    report.check("it goes back, to the same bytes, and new pods run on the old pause", || {
        let line = says("back", 0, PREVIOUS);
        says("back", 0, "unchanged");
        assert_eq!(node.sh(SETTINGS), before_all);
        assert_eq!(image_of(&start(node, "again")), PREVIOUS);
        assert_eq!(before.running(), held);
        line
    });
    // At the end: of an image with two names the runtime shows either.
    report.check("without a registry, it imports an archive under the name that is configured", || {
        let alone = root().join("dist").join(host_platform().archive());
        says(&format!("to {AIR_GAPPED} --archive {}", alone.display()), 0, AIR_GAPPED);
        assert_eq!(image_of(&start(node, "air-gapped")), AIR_GAPPED);
        says("back", 0, PREVIOUS);
        assert_eq!(node.sh(SETTINGS), before_all);
    });
    if !node.crio && node.is_in_cell() {
        report.check("of several files it changes the one that decides, which is a drop-in", || {
            let config = fs::read_to_string(node.path(CONFIG)).expect("the file");
            // As the toolkit of NVIDIA writes it: containerd 1.x takes all of the table from it.
            let (version, table) = match node.name.contains(" 1.") {
                true => (2, "'io.containerd.grpc.v1.cri'.containerd"),
                false => (3, "'io.containerd.cri.v1.images'"),
            };
            let drop_in = format!("version = {version}\n[plugins.{table}]\n# theirs\n");
            node.write("/etc/containerd/conf.d/99-theirs.toml", &drop_in);
            node.write(CONFIG, &format!("imports = ['/etc/containerd/conf.d/*.toml']\n{config}"));
            // containerd 1.x uses its default now, which has to be there for the way back.
            let default = node.sh(DEFAULT_IMAGE);
            if !default.is_empty() {
                node.sh(&format!("{} images tag {PREVIOUS} {default}", node.ctr));
            }
            let before = node.sh(SETTINGS);
            says(&to, 0, new);
            let changed = node.sh("cat /etc/containerd/conf.d/99-theirs.toml");
            assert!(changed.contains(new) && changed.contains("# theirs"), "{changed}");
            says("check", 0, new);
            says("back", 0, "again");
            assert_eq!(node.sh(SETTINGS), before);
        });
    }
}

/// pause-switch there and back on a node whose containerd is started by a stand-in for k3s.
pub fn on_k3s(work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(Runtime::Containerd2, work, images);
    report.versions(&node.programs);
    // Its tools are in it: k3s crictl, k3s ctr.
    node.write("/run/switch/k3s", "#!/bin/sh\nexec \"$@\"\n");
    node.write("/run/switch/k3s-server", include_str!("config/k3s-server"));
    node.sh("mkdir -p /etc/rancher/k3s; chmod 755 /run/switch/*; PATH=/run/switch:$PATH systemctl restart k3s");
    kubelet::start(node);
    let before = start(node, "before");
    let held = before.running();
    let files = "find /etc/rancher -type f | sort | xargs -r sha256sum";
    let before_all = node.sh(files);
    report.check("it adds a file with the setting, and goes back; pods run on", || {
        says(node, &format!("to {NEW}"), 0, NEW);
        assert_eq!(image_of(&start(node, "after")), NEW);
        says(node, "check --pod", 0, NEW);
        let line = says(node, "back", 0, "again");
        assert_eq!(node.sh(files), before_all);
        assert_eq!(image_of(&start(node, "again")), PREVIOUS);
        assert_eq!(before.running(), held);
        line
    });
    report.check("where a flag of k3s decides, the change is undone", || {
        node.write("/run/switch/flag", PREVIOUS);
        says(node, &format!("to {NEW}"), 1, "a flag or a template decides");
        assert_eq!(node.sh(files), before_all);
    });
}

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_BEFORE: &str = "/etc/pause-e2e-boot";

/// Switches a machine, and has systemd start its runtime and its kubelet when it boots.
pub fn before_reboot(work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(Runtime::Containerd1, work, images);
    report.versions(&[&node.programs[..], &[kubelet::version(node)]].concat());
    // Of an image with two names the runtime shows either: this one is of another suite.
    node.sh(&format!("{} images remove --sync {AIR_GAPPED} || true", node.ctr));
    report.check("a node without a registry is switched, and has a pod", || {
        says(node, &format!("to {PAUSE} --archive {}", archive()), 0, PAUSE);
        kubelet::install(node);
        is_ours(node, start(node, "rebooted").running().1);
        fs::copy(BOOT, BOOT_BEFORE).expect("the number of this boot");
    });
}

/// The machine has booted once more.
pub fn after_reboot(work: &Work, _: &Images, report: &mut Report) {
    let node = &Node::connect("unix:///run/containerd/containerd.sock", None, work);
    report.check("after a reboot the pod comes up with the same image, without a registry", || {
        assert_ne!(fs::read(BOOT).expect("a number"), fs::read(BOOT_BEFORE).expect("the one before"));
        let pod = StaticPod { node, name: "rebooted" };
        pod.runs("member");
        is_ours(node, pod.running().1);
        assert_eq!(image_of(&pod), PAUSE);
    });
}
