//! pause-switch on a node whose kubelet runs pods on another pause: there and back.

use std::fs;

use harness::programs::{HOST, host_platform, platform, root};
use harness::until_at_most;

use crate::Work;
use crate::images::{Images, PAUSE, PREVIOUS, archive};
use crate::kubelet::{self, StaticPod, manifest};
use crate::node::{LIMIT, Node, Runtime, bin};
use crate::pod::is_ours;
use crate::report::Report;

/// The name of our image on a node with a registry. The registry of the cell is the mirror of every host.
const NEW: &str = concat!("registry.example/pause:", env!("PAUSE_VERSION"));

/// A name that no registry has, and that is not the one in the archive.
const AIR_GAPPED: &str = "air-gapped.example/infra/pause:1";

/// A name in a registry that wants a password.
const PRIVATE: &str = concat!("private.example/pause:", env!("PAUSE_VERSION"));

const CONFIG: &str = "/etc/containerd/config.toml";

/// Prints the image that containerd 1.x uses if nothing sets another.
const DEFAULT_IMAGE: &str =
    r#"containerd config dump 2>/dev/null | sed -n 's/^ *sandbox_image = "\(.*\)"$/\1/p'"#;

/// An image that no container uses and nobody pins, as a control.
const UNPINNED: &str = "localhost/e2e:app-2";

/// The image of the containers.
const SLEEPER: &str = "localhost/e2e:sleeper";

