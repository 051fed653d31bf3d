//! Checks of a runtime through CRI: pods with each kind of PID namespace, containers that
//! come and go, signals, and how pause ends.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::node::Node;
use crate::pod::{Container, CriPod, Mode, confined, is_ours, orphans, status, traced_orphans};
use crate::report::Report;
use harness::running::call_in;
use harness::until;

/// The handler with the snapshotter "native", beside overlayfs.
const NATIVE: &str = "native";

pub fn check(node: &Node, report: &mut Report) {
    if node.pins() {
        report.check("pause is pinned: nobody collects it as garbage", || {
            let pod = CriPod::new(node, Mode::Pod);
            let info = node.inspect(&format!("inspectp {}", pod.id));
            let name = info["info"]["image"].as_str().expect("the image of a sandbox");
            let image = node.inspect(&format!("inspecti {name}"));
            assert_eq!(image["status"]["pinned"], true, "{name} is not pinned");
            name.to_string()
        });
    } else {
        report.note("images cannot be pinned before containerd 1.6.25 and 1.7.10");
    }
    // Unless its configuration says otherwise, CRI-O starts pause only for pods that share
    // one PID namespace.
    let modes: &[_] = match node.crio {
        true => &[Mode::Pod],
        false => &[Mode::Pod, Mode::Container, Mode::Node],
    };
    for mode in modes {
        report.check(&format!("two containers see one pod, PID namespace: {mode:?}"), || {
            one_pod(node, *mode)
        });
    }
    report.check("200 orphans leave no zombie, and pause sleeps on", || {
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start("member", "sleeper");
        orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
        "0 context switches, 0 zombies".to_string()
    });
    report.check("100 orphans of uid 1000 that pause traces leave no zombie", || {
        let user = json!({"run_as_user": {"value": 1000}, "seccomp": {"profile_type": 0}});
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start_with("member", "sleeper", user);
        assert_eq!(status(node, member.pid).ruid, 1000);
        // AppArmor, which keeps signals of a container from pause, lets pause be its tracer.
        let woken = traced_orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
        // On a busy machine the kernel may let pause wait for a lock while it reaps, which counts as well.
        assert!((1..=200).contains(&woken), "woken {woken} times");
        format!("woken {woken} times by them and 900 others, 0 zombies")
    });
    report.check("a container is replaced, and pause does not move", || {
        let pod = CriPod::new(node, Mode::Pod);
        let (first, _) = (pod.start("first", "sleeper"), pod.start("other", "sleeper"));
        let before = pod.pause();
        node.crictl(&format!("stop {}", first.id));
        node.crictl(&format!("rm {}", first.id));
        pod.start("second", "sleeper");
        assert_eq!(pod.pause(), before);
        format!("before and after: {before}")
    });
    report.check("signals that pause does not know do nothing", || {
        let pod = CriPod::new(node, Mode::Pod);
        let member = pod.start("member", "sleeper");
        // SIGCHLD wakes it once, and nothing follows.
        let sleeps = || status(node, pod.pid).voluntary_ctxt_switches;
        let once = sleeps().map(|sleeps| sleeps + 1);
        node.sh(&format!("kill -CHLD {}", pod.pid));
        until("it was woken, and sleeps", || (sleeps() == once).then_some(()));
        let before = pod.pause();
        let separated = separated(node, &pod, &member);
        for signal in ["HUP", "USR1", "WINCH"] {
            if separated.is_none() {
                pod.exec(&member, &format!("kill -{signal} 1"));
            }
            node.sh(&format!("kill -{signal} {}", pod.pid));
        }
        if separated.is_none() {
            pod.exec(&member, "kill -KILL 1");
        }
        assert_eq!(pod.pause(), before);
        assert_eq!(pod.state(), "SANDBOX_READY");
        let known = "HUP, USR1 and WINCH from the node";
        let all = separated.map_or(format!("{known} and from inside, KILL from inside"), |why| {
            format!("{known}; {why}")
        });
        format!("{all}; CHLD from the node wakes it once")
    });
    for signal in ["TERM", "INT"] {
        for inside in [false, true] {
            let from = if inside { "from inside" } else { "from the node" };
            report.check(
                &format!("SIG{signal} {from} ends it with 0, and the sandbox is not ready"),
                || {
                    let pod = CriPod::new(node, Mode::Pod);
                    let member = pod.start("member", "sleeper");
                    if !inside {
                        node.sh(&format!("kill -{signal} {}", pod.pid));
                    } else if let Some(why) = separated(node, &pod, &member) {
                        let kill = format!("exec {} kill -{signal} 1", member.id);
                        assert!(!node.crictl_output(&kill).status.success(), "it was sent");
                        assert_eq!(pod.state(), "SANDBOX_READY");
                        return why;
                    } else {
                        // The shell that runs kill is killed together with the PID namespace, so its
                        // exit status says nothing.
                        node.crictl_output(&format!("exec {} kill -{signal} 1", member.id));
                    }
                    pod.ended(0);
                    pod.remove();
                    String::new()
                },
            );
        }
    }
    report.check(
        "SIGKILL from the node ends it with 137, so that a status of 0 says something",
        || {
            let pod = CriPod::new(node, Mode::Pod);
            node.sh(&format!("kill -KILL {}", pod.pid));
            pod.ended(137);
        },
    );
    if node.crio {
        // containerd stops a sandbox with SIGKILL, so pause always ends with 137 there.
        report.check("a stop sends SIGTERM, which ends it with 0", || {
            // A pause that ignored SIGTERM would be killed after 30 s, and the status be 137.
            let pod = CriPod::new(node, Mode::Pod);
            pod.start("member", "sleeper");
            let start = Instant::now();
            node.crictl(&format!("stopp {}", pod.id));
            let took = start.elapsed();
            assert_eq!(node.exit_status(&pod.id), 0);
            assert!(took < Duration::from_secs(20), "{took:?}");
            format!("{} ms, exit status 0", took.as_millis())
        });
    }
    report.check("stop and remove leave nothing", || leaves_nothing(node));
    restricted(node, report);
}

