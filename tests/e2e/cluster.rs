//! A cluster of one node by kubeadm, in a cell: our image is the pause that kubeadm itself names.
//! All of its images come from a registry on the loopback interface, under upstream's names.

use std::fs;

use serde_json::Value;

use crate::Work;
use crate::images::Images;
use crate::kubelet::OWN_SETTINGS;
use crate::node::{LIMIT, Node, Runtime};
use crate::pod::{children, is_ours, orphans, pause, status, traced_orphans};
use crate::report::Report;
use harness::programs::{HOST, dist};
use harness::{until, until_at_most};

/// What a node of a real cluster has, and a cell has not.
const SURROUNDINGS: &str = "
    ip link add eth0 type veth peer name outside
    ip address add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip link set outside up
    ip route add default via 10.0.2.2
    # Nothing listens there, so a name outside of the cluster is refused at once.
    rm -f /etc/resolv.conf && echo 'nameserver 10.0.2.15' >/etc/resolv.conf
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

pub struct Cluster {
    pub node: Node,
}

impl Cluster {
    /// Starts a cluster whose pause is ours or, as a control, a C program.
    pub fn new(pause_tag: Option<&str>, work: &Work, images: &Images) -> Self {
        let names = images.of_cluster();
        let pause = names.iter().find(|name| name.contains("/pause:"));
        let pause = pause.expect("kubeadm names a pause image");
        let node = Node::new(Runtime::Containerd2, pause, work, images);
        node.sh(OWN_SETTINGS);
        node.sh(SURROUNDINGS);
        node.write("/etc/cni/net.d/10-pods.conflist", include_str!("config/cni-ptp.conflist"));
        images.serve_cluster(&node, &names, pause_tag);
        node.sh(KUBELET);
        let version = node.sh("kubeadm version --output short");
        let config = include_str!("config/kubeadm.yaml");
        let config = config.replace("@VERSION@", &version).replace("@DRIVER@", node.driver());
        node.write("/etc/kubernetes/kubeadm.yaml", &config);
        Self { node }
    }

