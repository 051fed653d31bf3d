//! A kubelet without an API server runs static pods. The checks change and kill their containers, and assert that pause
//! keeps running.

use std::fs;

use crate::node::{LIMIT, Node};
use crate::pod::{Pause, is_ours, orphans, pause, status};
use crate::report::Report;
use harness::until_at_most;

const WEB: &str = include_str!("config/pod.yaml");
const CONFIG: &str = "/etc/kubernetes/kubelet.yaml";

/// A static pod of the kubelet, as the runtime sees it.
pub struct StaticPod<'a> {
    pub node: &'a Node,
    pub name: &'static str,
}

impl StaticPod<'_> {
    /// The ID of its sandbox and the PID of pause, if exactly one sandbox is ready.
    fn sandbox(&self) -> Option<(String, i32)> {
        let ids = self.node.crictl(&format!("pods --quiet --no-trunc --name ^{}- --state ready", self.name));
        let one = (ids.lines().count() == 1).then_some(ids)?;
        self.node.find_pause(&one).map(|pid| (one, pid))
    }

    /// The sandbox and the state of its pause, for a comparison before and after.
    pub fn sandbox_and_pause(&self) -> (String, Pause) {
        let (id, pid) = self.running();
        (id, pause(self.node, pid))
    }

    pub fn running(&self) -> (String, i32) {
        until_at_most(*LIMIT, &format!("the pod {} has a sandbox", self.name), || self.sandbox())
    }

    /// The ID of the running container with this name.
    fn container(&self, name: &str) -> Option<String> {
        let (sandbox, _) = self.sandbox()?;
        let id = self.node.crictl(&format!("ps --quiet --no-trunc --pod {sandbox} --name ^{name}$ --state running"));
        (!id.is_empty() && !id.contains('\n')).then_some(id)
    }

    pub fn runs(&self, name: &str) -> String {
        until_at_most(*LIMIT, &format!("{name} runs"), || self.container(name))
    }

    pub fn exec(&self, name: &str, line: &str) -> String {
        self.node.crictl(&format!("exec {} sh -c '{line}'", self.runs(name)))
    }

    /// Waits until nginx answers a request to the address of the pod with `page`.
    fn serves(&self, page: &str) -> String {
        let url = until_at_most(*LIMIT, &format!("nginx answers {page}"), || {
            let (id, _) = self.sandbox()?;
            let info = self.node.inspect(&format!("inspectp {id}"));
            let url = format!("http://{}/", info["status"]["network"]["ip"].as_str()?);
            let output = self.node.output(&format!("curl --silent --max-time 2 {url}"));
            (String::from_utf8_lossy(&output.stdout).trim() == page).then_some(url)
        });
        format!("{page}, from {url}")
    }
}

