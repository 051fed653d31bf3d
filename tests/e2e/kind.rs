//! A cluster of kind, and pause-switch on its node. kind's node image is in a registry, so it is made here: Debian,
//! the files of kind's Go module, the steps of kind's Dockerfile, and the programs that `scripts/e2e` builds.

use std::fs;
use std::path::Path;

use harness::debian::debootstrap;
use harness::programs::{HOST, dist, host_platform, root};
use harness::{run, sha256, text, until_at_most};

use crate::Work;
use crate::images::{Images, PAUSE};
use crate::kubelet::OWN_SETTINGS;
use crate::node::{LIMIT, Node, Runtime, bin};
use crate::report::Report;

/// What the node image takes from Debian.
const PACKAGES: &str = "systemd,conntrack,iptables,nftables,iproute2,mount,kmod,jq,procps,runc,containernetworking-plugins";

/// What it takes from `scripts/e2e`.
const PROGRAMS: [&str; 7] =
    ["containerd", "containerd-shim-runc-v2", "ctr", "crictl", "kubeadm", "kubelet", "kubectl"];

/// The steps of kind's Dockerfile for its base image, in the root of the image.
const STEPS: &str = r#"
chmod 755 /kind /kind/bin /kind/bin/* /usr/local/bin/*
ln -s /usr/lib/systemd/systemd /sbin/init
cd /lib/systemd/system
rm -f sysinit.target.wants/systemd-tmpfiles-setup.service multi-user.target.wants/* local-fs.target.wants/* \
    sockets.target.wants/*udev* sockets.target.wants/*initctl* basic.target.wants/* /etc/systemd/system/*.wants/*
echo ReadKMsg=no >>/etc/systemd/journald.conf
# Both change the kernel's settings for the whole machine.
systemctl --quiet mask systemd-binfmt systemd-sysctl
systemctl --quiet enable kubelet containerd undo-mount-hacks
mkdir -p /etc/kubernetes/manifests /opt/cni
ln -s /usr/lib/cni /opt/cni/bin
ctr oci spec | jq '.hooks.createContainer = [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
    >/etc/containerd/cri-base.json"#;

/// A container without CAP_SYS_RESOURCE may not raise what kind's unit raises.
const CONTAINERD: &str = "[Service]\nOOMScoreAdjust=\nLimitNPROC=\nLimitCORE=\nLimitNOFILE=\n";
/// A kubelet makes settings of the kernel: the node gets copies, as a cell does.
const KUBELET: &str = "[Service]\nExecStartPre=sh -ec '[ -e /run/sys ] || . /kind/own-settings'\n";

/// kind installs this, for want of an image of a provisioner.
const STORAGE: &str = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\n\
                       metadata: {name: standard}\nprovisioner: none.example\n";

/// The name that kind gives the container of its node.
const CONTAINER: &str = "kind-control-plane";

/// A network of another name than kind's own, which this machine may have, and in it the registry of the cell.
const NETWORK: &str = "--subnet 10.89.7.0/24 kind-e2e";
const REGISTRY: &str = "[host.'http://10.89.7.1:5000']\n";

/// Makes the node image, and returns the name of the pause image in kind's configuration of containerd.
fn make_image(node: &Node, tree: &Path) -> String {
    let packages: Vec<_> = PACKAGES.split(',').collect();
    debootstrap("bookworm", &packages, tree);
    let line = "cd \"$0\" && go list -m -f '{{.Dir}}' sigs.k8s.io/kind";
    let module = run("sh", &["-ec", line, text(&root().join("tests/e2e"))]);
    let files = format!("{}/images/base/files/.", module.trim());
    run("cp", &["-r", "--no-preserve=mode", &files, text(tree)]);
    // kind's unit of containerd has this path.
    for program in PROGRAMS {
        run("cp", &[text(&bin().join(program)), text(&tree.join("usr/local/bin"))]);
    }
    run("ln", &["-s", "/usr/local/bin/kubelet", text(&tree.join("usr/bin/kubelet"))]);
    let write = |path: &str, content: &str| harness::write(&tree.join(path), content);
    write("kind/version", &format!("{}\n", node.sh("kubeadm version --output short")));
    write("kind/manifests/default-storage.yaml", STORAGE);
    write("kind/own-settings", OWN_SETTINGS);
    write("etc/systemd/system/containerd.service.d/50-e2e.conf", CONTAINERD);
    write("etc/systemd/system/kubelet.service.d/50-e2e.conf", KUBELET);
    write("etc/cni/net.d/10-pods.conflist", include_str!("config/cni-ptp.conflist"));
    write("etc/containerd/certs.d/_default/hosts.toml", REGISTRY);
    run("chroot", &[text(tree), "sh", "-ec", STEPS]);
    node.sh(&format!(
        "podman network create {NETWORK}
         tar -C {} -c . | podman import --quiet --change 'ENV container=podman' --change 'STOPSIGNAL SIGRTMIN+3' \
             --change 'ENTRYPOINT [\"/usr/local/bin/entrypoint\", \"/sbin/init\"]' - localhost/kind-node:e2e",
        tree.display()
    ));
    let config = fs::read_to_string(tree.join("etc/containerd/config.toml")).expect("kind's file");
    let name = config.split("sandbox_image = \"").nth(1).and_then(|rest| rest.split('"').next());
    name.expect("kind's configuration names a pause").to_string()
}

/// The SHA-256 of the pause of each sandbox that is ready, by the PID of the pause.
fn pauses(node: &Node, label: &str) -> Vec<String> {
    let line = "for id in $(crictl pods --quiet --state ready $0); do
        pid=$(crictl inspectp $id | jq .info.pid); echo $pid $(sha256sum </proc/$pid/exe); done";
    let output = node.sh(&format!("podman exec {CONTAINER} sh -ec '{line}' '{label}'"));
    output.lines().map(|line| line.trim_end_matches(" -").to_string()).collect()
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let node = &Node::new(Runtime::Containerd2, PAUSE, work, images);
    let old = make_image(node, &work.folder.join("kind"));
    let mut names = images.of_cluster();
    names.retain(|name| !name.contains("/pause:"));
    names.push(old.clone());
    images.serve_cluster(node, &names, Some("old"));
    images.serve_member(node, "sleeper");
    let version = node.sh("kind version");
    report.versions(&[&node.programs[..], &[version, node.sh("podman --version")]].concat());
    node.write("/run/kind.yaml", include_str!("config/kind.yaml"));
    let kind = |line: &str| {
        node.sh(&format!(
            "KIND_EXPERIMENTAL_PROVIDER=podman KIND_EXPERIMENTAL_PODMAN_NETWORK=kind-e2e \
             kind {line} 2>&1"
        ))
    };
    let inside = |line: &str| node.sh(&format!("podman exec {CONTAINER} {line} 2>&1"));
    let kubectl = |line: &str| inside(&format!("kubectl {line}"));
    let rolled_out = |what: &str| kubectl(&format!("rollout status {what} --timeout 300s"));
    let config = || inside("sha256sum /etc/containerd/config.toml");
    let ours = sha256(&dist(&HOST));
    let is_ours = |pause: &String| pause.ends_with(&ours);

    report.check("kind makes a cluster, whose sandboxes run the pause of its node image", || {
        kind("create cluster --config /run/kind.yaml --kubeconfig /run/kubeconfig --wait 300s");
        // The node is ready before these have pods.
        rolled_out("daemonset/kube-proxy --namespace kube-system");
        rolled_out("deployment/coredns --namespace kube-system");
        let system = pauses(node, "");
        assert!(system.len() == 7 && !system.iter().any(is_ours), "{system:?}");
        format!("{} sandboxes of {old}", system.len())
    });
    let (system, before) = (pauses(node, ""), config());
    report.check(
        "kind load brings the image, and pause-switch in the container of the node switches it",
        || {
            let archive = root().join("dist").join(host_platform().archive());
            kind(&format!("load image-archive {}", archive.display()));
            let switch = std::env::var("PAUSE_SWITCH").expect("scripts/e2e sets it");
            node.sh(&format!("podman cp {switch} {CONTAINER}:/usr/local/bin/pause-switch"));
            let says = inside(&format!("pause-switch to {PAUSE}"));
            inside("pause-switch check --pod");
            assert_eq!(pauses(node, ""), system, "the pods of the system run on");
            says.lines().last().unwrap_or_default().to_string()
        },
    );
    report.check("the pods of a Deployment are held by pause", || {
        kubectl("create deployment web --image registry.example/e2e:sleeper --replicas 5");
        rolled_out("deployment/web");
        let pods = pauses(node, "--label=app=web");
        assert!(pods.len() == 5 && pods.iter().all(is_ours), "{pods:?}");
    });
    report.check("pause-switch goes back, to the same bytes", || {
        let says = inside("pause-switch back");
        assert_eq!(config(), before);
        kubectl("rollout restart deployment web");
        rolled_out("deployment/web");
        until_at_most(*LIMIT, "all pods of the Deployment are new", || {
            let pods = pauses(node, "--label=app=web");
            (pods.len() == 5 && !pods.iter().any(is_ours)).then_some(())
        });
        says.lines().last().unwrap_or_default().to_string()
    });
}