    /// Runs kubectl, which must succeed.
    #[track_caller]
    pub fn kubectl(&self, line: &str) -> String {
        self.node.sh(&format!("kubectl --kubeconfig /etc/kubernetes/admin.conf {line}"))
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("{line} --output json"))).expect("JSON")
    }

    /// Runs kubeadm init.
    #[track_caller]
    pub fn init(&self) {
        // It verifies that control groups are of version 2, as nothing else of that check fails.
        self.node.sh("kubeadm init --config /etc/kubernetes/kubeadm.yaml \
             --ignore-preflight-errors=SystemVerification >/run/kubeadm.log 2>&1 ||
             { grep -v '^\\s*$' /run/kubeadm.log | tail -n1 >&2; exit 1; }");
    }

    /// Waits until the node is ready and every pod of the system runs, and counts these.
    #[track_caller]
    pub fn ready(&self) -> usize {
        self.kubectl("wait --for condition=Ready node/node --timeout 300s");
        until_at_most(4 * *LIMIT, "all pods of the system run", || {
            let pods = self.json("get pods --namespace kube-system");
            let pods = pods["items"].as_array()?;
            let runs = |pod: &Value| {
                let ready = pod["status"]["containerStatuses"].as_array();
                ready.is_some_and(|all| all.iter().all(|one| one["ready"] == true))
            };
            (pods.len() >= 7 && pods.iter().all(runs)).then_some(pods.len())
        })
    }

    /// The PID of the pause of every sandbox that is ready.
    fn sandboxes(&self) -> Vec<i32> {
        until_at_most(*LIMIT, "the sandboxes are listed", || {
            let ids = self.node.crictl("pods --quiet --no-trunc --state ready");
            // One that is removed meanwhile cannot be inspected: the list is made again.
            let pids = ids.lines().map(|id| self.node.find_pause(id));
            pids.collect()
        })
    }

    /// Waits until the Deployment has this many pods, all ready, and as many sandboxes more than
    /// the system and the other pods have.
    #[track_caller]
    fn scaled(&self, replicas: usize, others: usize) -> Vec<i32> {
        self.kubectl(&format!("scale deployment web --replicas {replicas}"));
        self.kubectl("rollout status deployment web --timeout 300s");
        until_at_most(4 * *LIMIT, "as many sandboxes as pods", || {
            let all = self.sandboxes();
            (all.len() == replicas + others).then_some(all)
        })
    }

    /// Waits until both containers of a pod run, having been started again this many times.
    #[track_caller]
    fn restarted(&self, pod: &str, times: usize) {
        until_at_most(4 * *LIMIT, &format!("{pod} started again {times} times"), || {
            let pod = self.json(&format!("get pod {pod}"));
            let all = pod["status"]["containerStatuses"].as_array()?;
            let runs =
                |one: &Value| one["restartCount"] == times && one["state"]["running"].is_object();
            (all.len() == 2 && all.iter().all(runs)).then_some(())
        });
    }

    /// A request to the Service: its name is looked up in a pod, through CoreDNS; the node asks the
    /// address, through kube-proxy and nginx.
    #[track_caller]
    fn serves(&self, page: &str) {
        until_at_most(*LIMIT, "the Service answers", || {
            // The static busybox of Debian crashes when its wget looks a name up.
            let line = "
                address=$(kubectl --kubeconfig /etc/kubernetes/admin.conf exec users -- \
                    nslookup web.default.svc.cluster.local | awk '/^Address: [0-9.]*$/ { print $2 }')
                curl --silent --max-time 2 http://$address/";
            let output = self.node.output(line);
            (String::from_utf8_lossy(&output.stdout).trim() == page).then_some(())
        });
    }
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let cluster = Cluster::new(None, work, images);
    let node = &cluster.node;
    let version = node.sh("kubeadm version --output short");
    report.versions(&[&node.programs[..], &[format!("Kubernetes {version}")]].concat());
    report.check("kubeadm init, with our image as the pause that it names", || {
        cluster.init();
        let pods = cluster.ready();
        let sandboxes = cluster.sandboxes();
        sandboxes.iter().for_each(|pid| is_ours(node, *pid));
        assert_eq!(sandboxes.len(), pods);
        format!("the node is ready; {pods} pods run, each held by pause")
    });
    report.check("kubeadm upgrade plan: its Job runs the image with -v", || {
        node.sh(&format!(
            "kubeadm upgrade plan {version} --kubeconfig /etc/kubernetes/admin.conf \
             --ignore-preflight-errors=SystemVerification >/run/plan.log 2>&1 ||
             {{ tail -n1 /run/plan.log >&2; exit 1; }}"
        ));
        let events = cluster.json("get events --namespace kube-system");
        let about = |event: &&Value| {
            let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
            name.starts_with("upgrade-health-check") && event["reason"] == "Completed"
        };
        let event = events["items"].as_array().expect("events").iter().find(about);
        let event = event.expect("the Job completed");
        event["message"].as_str().unwrap_or_default().to_string()
    });
    // The sandboxes of the system, and that of the pod with a user namespace.
    let others = cluster.sandboxes().len() + 1;
    node.write("/etc/kubernetes/web.yaml", include_str!("config/deployment.yaml"));
    cluster.kubectl("apply --filename /etc/kubernetes/web.yaml");
    report.check("hostUsers: false, through the API", || {
        cluster.kubectl("wait --for condition=Ready pod/users --timeout 300s");
        let id = node.crictl("pods --quiet --name ^users$");
        let pid = node.pause_of(&id);
        is_ours(node, pid);
        let user = status(node, pid).ruid;
        assert!(user >= 65536, "pause runs as uid {user} of the node");
        let exec = |line: &str| drop(cluster.kubectl(&format!("exec users -- sh -c '{line}'")));
        orphans(node, pid, exec);
        let woken = traced_orphans(node, pid, exec);
        assert!((1..=200).contains(&woken), "woken {woken} times");
        format!("pause as uid {user} of the node; 200 orphans, 0 context switches, 0 zombies; woken {woken} times by 1,000 orphans of which it traces 100")
    });
    node.write("/etc/kubernetes/restarts.yaml", include_str!("config/restarts.yaml"));
    report.check(
        "RestartAllContainers: ten times all containers start again in the same sandbox",
        || {
            cluster.kubectl("apply --filename /etc/kubernetes/restarts.yaml");
            cluster.kubectl("wait --for condition=Ready pod/restarts --timeout 300s");
            let id = node.crictl("pods --quiet --no-trunc --name ^restarts$");
            let pid = node.pause_of(&id);
            is_ours(node, pid);
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
            assert_eq!(node.crictl("pods --quiet --no-trunc --name ^restarts$"), id);
            assert_eq!(pause(node, pid), before);
            format!("200 orphans of 10 generations are gone; {before}")
        },
    );
    report.check("a container is resized in place, in the same sandbox", || {
        let id = node.crictl("pods --quiet --no-trunc --name ^restarts$");
        let before = pause(node, node.pause_of(&id));
        let patch = r#"{"spec": {"containers": [{"name": "member", "resources": {"requests": {"cpu": "20m"}}}]}}"#;
        cluster.kubectl(&format!("patch pod restarts --subresource resize --patch '{patch}'"));
        until_at_most(4 * *LIMIT, "the kubelet has resized it", || {
            let pod = cluster.json("get pod restarts");
            let mut all = pod["status"]["containerStatuses"].as_array()?.iter();
            let member = all.find(|one| one["name"] == "member")?;
            (member["resources"]["requests"]["cpu"] == "20m").then_some(())
        });
        cluster.restarted("restarts", 10);
        assert_eq!(pause(node, node.pause_of(&id)), before);
        cluster.kubectl("delete pod restarts");
        before.to_string()
    });
    report.check("a Deployment of two pods answers by the name of its Service", || {
        let all = cluster.scaled(2, others);
        all.iter().for_each(|pid| is_ours(node, *pid));
        cluster.serves("application 1");
    });
    report.check("it is scaled to 50 pods and back, and no pause is left", || {
        let many = cluster.scaled(50, others);
        many.iter().for_each(|pid| is_ours(node, *pid));
        let few = cluster.scaled(2, others);
        let ours = fs::read(dist(&HOST)).expect("pause");
        let runs = |pid: &&i32| fs::read(node.proc(**pid, "exe")).is_ok_and(|file| file == ours);
        until_at_most(*LIMIT, "the other processes are gone", || {
            (many.iter().filter(runs).count() == few.len()).then_some(())
        });
        format!("{} sandboxes, then {}", many.len(), few.len())
    });
    report.check("a rolling update", || {
        cluster.kubectl("set image deployment/web application=localhost/e2e:app-2");
        cluster.scaled(2, others);
        cluster.serves("application 2");
    });
    report.check("the node is drained, and takes pods again", || {
        cluster.kubectl("delete pod users");
        cluster.kubectl("drain node --ignore-daemonsets --delete-emptydir-data --timeout 300s");
        // The control plane and kube-proxy stay.
        let left = until_at_most(4 * *LIMIT, "the sandboxes of the other pods are gone", || {
            let all = cluster.sandboxes();
            (all.len() == 5).then_some(all)
        });
        cluster.kubectl("uncordon node");
        cluster.ready();
        cluster.scaled(2, others - 1);
        format!("{} sandboxes were left", left.len())
    });
}