/// A kubelet makes settings of the kernel, which belong to the whole machine: a cell gets copies.
pub const OWN_SETTINGS: &str = "
    for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
        kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        mkdir -p /run/sys/${file%/*} && cp /proc/sys/$file /run/sys/$file
        mount --bind /run/sys/$file /proc/sys/$file
    done";

/// The name and version of the kubelet.
pub fn version(node: &Node) -> String {
    node.sh("kubelet --version | sed 's/Kubernetes v/kubelet /'")
}

/// Starts a kubelet on a node.
pub fn start(node: &Node) {
    if node.is_in_cell() {
        node.sh(OWN_SETTINGS);
    }
    configure(node);
    run(node);
}

/// Writes the configuration of a kubelet without pods: on a machine that runs several kubelets one after another, those
/// of the last one are there.
fn configure(node: &Node) {
    node.sh("rm -rf /etc/kubernetes/manifests && mkdir -p /etc/kubernetes/manifests");
    let config = include_str!("config/kubelet.yaml").replace("@DRIVER@", node.driver());
    node.write(CONFIG, &config);
}

fn run(node: &Node) {
    let line = format!("kubelet --config {CONFIG} --hostname-override node");
    node.daemon(&line, "curl --silent --fail http://127.0.0.1:10248/healthz");
}

/// Runs a kubelet that sees pressure on the disk, so that it removes the images that no container uses and nobody pins,
/// until `done`; then an ordinary one again.
pub fn under_disk_pressure(node: &Node, done: impl Fn() -> bool) {
    let [from, to] = ["fs.available: 0%", "fs.available: 99.9%"];
    for [from, to] in [[from, to], [to, from]] {
        node.sh(&format!(
            "sed -i 's/{from}/{to}/' {CONFIG}; pkill -x kubelet; while pgrep -x kubelet; do sleep 0.1; done"
        ));
        run(node);
        until_at_most(*LIMIT, "the kubelet removes unused images", || done().then_some(()));
    }
}

/// Has systemd start a kubelet on a machine, now and at each boot, and the runtime before it.
pub fn install(node: &Node) {
    configure(node);
    node.write("/etc/systemd/system/kubelet.service", include_str!("config/kubelet.service"));
    // The folder with it is mounted late.
    node.sh("cp $(command -v kubelet) /usr/local/bin; systemctl enable --quiet --now containerd kubelet");
}

pub fn manifest(node: &Node, name: &str, text: &str) {
    // The file is renamed into place, so that the kubelet never reads a half-written one.
    node.write(&format!("/etc/kubernetes/{name}"), text);
    node.sh(&format!("mv /etc/kubernetes/{name} /etc/kubernetes/manifests"));
}

pub fn check(node: &Node, report: &mut Report) {
    report.versions(&[version(node)]);
    start(node);
    let pod = StaticPod { node, name: "web" };
    manifest(node, "web.yaml", WEB);
    report.check("a static pod with shareProcessNamespace runs, and /pause is PID 1 in both containers", || {
        let (_, pid) = pod.running();
        is_ours(node, pid);
        assert_eq!(status(node, pid).nspid.expect("NSpid").last(), Some(&1));
        for name in ["nginx", "application"] {
            assert_eq!(pod.exec(name, "cat /proc/1/comm"), "pause");
        }
    });
    report.check("a request goes through nginx to the application", || pod.serves("application 1"));
    report.check("200 orphans are reaped, and pause sleeps on", || {
        let (_, pid) = pod.running();
        orphans(node, pid, |line| drop(pod.exec("application", line)));
    });
    report.check("a container that is killed starts again in the same sandbox", || {
        let (before, old) = (pod.sandbox_and_pause(), pod.runs("application"));
        let info = node.inspect(&format!("inspect {old}"));
        node.sh(&format!("kill -KILL {}", info["info"]["pid"]));
        until_at_most(*LIMIT, "another application runs", || (pod.container("application")? != old).then_some(()));
        pod.serves("application 1");
        assert_eq!(pod.sandbox_and_pause(), before);
    });
    report.check("a container gets another image in the same sandbox", || {
        let before = pod.sandbox_and_pause();
        manifest(node, "web.yaml", &WEB.replace("app-1", "app-2"));
        let evidence = pod.serves("application 2");
        assert_eq!(pod.sandbox_and_pause(), before);
        evidence
    });
    report.check("when pause is killed, the kubelet makes another sandbox", || {
        let (old, pid) = pod.running();
        node.sh(&format!("kill -KILL {pid}"));
        until_at_most(*LIMIT, "another sandbox is ready", || (pod.sandbox()?.0 != old).then_some(()));
        is_ours(node, pod.running().1);
        pod.serves("application 2")
    });
    report.check("without its manifest the pod is gone", || {
        fs::remove_file(node.path("/etc/kubernetes/manifests/web.yaml")).expect("its manifest");
        let list = || {
            node.crictl("pods --quiet --name ^web-") + &node.crictl("ps --all --quiet --name '^(nginx|application)$'")
        };
        until_at_most(*LIMIT, "no sandbox and no container", || list().is_empty().then_some(()));
    });
}
