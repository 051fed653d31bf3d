//! A cluster of one node by kubeadm, in a container environment: our image is the pause that kubeadm itself names. All
//! of its images come from a registry on the loopback interface, under upstream's names.

use serde_json::Value;

use crate::images::Images;
use crate::kubelet::OWN_SETTINGS;
use crate::node::{LIMIT, Node, Runtime};
use crate::pod::{children, is_ours, orphans, pause, status, traced_orphans};
use crate::report::Report;
use crate::work::Work;
use harness::{until, until_at_most};

/// What a node of a real cluster has, and a container environment has not.
const SURROUNDINGS: &str = "
    ip link add eth0 type veth peer name outside
    ip address add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip link set outside up
    ip route add default via 10.0.2.2
    echo 1 >/proc/sys/net/ipv4/ip_forward
    mount --make-rshared /
    # OWN_SETTINGS covers a part of /proc. A process in a user namespace may mount another
    # /proc only if there is one that nothing covers (mount_too_revealing in the kernel).
    mkdir /run/proc && mount -t proc proc /run/proc
    mkdir -p /etc/kubernetes/manifests";

/// The kubelet waits for the files that kubeadm writes.
const KUBELET: &str = "
    setsid sh -c '
        until [ -e /var/lib/kubelet/config.yaml ]; do sleep 0.1; done
        exec kubelet --config /var/lib/kubelet/config.yaml --hostname-override node \
            --bootstrap-kubeconfig /etc/kubernetes/bootstrap-kubelet.conf \
            --kubeconfig /etc/kubernetes/kubelet.conf' >/run/kubelet.log 2>&1 &";

/// The pods of the control plane, and kube-proxy.
const SYSTEM: usize = 5;

struct Cluster {
    node: Node,
    /// The version of Kubernetes.
    version: String,
}

impl Cluster {
    /// Makes what kubeadm needs.
    fn new(work: &Work, images: &Images) -> Self {
        let list = "kubeadm config images list --kubernetes-version $(kubeadm version --output short)";
        let names = harness::run("sh", &["-ec", list]);
        let names: Vec<_> = names.lines().collect();
        let pause = names.iter().find(|name| name.contains("/pause:"));
        let node = images.node(Runtime::Containerd2, pause.expect("kubeadm names a pause image"), work);
        node.sh(OWN_SETTINGS);
        node.sh(SURROUNDINGS);
        node.write("/etc/cni/net.d/10-pods.conflist", include_str!("config/cni-ptp.conflist"));
        images.serve_cluster(&node, &names);
        node.sh(KUBELET);
        let version = node.sh("kubeadm version --output short");
        let config = include_str!("config/kubeadm.yaml").replace("@VERSION@", &version);
        node.write("/etc/kubernetes/kubeadm.yaml", &config.replace("@DRIVER@", node.driver()));
        Self { node, version }
    }

    /// Runs kubeadm.
    fn kubeadm(&self, line: &str) {
        // Control groups may be of version 1, and CoreDNS is not there.
        let ignored = "--ignore-preflight-errors=SystemVerification,CoreDNSUnsupportedPlugins,CoreDNSMigration";
        self.node
            .sh(&format!("kubeadm {line} {ignored} >/run/kubeadm.log 2>&1 || {{ cat /run/kubeadm.log; exit 1; }}"));
    }

    /// Runs kubectl, which must succeed.
    fn kubectl(&self, line: &str) -> String {
        self.node.sh(&format!("kubectl --kubeconfig /etc/kubernetes/admin.conf {line}"))
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("{line} --output json"))).expect("JSON")
    }

    fn apply(&self, text: &str) {
        self.node.write("/etc/kubernetes/apply.yaml", text);
        self.kubectl("apply --filename /etc/kubernetes/apply.yaml");
    }

    /// Waits until a pod is ready, and returns the PID of its pause.
    fn pause_of(&self, pod: &str) -> i32 {
        self.kubectl(&format!("wait --for condition=Ready pod/{pod} --timeout 300s"));
        let pid = self.node.pause_of(&self.node.crictl(&format!("pods --quiet --no-trunc --name ^{pod}$")));
        is_ours(&self.node, pid);
        pid
    }

    /// Waits until the node is ready and every pod of the system runs.
    fn ready(&self) {
        self.kubectl("wait --for condition=Ready node/node --timeout 300s");
        until_at_most(4 * *LIMIT, "all pods of the system run", || {
            let pods = self.json("get pods --namespace kube-system");
            let pods = pods["items"].as_array()?;
            (pods.len() == SYSTEM && pods.iter().all(|pod| all_are(pod, |one| one["ready"] == true))).then_some(())
        });
    }

    /// Waits until so many sandboxes are ready. The pause of each must be ours.
    fn sandboxes(&self, count: usize) {
        let all = until_at_most(4 * *LIMIT, &format!("{count} sandboxes"), || {
            let ids = self.node.crictl("pods --quiet --no-trunc --state ready");
            // One that is removed meanwhile cannot be inspected: the list is made again.
            let pids: Vec<_> = ids.lines().map(|id| self.node.find_pause(id)).collect::<Option<_>>()?;
            (pids.len() == count).then_some(pids)
        });
        all.iter().for_each(|pid| is_ours(&self.node, *pid));
    }

    /// Waits until the Deployment has this many pods, and the node as many sandboxes beside those of the system and of
    /// other pods.
    fn scaled(&self, replicas: usize, others: usize) {
        self.kubectl(&format!("scale deployment web --replicas {replicas}"));
        self.kubectl("rollout status deployment web --timeout 300s");
        self.sandboxes(SYSTEM + others + replicas);
    }

    /// Waits until both containers of a pod run, having been started again this many times.
    fn restarted(&self, pod: &str, times: usize) {
        let runs = |one: &Value| one["restartCount"] == times && one["state"]["running"].is_object();
        until_at_most(4 * *LIMIT, &format!("{pod} started again {times} times"), || {
            all_are(&self.json(&format!("get pod {pod}")), runs).then_some(())
        });
    }

    /// A request of the node to the address of the Service, through kube-proxy and nginx.
    fn serves(&self, page: &str) {
        let address = self.kubectl("get service web --output jsonpath={.spec.clusterIP}");
        until_at_most(*LIMIT, "the Service answers", || {
            let output = self.node.output(&format!("curl --silent --max-time 2 http://{address}/"));
            (String::from_utf8_lossy(&output.stdout).trim() == page).then_some(())
        });
    }
}

