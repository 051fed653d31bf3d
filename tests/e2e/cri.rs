//! Checks of a runtime through CRI: pods with each kind of PID namespace, containers that come and go, signals, and how
//! pause ends.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::node::Node;
use crate::pod::{Container, CriPod, Mode, confined, is_ours, orphans, status, traced_orphans};
use crate::report::Report;
use harness::running::call_in;
use harness::until;

pub fn check(node: &Node, report: &mut Report) {
    if node.pins() {
        report.check("pause is pinned: nobody collects it as garbage", || {
            let pod = CriPod::new(node, Mode::Pod);
            let name = pod.inspect()["info"]["image"].as_str().expect("the image of a sandbox").to_string();
            assert_eq!(node.inspect(&format!("inspecti {name}"))["status"]["pinned"], true, "{name} is not pinned");
            name
        });
    } else {
        report.note("  images cannot be pinned before containerd 1.6.25 and 1.7.10");
    }
    // Unless its configuration says otherwise, CRI-O starts pause only for pods that share one PID namespace.
    let modes: &[_] = if node.crio { &[Mode::Pod] } else { &[Mode::Pod, Mode::Container, Mode::Node] };
    for mode in modes {
        report.check(&format!("two containers see one pod, PID namespace: {mode:?}"), || one_pod(node, *mode));
    }
    report.check("200 orphans leave no zombie, and pause sleeps on", || {
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start("member", "sleeper");
        orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
    });
    report.check("100 orphans of uid 1000 that pause traces leave no zombie", || {
        let user = json!({"run_as_user": {"value": 1000}, "seccomp": {"profile_type": 0}});
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start_with("member", "sleeper", user);
        assert_eq!(status(node, member.pid).ruid, 1000);
        // AppArmor, which keeps signals of a container from pause, lets pause be its tracer.
        traced_orphans(node, pod.pid, |line| drop(pod.exec(&member, line)))
    });
    report.check("a container is replaced, and pause does not move", || {
        let pod = CriPod::new(node, Mode::Pod);
        let (first, _) = (pod.start("first", "sleeper"), pod.start("other", "sleeper"));
        let before = pod.pause();
        node.crictl(&format!("stop {}", first.id));
        node.crictl(&format!("rm {}", first.id));
        pod.start("second", "sleeper");
        assert_eq!(pod.pause(), before);
        before.to_string()
    });
    report.check("signals that pause does not know do nothing", || {
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start("member", "sleeper");
        // SIGCHLD wakes it once, and nothing follows.
        let sleeps = || status(node, pod.pid).voluntary_ctxt_switches;
        let once = sleeps().map(|sleeps| sleeps + 1);
        pod.kill("CHLD");
        until("it was woken, and sleeps", || (sleeps() == once).then_some(()));
        let before = pod.pause();
        let separated = separated(node, &pod, &member);
        ["HUP", "USR1", "WINCH"].iter().for_each(|signal| pod.kill(signal));
        if separated.is_none() {
            pod.exec(&member, "kill -HUP 1; kill -USR1 1; kill -WINCH 1; kill -KILL 1");
        }
        assert_eq!(pod.pause(), before);
        assert_eq!(pod.state(), "SANDBOX_READY");
        separated.unwrap_or("HUP, USR1 and WINCH from the node and from inside, KILL from inside".into())
    });
    for (signal, inside) in [("TERM", false), ("TERM", true), ("INT", false), ("INT", true)] {
        let from = if inside { "from inside" } else { "from the node" };
        report.check(&format!("SIG{signal} {from} ends it with 0, and the sandbox is not ready"), || {
            let pod = CriPod::new(node, Mode::Pod);
            let member = pod.start("member", "sleeper");
            let separated = if inside { separated(node, &pod, &member) } else { None };
            if inside {
                // The shell that runs kill is killed together with the PID namespace, so its exit status says nothing.
                let output = node.crictl_output(&format!("exec {} kill -{signal} 1", member.id));
                assert!(separated.is_none() || !output.status.success(), "AppArmor let it through");
            } else {
                pod.kill(signal);
            }
            if separated.is_none() {
                pod.ended(0);
            }
            pod.remove();
            separated.unwrap_or_default()
        });
    }
    report.check("SIGKILL from the node ends it with 137, so that a status of 0 says something", || {
        let pod = CriPod::new(node, Mode::Pod);
        pod.kill("KILL");
        pod.ended(137);
    });
    if node.crio {
        // containerd stops a sandbox with SIGKILL, so pause always ends with 137 there.
        report.check("a stop sends SIGTERM, which ends it with 0", || {
            // A pause that ignored SIGTERM would be killed after 30 s, and the status be 137.
            let pod = CriPod::new(node, Mode::Pod);
            pod.start("member", "sleeper");
            let start = Instant::now();
            node.crictl(&format!("stopp {}", pod.id));
            assert_eq!(node.exit_status(&pod.id), 0);
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        });
    }
    report.check("stop and remove leave nothing", || leaves_nothing(node));
    restricted(node, report);
}