/// Makes a node whose sandboxes run the old pause, and what pause-switch calls. A cell has a
/// registry, and no systemd, so that a small script restarts the daemons. A machine with systemd
/// has no registry: it is an air-gapped node.
fn old_node(runtime: Runtime, work: &Work, images: &Images) -> Node {
    let node = Node::new(runtime, PREVIOUS, work, images);
    let (ctr, imported) = (&node.ctr, "localhost/e2e:old");
    if node.is_in_cell() {
        node.cell().registry();
        images.serve_pause(&node);
        node.write("/run/switch/systemctl", include_str!("config/systemctl"));
        node.sh("chmod 755 /run/switch/systemctl");
    } else {
        let crictl = bin().join("crictl");
        node.sh(&format!(
            "{ctr} images tag {imported} {PREVIOUS}
             mkdir -p /run/switch && ln -sf {} /run/switch/",
            crictl.display()
        ));
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
    node.write(
        "/etc/crictl.yaml",
        &format!("runtime-endpoint: {0}\nimage-endpoint: {0}\n", node.endpoint),
    );
    node
}

/// Starts a registry in the cell of a node with our image, which wants a password.
fn private_registry(node: &Node) {
    node.write("/run/private.yml", include_str!("config/registry-with-password.yml"));
    // "secret", by bcrypt, as docker-registry wants it
    node.write(
        "/run/passwords",
        "pause:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
    );
    node.cell().daemon(
        "docker-registry serve /run/private.yml",
        "curl --silent --fail --user pause:secret 127.0.0.1:5001/v2/",
    );
    node.sh(&format!(
        "skopeo copy --quiet --all --dest-creds pause:secret --dest-tls-verify=false oci-archive:{} \
         docker://127.0.0.1:5001/{}",
        archive(),
        PRIVATE.split_once('/').expect("a host").1
    ));
    node.write(
        "/etc/containerd/certs.d/private.example/hosts.toml",
        "[host.'http://127.0.0.1:5001']\n",
    );
    let registries = node.path("/etc/containers/registries.conf");
    let registries = fs::read_to_string(registries).expect("the registries");
    node.write(
        "/etc/containers/registries.conf",
        &format!(
            "{registries}[[registry]]\nprefix = 'private.example'\nlocation = '127.0.0.1:5001'\ninsecure = true\n"
        ),
    );
    restart_crio(node);
}

/// CRI-O reads its registries when it starts, and containerd at each pull.
fn restart_crio(node: &Node) {
    if node.crio {
        node.sh("PATH=/run/switch:$PATH systemctl restart crio");
    }
}

/// Gives the runtime the password of that registry.
fn give_password(node: &Node) {
    let encoded = "cGF1c2U6c2VjcmV0"; // pause:secret
    if node.crio {
        node.write(
            "/etc/crio/auth.json",
            &format!(r#"{{"auths": {{"127.0.0.1:5001": {{"auth": "{encoded}"}}}}}}"#),
        );
        node.write(
            "/etc/crio/crio.conf.d/30-auth.conf",
            "[crio.image]\nglobal_auth_file = '/etc/crio/auth.json'\n",
        );
        restart_crio(node);
    } else {
        node.write(
            "/etc/containerd/certs.d/private.example/hosts.toml",
            &format!("[host.'http://127.0.0.1:5001'.header]\nAuthorization = 'Basic {encoded}'\n"),
        );
    }
}

/// The name of the image that the pause of a pod comes from.
fn image_of(pod: &StaticPod) -> String {
    let (sandbox, _) = pod.running();
    let info = pod.node.inspect(&format!("inspectp {sandbox}"));
    let name = info["info"]["image"].as_str().expect("the image of a sandbox");
    name.to_string()
}

/// Whether the runtime has an image.
fn has(node: &Node, image: &str) -> bool {
    node.crictl_output(&format!("inspecti {image}")).status.success()
}

/// Starts a static pod with one container and returns it when it runs.
fn start<'a>(node: &'a Node, name: &'static str, image: &str) -> StaticPod<'a> {
    let text = include_str!("config/member.yaml").replace("@NAME@", name);
    manifest(node, &format!("{name}.yaml"), &text.replace("@IMAGE@", image));
    let pod = StaticPod { node, name };
    pod.runs("member");
    pod
}

/// pause-switch on a node.
struct Tool<'a> {
    node: &'a Node,
    program: String,
}

impl<'a> Tool<'a> {
    fn new(node: &'a Node) -> Self {
        // On a machine it is beside this program.
        let beside = bin().join("pause-switch").display().to_string();
        Self { node, program: std::env::var("PAUSE_SWITCH").unwrap_or(beside) }
    }

    /// Runs it, and returns its last line. It must end with a status, and say something.
    #[track_caller]
    fn says(&self, arguments: &str, status: i32, text: &str) -> String {
        let line = format!("PATH=/run/switch:$PATH {} {arguments}", self.program);
        let output = self.node.output(&line);
        let both = [&output.stdout[..], &output.stderr].concat();
        let both = String::from_utf8_lossy(&both).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments}: {both}");
        assert!(both.contains(text), "{arguments}: {both}");
        both.trim().lines().last().unwrap_or_default().to_string()
    }
}