/// Whether AppArmor keeps signals of a container from pause, and why: the runtime confines
/// containers by a profile that lets them send signals to its own processes only, and no sandbox.
fn separated(node: &Node, pod: &CriPod, member: &Container) -> Option<String> {
    let profile = |pid| {
        let label = fs::read_to_string(node.proc(pid, "attr/apparmor/current"));
        label.unwrap_or_default().trim().to_string()
    };
    let (ours, theirs) = (profile(pod.pid), profile(member.pid));
    (ours != theirs).then(|| {
        format!("AppArmor lets none from inside through: the container is {theirs}, pause {ours}")
    })
}

/// Asserts that two containers and pause share the network, IPC and UTS namespaces, and that
/// their PID namespaces are those that `mode` asks for.
fn one_pod(node: &Node, mode: Mode) -> String {
    let pod = CriPod::new(node, mode);
    is_ours(node, pod.pid);
    let (web, app) = (pod.start("web", "web"), pod.start("app", "app-1"));
    for name in ["net", "ipc", "uts"] {
        let all = [pod.pid, web.pid, app.pid].map(|pid| pod.namespace(pid, name));
        assert!(all.iter().all(|one| *one == all[0]), "{name}: {all:?}");
    }
    let loopback = |container| pod.exec(container, "ip -o link show | grep -c LOOPBACK");
    assert_eq!((loopback(&web).as_str(), loopback(&app).as_str()), ("1", "1"), "not one loopback");
    // nginx in the first container listens on the loopback interface; the second asks it there.
    until("nginx answers for the application", || {
        let page = node.crictl_output(&format!("exec {} wget -qO- http://127.0.0.1/", app.id));
        (page.stdout == b"application 1\n").then_some(())
    });
    assert_eq!(pod.exec(&app, "wget -qO- http://127.0.0.1:2368/"), "application 1");

    let [pause, first, second] = [pod.pid, web.pid, app.pid].map(|pid| pod.namespace(pid, "pid"));
    let here = pod.namespace(1, "pid");
    match mode {
        Mode::Pod => {
            assert!(pause == first && pause == second && pause != here, "{pause} {first} {second}");
            assert_eq!(status(node, pod.pid).nspid.expect("NSpid").last(), Some(&1));
            for container in [&web, &app] {
                assert_eq!(pod.exec(container, "cat /proc/1/comm"), "pause");
            }
            "PID 1 is /pause in both".to_string()
        }
        Mode::Container => {
            let all = [&pause, &first, &second, &here];
            let other = |i: usize| all[i + 1..].iter().all(|one| *one != all[i]);
            assert!((0..3).all(other), "{all:?}");
            "three namespaces".to_string()
        }
        Mode::Node => {
            assert!(first == here && second == here, "{first} {second}, not {here}");
            "that of the node".to_string()
        }
    }
}

/// Asserts that nothing is left of a pod that was removed. Everything that belongs to it has
/// the ID of the sandbox or of the container in its name.
fn leaves_nothing(node: &Node) {
    let pod = CriPod::new(node, Mode::Pod);
    let member = pod.start("member", "sleeper");
    let ids = [&pod.id, &member.id];
    let has = |text: &str| ids.iter().filter(|id| text.contains(id.as_str())).count();
    let left = || {
        let mounts = node.sh("cat /proc/self/mountinfo");
        let groups = node.sh("find /sys/fs/cgroup -type d");
        let processes = node.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '");
        let known =
            node.crictl("pods --quiet --no-trunc") + &node.crictl("ps --all --quiet --no-trunc");
        [&mounts, &groups, &processes, &known].map(|text| has(text))
    };
    let info = node.inspect(&format!("inspectp {}", pod.id));
    let namespaces = info["info"]["runtimeSpec"]["linux"]["namespaces"].as_array();
    let network = namespaces.expect("its namespaces").iter().find(|one| one["type"] == "network");
    let network = network.expect("a network")["path"].as_str().expect("a path");
    let is_there = || node.output(&format!("test -e {network}")).status.success();
    let before = left();
    assert!(!before.contains(&0) && is_there(), "{before:?}: what to look for is not known");
    pod.remove();
    until("no mount, group, process or name is left", || (left() == [0; 4]).then_some(()));
    assert!(!is_there(), "{network} is left");
}