/// Whether AppArmor keeps signals of a container from pause, and why: the runtime confines containers by a profile that
/// lets them send signals to its own processes only, and no sandbox.
fn separated(node: &Node, pod: &CriPod, member: &Container) -> Option<String> {
    let profile = |pid| fs::read_to_string(node.proc(pid, "attr/apparmor/current")).unwrap_or_default();
    let (ours, theirs) = (profile(pod.pid), profile(member.pid));
    (ours != theirs).then(|| {
        format!("AppArmor lets no signal of the container through: it is {}, pause {}", theirs.trim(), ours.trim())
    })
}

/// Asserts that two containers and pause share the network, IPC and UTS namespaces, and that their PID namespaces are
/// those that `mode` asks for.
fn one_pod(node: &Node, mode: Mode) {
    let pod = CriPod::new(node, mode);
    is_ours(node, pod.pid);
    let (web, app) = (pod.start("web", "web"), pod.start("app", "app-1"));
    for name in ["net", "ipc", "uts"] {
        let all = [pod.pid, web.pid, app.pid].map(|pid| pod.namespace(pid, name));
        assert!(all.iter().all(|one| *one == all[0]), "{name}: {all:?}");
    }
    assert_eq!(pod.exec(&web, "ip -o link show | grep -c LOOPBACK"), "1", "not one loopback");
    // nginx in the first container listens on the loopback interface; the second asks it there.
    until("nginx answers for the application", || {
        let page = node.crictl_output(&format!("exec {} wget -qO- http://127.0.0.1/", app.id));
        (page.stdout == b"application 1\n").then_some(())
    });
    let [pause, first, second, here] = [pod.pid, web.pid, app.pid, 1].map(|pid| pod.namespace(pid, "pid"));
    match mode {
        Mode::Pod => {
            assert!(pause == first && pause == second && pause != here, "{pause} {first} {second}");
            assert_eq!(status(node, pod.pid).nspid.expect("NSpid").last(), Some(&1));
            [web, app].iter().for_each(|one| assert_eq!(pod.exec(one, "cat /proc/1/comm"), "pause"));
        }
        Mode::Container => {
            let mut all = vec![pause, first, second, here];
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 4, "{all:?}");
        }
        Mode::Node => assert!(first == here && second == here, "{first} {second}, not {here}"),
    }
}

/// Asserts that nothing is left of a pod that was removed. Everything that belongs to it has the ID of the sandbox or
/// of the container in its name.
fn leaves_nothing(node: &Node) {
    let pod = CriPod::new(node, Mode::Pod);
    let member = pod.start("member", "sleeper");
    let left = || {
        let mounts = node.sh("cat /proc/self/mountinfo");
        let groups = node.sh("find /sys/fs/cgroup -type d");
        let processes = node.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '");
        let known = node.crictl("pods --quiet --no-trunc") + &node.crictl("ps --all --quiet --no-trunc");
        [mounts, groups, processes, known].map(|text| text.contains(&pod.id) || text.contains(&member.id))
    };
    let info = pod.inspect();
    let namespaces = info["info"]["runtimeSpec"]["linux"]["namespaces"].as_array();
    let network = namespaces.expect("its namespaces").iter().find(|one| one["type"] == "network");
    let network = network.expect("a network")["path"].as_str().expect("a path");
    let is_there = || node.output(&format!("test -e {network}")).status.success();
    assert!(left() == [true; 4] && is_there(), "what to look for is not known");
    pod.remove();
    until("no mount, group, process or name is left", || (left() == [false; 4]).then_some(()));
    assert!(!is_there(), "{network} is left");
}