/// pause-switch on a new node: there and back, and what it refuses or undoes.
pub fn check(runtime: Runtime, work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(runtime, work, images);
    report.versions(&[&node.programs[..], &[kubelet::version(node)]].concat());
    let tool = Tool::new(node);
    let says = |arguments: &str, status: i32, text: &str| tool.says(arguments, status, text);
    let (new, to) = match node.is_in_cell() {
        true => (NEW, format!("to {NEW}")),
        false => (PAUSE, format!("to {PAUSE} --archive {}", archive())),
    };
    let settings = "find /etc/containerd /etc/crio /etc/containers -type f 2>/dev/null | sort | xargs sha256sum";
    let before_all = node.sh(settings);
    kubelet::start(node);
    let before = start(node, "before", SLEEPER);
    let held = before.running();
    assert_eq!(image_of(&before), PREVIOUS);

    report.check("an image that is not there is noticed before anything is changed", || {
        let line = says("to registry.example/none:1", 1, "none");
        let other = says(&format!("to {SLEEPER}"), 1, "is not the pause of this release");
        assert_eq!(node.sh(settings), before_all);
        format!("{line}; {other}")
    });
    report.check("an archive without this platform is noticed before anything is changed", || {
        let other = if *HOST == "amd64" { "arm64" } else { "amd64" };
        let other = root().join("dist").join(platform(other).archive());
        let line = says(
            &format!("--limit 5 to {AIR_GAPPED} --archive {}", other.display()),
            1,
            "for this platform",
        );
        assert_eq!(node.sh(settings), before_all);
        line
    });
    if node.is_in_cell() {
        report.check("a runtime that does not answer, and no systemd, are noticed", || {
            let daemon = if node.crio { "crio" } else { "containerd" };
            node.sh(&format!("pkill -STOP -x {daemon}"));
            let line = says(&to, 1, "does not answer");
            node.sh(&format!("pkill -CONT -x {daemon}; chmod 644 /run/switch/systemctl"));
            let other = says(&to, 3, "systemd has no unit");
            node.sh("chmod 755 /run/switch/systemctl");
            assert_eq!(node.sh(settings), before_all);
            format!("{line}; {other}")
        });
    }
    report.check("--dry-run prints each change and command, and changes nothing", || {
        says(&format!("{to} --dry-run"), 0, "systemctl restart");
        assert_eq!(node.sh(settings), before_all);
    });
    // The systemd of a machine cannot be told to fail.
    if node.is_in_cell() {
        report.check("a runtime that does not come up is undone, and pods run on", || {
            node.write("/run/switch/refuse", new);
            let line = says(&to, 1, "the change was undone");
            // A restart that does not end is one that failed.
            node.sh("mv /run/switch/refuse /run/switch/hang");
            says(&format!("--limit 5 {to}"), 1, "the change was undone");
            node.sh("rm /run/switch/hang");
            assert_eq!(node.sh(settings), before_all);
            assert_eq!(before.running(), held);
            assert_eq!(image_of(&start(node, "undone", SLEEPER)), PREVIOUS);
            line
        });
    }
    report.check("it switches the node, and again says that nothing is to be done", || {
        let line = says(&to, 0, new);
        says(&to, 0, "unchanged");
        says("status", 0, &format!("switched from {PREVIOUS} to {new}"));
        line
    });
    report.check("the pods of before run on, and new pods run on ours", || {
        assert_eq!(before.running(), held);
        let after = start(node, "after", SLEEPER);
        is_ours(node, after.running().1);
        assert_eq!(image_of(&after), new);
        says("check --pod", 0, "a pod was started and removed")
    });
    report.check(
        "under disk pressure the kubelet removes an image that nobody pins, and neither pause",
        || {
            assert!(has(node, UNPINNED) && has(node, new));
            kubelet::start_with_disk_pressure(node);
            until_at_most(*LIMIT, "the kubelet removes unused images", || {
                (!has(node, UNPINNED)).then_some(())
            });
            kubelet::end_disk_pressure(node);
            assert!(!node.pins() || has(node, new), "our image is gone");
            assert!(!node.pins() || has(node, PREVIOUS), "the old image is gone");
        },
    );
    report.check("it goes back, to the same bytes, and new pods run on the old pause", || {
        let line = says("back", 0, PREVIOUS);
        says("back", 0, "unchanged");
        assert_eq!(node.sh(settings), before_all);
        assert_eq!(image_of(&start(node, "again", SLEEPER)), PREVIOUS);
        assert_eq!(before.running(), held);
        line
    });
    // At the end: of an image with two names the runtime shows either.
    report.check(
        "without a registry, it imports an archive under the name that is configured",
        || {
            let alone = root().join("dist").join(host_platform().archive());
            let line =
                says(&format!("to {AIR_GAPPED} --archive {}", alone.display()), 0, AIR_GAPPED);
            assert_eq!(image_of(&start(node, "air-gapped", SLEEPER)), AIR_GAPPED);
            says("back", 0, PREVIOUS);
            assert_eq!(node.sh(settings), before_all);
            line
        },
    );
    if node.is_in_cell() {
        report.check(
            "from a registry that wants a password, which the runtime has and pulls with",
            || {
                private_registry(node);
                let to = format!("to {PRIVATE}");
                let without = says(&to, 1, "nothing was changed");
                give_password(node);
                let before_all = node.sh(settings);
                says(&to, 0, PRIVATE);
                // The kubelet has no password: the runtime pulls what is missing when a sandbox starts.
                node.crictl(&format!("rmi {PRIVATE}"));
                assert_eq!(image_of(&start(node, "private", SLEEPER)), PRIVATE);
                says("back", 0, PREVIOUS);
                assert_eq!(node.sh(settings), before_all);
                format!("without it: {without}")
            },
        );
    }
    if !node.crio && node.is_in_cell() {
        report.check(
            "of several files it changes the one that decides, which is a drop-in",
            || {
                let config = fs::read_to_string(node.path(CONFIG)).expect("the file");
                // As the toolkit of NVIDIA writes it: containerd 1.x takes all of the table from it.
                let (version, table) = match node.name.contains(" 1.") {
                    true => (2, "'io.containerd.grpc.v1.cri'.containerd"),
                    false => (3, "'io.containerd.cri.v1.images'"),
                };
                let drop_in = format!("version = {version}\n[plugins.{table}]\n# theirs\n");
                node.write("/etc/containerd/conf.d/99-theirs.toml", &drop_in);
                let imports = "imports = ['/etc/containerd/conf.d/*.toml']\n";
                node.write(CONFIG, &format!("{imports}{config}"));
                // containerd 1.x uses its default now, which has to be there for the way back.
                let default = node.sh(DEFAULT_IMAGE);
                if !default.is_empty() {
                    node.sh(&format!("{} images tag {PREVIOUS} {default}", node.ctr));
                }
                let before = node.sh(settings);
                says(&to, 0, new);
                let changed = node.sh("cat /etc/containerd/conf.d/99-theirs.toml");
                assert!(changed.contains(new) && changed.contains("# theirs"), "{changed}");
                says("check", 0, new);
                says("back", 0, "again");
                assert_eq!(node.sh(settings), before);
                node.sh("rm -r /etc/containerd/conf.d");
                node.write(CONFIG, &config);
            },
        );
    }
}