/// Checks pods with restricted rights.
fn restricted(node: &Node, report: &mut Report) {
    let wanted = json!({
        "run_as_user": {"value": 1000},
        "run_as_group": {"value": 1000},
        "readonly_rootfs": true,
        "seccomp": {"profile_type": 0},
    });
    report.check(
        "a restricted pod: runAsNonRoot, read-only root, ALL dropped, RuntimeDefault",
        || {
            let pod = CriPod::with(node, Mode::Pod, wanted.clone(), "");
            let mut member = wanted;
            member["capabilities"] = json!({"drop_capabilities": ["ALL"]});
            member["no_new_privs"] = json!(true);
            let member = pod.start_with("member", "sleeper", member);
            is_ours(node, pod.pid);
            let confined = confined(node, pod.pid);
            assert_eq!(status(node, member.pid).capbnd, Some(0));
            let mounts = fs::read_to_string(node.proc(pod.pid, "mountinfo")).expect("its mounts");
            let top =
                mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("its root");
            assert!(top.split(' ').nth(5).expect("options").starts_with("ro"), "{top}");
            node.sh(&format!("kill -TERM {}", pod.pid));
            pod.ended(0);
            confined
        },
    );
    // Another runc may call more before it starts pause.
    if node.is_in_cell() {
        for (what, allowed) in [
            ("the list of system calls in docs/questions.md", true),
            ("this list without rt_sigtimedwait", false),
        ] {
            report.check(&format!("a Localhost seccomp profile with {what}"), || {
                let profile = include_str!("config/seccomp.json");
                let profile = match allowed {
                    true => profile.into(),
                    false => profile.replace("\"rt_sigtimedwait\", ", ""),
                };
                let path = node.file("seccomp.json", &profile.parse().expect("JSON"));
                let profile = json!({"profile_type": 2, "localhost_ref": path});
                let pod = CriPod::with(node, Mode::Pod, json!({"seccomp": profile}), "");
                is_ours(node, pod.pid);
                assert_eq!(status(node, pod.pid).seccomp, Some(2), "no filter of seccomp");
                let call = call_in(&node.proc(pod.pid, "syscall"));
                assert_eq!(call == Some(libc::SYS_rt_sigtimedwait), allowed, "{call:?}");
                let member = pod.start("member", "sleeper");
                orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
                node.sh(&format!("kill -TERM {}", pod.pid));
                pod.ended(0);
            });
        }
    }
    let info = node.inspect("info");
    let handlers = || info["runtimeHandlers"].as_array().into_iter().flatten();
    if handlers().any(|one| one["name"] == NATIVE) {
        report.check(
            "a runtime class with another snapshotter has the image unpacked there",
            || {
                let is_overlay = |options: &str| {
                    let pod = CriPod::with(node, Mode::Pod, json!({}), options);
                    is_ours(node, pod.pid);
                    let mounts = fs::read_to_string(node.proc(pod.pid, "mountinfo"));
                    mounts
                        .expect("its mounts")
                        .lines()
                        .next()
                        .expect("its root")
                        .contains(" - overlay ")
                };
                assert!(is_overlay("") && !is_overlay(&format!("--runtime {NATIVE}")));
            },
        );
    }
    let able = handlers().filter(|one| one["features"]["user_namespaces"] == true);
    let name =
        able.filter_map(|one| one["name"].as_str()).find(|name| !["", NATIVE].contains(name));
    let what = "a pod with a user namespace (hostUsers: false)";
    let Some(name) = name else {
        return report.note(&format!("{what}: this runtime has none"));
    };
    report.check(what, || {
        let ids = json!([{"host_id": 65536, "container_id": 0, "length": 65536}]);
        let users =
            json!({"namespace_options": {"userns_options": {"mode": 0, "uids": ids, "gids": ids}}});
        let pod = CriPod::with(node, Mode::Pod, users.clone(), &format!("--runtime {name}"));
        let member = pod.start_with("member", "sleeper", users);
        is_ours(node, pod.pid);
        assert_eq!(pod.namespace(pod.pid, "user"), pod.namespace(member.pid, "user"));
        let map = fs::read_to_string(node.proc(pod.pid, "uid_map")).expect("its map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "65536", "65536"]);
        orphans(node, pod.pid, |line| drop(pod.exec(&member, line)));
        let user = status(node, pod.pid).ruid;
        node.sh(&format!("kill -TERM {}", pod.pid));
        pod.ended(0);
        format!("by the handler {name}: root in it is uid 65536, pause {user}")
    });
}