/// Checks pods with restricted rights.
fn restricted(node: &Node, report: &mut Report) {
    let mut wanted = json!({
        "run_as_user": {"value": 1000},
        "run_as_group": {"value": 1000},
        "readonly_rootfs": true,
        "seccomp": {"profile_type": 0},
    });
    report.check("a restricted pod: runAsNonRoot, read-only root, ALL dropped, RuntimeDefault", || {
        let pod = CriPod::with(node, Mode::Pod, wanted.clone(), "");
        wanted["capabilities"] = json!({"drop_capabilities": ["ALL"]});
        wanted["no_new_privs"] = json!(true);
        let member = pod.start_with("member", "sleeper", wanted);
        is_ours(node, pod.pid);
        assert_eq!(status(node, member.pid).capbnd, Some(0));
        let mounts = fs::read_to_string(node.proc(pod.pid, "mountinfo")).expect("its mounts");
        assert!(mounts.lines().any(|line| line.contains(" / / ro")), "{mounts}");
        let confined = confined(node, pod.pid);
        pod.kill("TERM");
        pod.ended(0);
        confined
    });
    // Another runc may call more before it starts pause.
    for allowed in [true, false].iter().filter(|_| node.is_in_cell()) {
        let without = if *allowed { "" } else { ", without rt_sigtimedwait" };
        report.check(&format!("the Localhost seccomp profile of docs/questions.md{without}"), || {
            let profile = include_str!("config/seccomp.json");
            let profile = if *allowed { profile.into() } else { profile.replace("\"rt_sigtimedwait\", ", "") };
            let path = node.file("seccomp.json", &profile.parse().expect("JSON"));
            let profile = json!({"seccomp": {"profile_type": 2, "localhost_ref": path}});
            let pod = CriPod::with(node, Mode::Pod, profile, "");
            is_ours(node, pod.pid);
            assert_eq!(status(node, pod.pid).seccomp, Some(2), "no filter of seccomp");
            let call = call_in(&node.proc(pod.pid, "syscall"));
            assert_eq!(call == Some(libc::SYS_rt_sigtimedwait), *allowed, "{call:?}");
            let member = pod.start("member", "sleeper");
            orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
            pod.kill("TERM");
            pod.ended(0);
        });
    }
    let info = node.inspect("info");
    let runc = info["runtimeHandlers"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "runc"));
    let what = "a pod with a user namespace (hostUsers: false)";
    if runc.is_none_or(|runc| runc["features"]["user_namespaces"] != true) {
        return report.note(&format!("  {what}: this runtime has none"));
    }
    report.check(what, || {
        let ids = json!([{"host_id": 65536, "container_id": 0, "length": 65536}]);
        let users = json!({"namespace_options": {"userns_options": {"mode": 0, "uids": ids, "gids": ids}}});
        let pod = CriPod::with(node, Mode::Pod, users.clone(), "--runtime runc");
        let member = pod.start_with("member", "sleeper", users);
        is_ours(node, pod.pid);
        assert_eq!(pod.namespace(pod.pid, "user"), pod.namespace(member.pid, "user"));
        let map = fs::read_to_string(node.proc(pod.pid, "uid_map")).expect("its map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "65536", "65536"]);
        orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
        let user = status(node, pod.pid).ruid;
        pod.kill("TERM");
        pod.ended(0);
        format!("root in it is uid 65536, pause {user}")
    });
}
