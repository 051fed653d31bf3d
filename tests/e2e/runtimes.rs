//! pause as the first process of a container of an OCI runtime: runc, crun and gVisor's runsc, without an engine. What
//! gVisor does otherwise is checked as such.

use crate::bundle::{Bundle, Runtime};
use crate::node::surroundings;
use crate::report::Report;
use crate::work::{Work, bin};
use harness::cgroup::is_unified;
use harness::{INTERRUPT, TERMINATED, VERSION, WARNING, until};

pub const NAMES: [&str; 3] = ["runc", "crun", "runsc"];

/// A runtime that this machine has, or that was built.
fn runtime(name: &'static str) -> Runtime {
    let options: &[_] = match name {
        "runsc" => &["--ignore-cgroups", "--network=none", "--platform=systrap"],
        _ => &[],
    };
    let built = bin().join(name);
    Runtime {
        name,
        program: if built.exists() { built } else { name.into() },
        options: options.iter().map(|option| option.to_string()).collect(),
        // crun refuses control groups of both versions.
        unified: name == "crun" && !is_unified(),
    }
}

/// pause is dumped to files, killed, and restored from them by CRIU.
pub fn criu(work: &Work, report: &mut Report) {
    let runc = runtime("runc");
    let criu = harness::run("sh", &["-c", "criu --version | sed 's/Version: /CRIU /'"]);
    report.versions(&[vec![criu.trim().to_string(), runc.version()], surroundings("cgroupfs")].concat());
    report.check("CRIU dumps and restores it, with an orphan, and SIGTERM after it", || restored(work, &runc));
}

/// Checks pause with one runtime.
pub fn check(name: &'static str, work: &Work, report: &mut Report) {
    let runtime = &runtime(name);
    let gvisor = name == "runsc";
    let driver = if gvisor { "none" } else { "cgroupfs" };
    report.versions(&[vec![runtime.version()], surroundings(driver)].concat());
    let started = |arguments: &[&str]| Bundle::started(work, runtime, arguments);
    let sleeping = |arguments: &[&str]| Bundle::sleeping(work, runtime, arguments);
    report.check("-v prints the version", || {
        assert_eq!(started(&["/pause", "-v"]).end(), (Some(0), format!("pause {VERSION}")));
    });
    for (signal, line) in [("TERM", TERMINATED), ("INT", INTERRUPT)] {
        report.check(&format!("SIG{signal} ends it with 0, and one line"), || {
            let bundle = sleeping(&["/pause"]);
            bundle.kill(signal);
            assert_eq!(bundle.end(), (Some(0), line.to_string()));
        });
    }
    report.check("where it is not the first process, it warns, and goes on", || {
        let output = sleeping(&["/pause"]).exec(
            "/pause 2>/tmp/line & until test \"$(cut -d' ' -f2,3 /proc/$!/stat)\" = '(pause) S'; do :; done
             kill $!; wait $! && cat /tmp/line",
        );
        assert_eq!(output, format!("{WARNING}\n{TERMINATED}"));
    });
    report.check("200 orphans leave no zombie, and pause sleeps on", || {
        let bundle = sleeping(&["/pause"]);
        let before = bundle.switches();
        bundle.orphans();
        assert_eq!(bundle.switches(), before);
        // The number is no evidence in gVisor, where every process has 0.
        format!("{before} context switches, before and after")
    });
    report.check("100 orphans that it traces, and 900 others, leave no zombie", || {
        let bundle = sleeping(&["/pause"]);
        let before = bundle.switches();
        bundle.exec("/orphans traced");
        bundle.childless();
        let woken = bundle.switches() - before;
        assert!((1..=200).contains(&woken) || gvisor, "scheduled {woken} times");
        format!("scheduled {woken} times")
    });
    report.check("a zombie that it starts with is reaped", || {
        // With commands of the shell itself, as it reaps its children when it waits for another.
        let zombie = "true & while read -r _ _ state _ </proc/$!/stat && [ $state != Z ]; do :; done; exec /pause";
        assert_eq!(sleeping(&["sh", "-c", zombie]).children(), "");
    });
    report.check("signals may be blocked at the start, and a SIGTERM that is pending takes effect", || {
        sleeping(&["env", "--block-signal=TERM,INT,CHLD", "/pause"]).orphans();
        let bundle = started(&["env", "--block-signal=TERM", "sh", "-c", "kill -TERM $$; exec /pause"]);
        assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
    });
    if gvisor {
        return only_in_gvisor(work, runtime, report);
    }
    report.check("signals that pause does not know do nothing: HUP, USR1, WINCH, and KILL from inside", || {
        let bundle = sleeping(&["/pause"]);
        ["HUP", "USR1", "WINCH"].iter().for_each(|signal| bundle.kill(signal));
        bundle.exec("kill -USR1 1; kill -KILL 1");
        bundle.kill("TERM");
        assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
    });
}

fn only_in_gvisor(work: &Work, runtime: &Runtime, report: &mut Report) {
    report.check("gVisor: its log of system calls shows what wakes pause", || {
        let folder = work.folder.join("runsc-log");
        let log = format!("--debug-log={}/", folder.display());
        let mut logging = runtime.clone();
        logging.options.extend(["--debug", "--strace", "--strace-syscalls=rt_sigtimedwait", &log].map(String::from));
        let bundle = Bundle::sleeping(work, &logging, &["/pause"]);
        let sleeps_after = |command: &str| {
            bundle.exec(command);
            bundle.childless();
            let line = format!("cat {}/*.boot* | grep -c ' E rt_sigtimedwait('", folder.display());
            harness::run("sh", &["-c", &line]).trim().parse::<u64>().expect("a number")
        };
        assert_eq!(sleeps_after("true"), 1);
        assert_eq!(sleeps_after("/orphans"), 1, "an ordinary orphan woke it");
        let woken = sleeps_after("/orphans traced") - 1;
        assert!((1..=100).contains(&woken), "woken {woken} times");
        format!("1,000 orphans: 0 times; 900, and 100 that it traces: {woken} times")
    });
    report.check("gVisor: SIGHUP ends pause with 129, as any first process", || {
        let bundle = Bundle::sleeping(work, runtime, &["/pause"]);
        bundle.kill("HUP");
        assert_eq!(bundle.end().0, Some(128 + libc::SIGHUP));
    });
    report.check("gVisor: checkpoint and restore, with an orphan, and SIGTERM after it", || restored(work, runtime));
}

/// Dumps a container with an orphan to files, restores it, and ends it with SIGTERM.
fn restored(work: &Work, runtime: &Runtime) {
    // gVisor does not restore what `exec` has started, so the orphan is there from the start. It is a loop, as a sleep
    // that was restored may end at once.
    let bundle = Bundle::sleeping(work, runtime, &["sh", "-c", "(while :; do sleep 1; done &); exec /pause"]);
    until("pause has an orphan", || (bundle.children() == "S").then_some(()));
    let files = format!("--image-path={}/{}-files", work.folder.display(), bundle.id);
    bundle.runtime("checkpoint", &[&files], &[]);
    bundle.end();
    bundle.delete();
    bundle.start("restore", &[&files]);
    bundle.sleeps();
    assert_eq!(bundle.children(), "S", "the orphan is there");
    bundle.exec("kill $(cat /proc/[0-9]*/stat 2>/dev/null | awk '$4 == 1 { print $1 }')");
    bundle.childless();
    bundle.kill("TERM");
    assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
}