/// A node whose containerd is started by a stand-in for one of the small distributions, which has its files
/// and folders.
fn small(name: &str, program: &str, text: &str, work: &Work, images: &Images) -> Node {
    let node = old_node(Runtime::Containerd2, work, images);
    node.write(&format!("/run/switch/{program}"), text);
    if program != name {
        // Its tools are in it: k3s crictl, k3s ctr.
        node.write(&format!("/run/switch/{name}"), "#!/bin/sh\nexec \"$@\"\n");
    }
    let restart = format!("PATH=/run/switch:$PATH systemctl restart {name}");
    node.sh(&format!("chmod 755 /run/switch/*; {restart}"));
    kubelet::start(&node);
    node
}

/// pause-switch there and back, with the files below a folder.
fn there_and_back(tool: &Tool, folder: &str, report: &mut Report) {
    let node = tool.node;
    report.versions(&node.programs);
    let before = start(node, "before", SLEEPER);
    let held = before.running();
    let files = format!("cd {folder}; find . -type f | sort | xargs -r sha256sum");
    let before_all = node.sh(&files);
    report.check("it adds a file with the setting, and pods run on", || {
        let line = tool.says(&format!("to {NEW}"), 0, NEW);
        assert_eq!(before.running(), held);
        assert_eq!(image_of(&start(node, "after", SLEEPER)), NEW);
        tool.says("check --pod", 0, NEW);
        line
    });
    report.check("it goes back, and the file is gone", || {
        let line = tool.says("back", 0, "again");
        assert_eq!(node.sh(&files), before_all);
        assert_eq!(image_of(&start(node, "again", SLEEPER)), PREVIOUS);
        assert_eq!(before.running(), held);
        line
    });
}

pub fn on_k3s(work: &Work, images: &Images, report: &mut Report) {
    let node = &small("k3s", "k3s-server", include_str!("config/k3s-server"), work, images);
    node.write("/etc/rancher/k3s/config.yaml", "write-kubeconfig-mode: \"0644\"\n");
    let tool = Tool::new(node);
    there_and_back(&tool, "/etc/rancher/k3s", report);
    report.check("where a flag of k3s decides, the change is undone", || {
        node.write("/run/switch/flag", PREVIOUS);
        let line = tool.says(&format!("to {NEW}"), 1, "a flag or a template decides");
        assert_eq!(node.sh("ls /etc/rancher/k3s/config.yaml.d"), "");
        line
    });
}