/// Whether a pod has containers, and all are as `wanted`.
fn all_are(pod: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    pod["status"]["containerStatuses"].as_array().is_some_and(|all| all.iter().all(wanted))
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let cluster = Cluster::new(work, images);
    let (node, version) = (&cluster.node, &cluster.version);
    report.versions(&[&node.programs[..], &[format!("Kubernetes {version}")]].concat());
    report.check("kubeadm init, with our image as the pause that it names", || {
        cluster.kubeadm("init --config /etc/kubernetes/kubeadm.yaml --skip-phases addon/coredns");
        cluster.ready();
        cluster.sandboxes(SYSTEM);
        format!("the node is ready; {SYSTEM} pods run, each held by pause")
    });
    report.check("kubeadm upgrade plan: its Job runs the image with -v", || {
        cluster.kubeadm(&format!("upgrade plan {version} --kubeconfig /etc/kubernetes/admin.conf"));
        let events = cluster.kubectl("get events --namespace kube-system --field-selector reason=Completed");
        assert!(events.contains("upgrade-health-check"), "{events}");
    });
    cluster.apply(include_str!("config/deployment.yaml"));
    report.check("hostUsers: false, through the API", || {
        let pid = cluster.pause_of("users");
        let user = status(node, pid).ruid;
        assert!(user >= 65536, "pause runs as uid {user} of the node");
        let exec = |line: &str| drop(cluster.kubectl(&format!("exec users -- sh -c '{line}'")));
        orphans(node, pid, exec);
        format!("pause as uid {user} of the node; {}", traced_orphans(node, pid, exec))
    });
    report.check("RestartAllContainers: ten times all containers start again in the same sandbox", || {
        cluster.apply(include_str!("config/restarts.yaml"));
        let pid = cluster.pause_of("restarts");
        let before = pause(node, pid);
        for generation in 1..=10 {
            // They end with their container, and pause is their parent.
            let line = "for i in $(seq 20); do (sleep 600 >/dev/null 2>&1 &); done";
            cluster.kubectl(&format!("exec restarts --container member -- sh -c '{line}'"));
            assert_eq!(children(node, pid).len(), 20);
            cluster.kubectl("exec restarts --container watched -- touch /tmp/again");
            cluster.restarted("restarts", generation);
            until("no orphan is left", || children(node, pid).is_empty().then_some(()));
        }
        assert_eq!(pause(node, cluster.pause_of("restarts")), before);
        cluster.kubectl("delete pod restarts");
        format!("200 orphans of 10 generations are gone; {before}")
    });
    report.check("a Deployment of two pods answers by its Service, and after a rolling update", || {
        cluster.scaled(2, 1);
        cluster.serves("application 1");
        cluster.kubectl("set image deployment/web application=localhost/e2e:app-2");
        cluster.scaled(2, 1);
        cluster.serves("application 2");
    });
    report.check("it is scaled to 50 pods and back, and no pause is left", || {
        cluster.scaled(50, 1);
        cluster.scaled(2, 1);
        // PID 1 of the container environment is a pause under another name.
        until_at_most(*LIMIT, "the other processes are gone", || {
            (node.sh("pgrep -cx pause") == (SYSTEM + 1 + 2).to_string()).then_some(())
        });
    });
    report.check("the node is drained, and takes pods again", || {
        cluster.kubectl("delete pod users");
        cluster.kubectl("drain node --ignore-daemonsets --delete-emptydir-data --timeout 300s");
        cluster.sandboxes(SYSTEM);
        cluster.kubectl("uncordon node");
        cluster.ready();
        cluster.scaled(2, 0);
    });
}