pub fn on_k0s(work: &Work, images: &Images, report: &mut Report) {
    let node = &small("k0s", "k0s", include_str!("config/k0s"), work, images);
    there_and_back(&Tool::new(node), "/etc/k0s/containerd.d", report);
}

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_BEFORE: &str = "/etc/pause-e2e-boot";

/// Switches a machine, and has systemd start its runtime and its kubelet when it boots.
pub fn before_reboot(work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(Runtime::Containerd1, work, images);
    report.versions(&[&node.programs[..], &[kubelet::version(node)]].concat());
    // Of an image with two names the runtime shows either: this one is of another part.
    node.sh(&format!("{} images remove --sync {AIR_GAPPED} || true", node.ctr));
    report.check("a node without a registry is switched, and has a pod", || {
        Tool::new(node).says(&format!("to {PAUSE} --archive {}", archive()), 0, PAUSE);
        kubelet::install(node);
        is_ours(node, start(node, "rebooted", SLEEPER).running().1);
        fs::copy(BOOT, BOOT_BEFORE).expect("the number of this boot");
    });
}

/// The machine has booted once more.
pub fn after_reboot(work: &Work, images: &Images, report: &mut Report) {
    let node = &Node::at("unix:///run/containerd/containerd.sock", work, images);
    report.versions(&node.programs);
    report.check("after a reboot the pod comes up with the same image, without a registry", || {
        assert_ne!(
            fs::read(BOOT).expect("a number"),
            fs::read(BOOT_BEFORE).expect("the one before")
        );
        let pod = StaticPod { node, name: "rebooted" };
        pod.runs("member");
        is_ours(node, pod.running().1);
        let image = image_of(&pod);
        assert_eq!(image, PAUSE);
        image
    });
}

/// Each form of a unit of cri-dockerd under systemd, on a machine. A stand-in for it answers by containerd.
pub fn on_cri_dockerd(work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(Runtime::Containerd1, work, images);
    let tool = Tool::new(node);
    images.import_pause(node);
    node.start();
    for folder in ["/usr/bin", "/usr/local/bin"] {
        let program = format!("{folder}/cri-dockerd");
        node.write(&program, include_str!("config/cri-dockerd"));
        node.sh(&format!("chmod 755 {program}"));
    }
    let runs = || {
        let line = "tr '\\0' '\\n' </proc/$(pgrep -x cri-dockerd)/cmdline | tail -n +3";
        node.sh(line).replace('\n', " ")
    };
    for case in harness::switch::cases() {
        let Some(form) = case.name.strip_prefix("cri-dockerd-") else { continue };
        if case.expected.starts_with("exit") {
            continue;
        }
        report.check(&format!("cri-dockerd whose unit is of the form {form}"), || {
            for (path, text) in &case.files {
                let mut text = text.clone();
                for old in ["registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.10", "a.example/one:1"] {
                    text = text.replace(old, PREVIOUS);
                }
                node.write(&format!("/{path}"), &text);
            }
            node.sh("systemctl daemon-reload; systemctl restart cri-docker; systemctl reset-failed cri-docker");
            let before = runs();
            tool.says(&format!("--runtime cri-dockerd to {PAUSE}"), 0, PAUSE);
            let after = runs();
            assert!(after.ends_with(&format!("--pod-infra-container-image={PAUSE}")), "{after}");
            tool.says("--runtime cri-dockerd check", 0, PAUSE);
            tool.says("--runtime cri-dockerd back", 0, "again");
            assert_eq!(runs(), before);
            node.sh("systemctl stop cri-docker; rm -rf /etc/systemd/system/cri-docker.service* /usr/lib/systemd/system/cri-docker.service*");
            after
        });
    }
}
