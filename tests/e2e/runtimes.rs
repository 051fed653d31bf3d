//! pause as the first process of a container of an OCI runtime: runc, crun, youki and gVisor's
//! runsc, without an engine. What gVisor does otherwise is checked as such.

use crate::Work;
use crate::bundle::{Bundle, Runtime};
use crate::node::{bin, surroundings};
use crate::report::Report;
use harness::cgroup::is_unified;
use harness::programs::program;
use harness::{INTERRUPT, TERMINATED, VERSION, WARNING, until};

pub const NAMES: [&str; 4] = ["runc", "crun", "youki", "runsc"];

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
    let mut versions = vec![criu.trim().to_string(), runc.version()];
    versions.extend(surroundings("cgroupfs"));
    report.versions(&versions);
    report.check("CRIU dumps and restores it, with an orphan, and SIGTERM after it", || {
        restored(work, &runc)
    });
}

/// Checks pause with one runtime.
pub fn check(name: &'static str, work: &Work, report: &mut Report) {
    let runtime = &runtime(name);
    let mut versions = vec![runtime.version()];
    versions.extend(surroundings(if name == "runsc" { "none" } else { "cgroupfs" }));
    report.versions(&versions);
    let gvisor = runtime.name == "runsc";
    let started = |arguments: &[&str]| {
        let bundle = Bundle::new(work, runtime, arguments);
        bundle.start("run", &[]);
        bundle
    };
    let sleeping = |arguments: &[&str]| {
        let bundle = started(arguments);
        bundle.sleeps();
        bundle
    };
    // `youki run` may wait for ever for a container that ends before it begins to wait, and
    // has no state that says that it waits.
    let delay = match runtime.name {
        "youki" => "sleep 5; ",
        _ => "",
    };
    report.check("-v prints the version", || {
        let output = match delay {
            "" => started(&["/pause", "-v"]).end(),
            _ => started(&["sh", "-c", &format!("{delay}exec /pause -v")]).end(),
        };
        assert_eq!(output, (Some(0), format!("pause {VERSION}")));
        output.1
    });
    for (signal, line) in [("TERM", TERMINATED), ("INT", INTERRUPT)] {
        report.check(&format!("SIG{signal} ends it with 0, and one line"), || {
            let bundle = sleeping(&["/pause"]);
            bundle.kill(signal);
            assert_eq!(bundle.end(), (Some(0), line.to_string()));
        });
    }
    report.check("where it is not the first process, it warns, and goes on", || {
        let bundle = sleeping(&["/pause"]);
        let output = bundle.exec(
            "/pause 2>/tmp/line & until test \"$(cut -d' ' -f2,3 /proc/$!/stat)\" = '(pause) S'; do :; done
             kill $!; wait $! && cat /tmp/line",
        );
        assert_eq!(output, format!("{WARNING}\n{TERMINATED}"));
    });
    report.check("200 orphans leave no zombie, and pause sleeps on", || {
        let bundle = sleeping(&["/pause"]);
        let before = bundle.switches();
        bundle.orphans();
        let after = bundle.switches();
        assert_eq!(before, after);
        if !gvisor {
            return format!("{after} context switches, before and after");
        }
        // Every process of gVisor has 0, so the number is no evidence.
        assert_eq!(
            bundle.exec("awk '/ctxt_switches/ { n += $2 } END { print n }' /proc/self/status"),
            "0"
        );
        "0 zombies; gVisor does not count context switches".to_string()
    });
    report.check("100 orphans that it traces leave no zombie", || {
        let bundle = sleeping(&["/pause"]);
        let before = bundle.switches();
        bundle.exec("/orphans traced");
        until("they are gone", || bundle.children().is_empty().then_some(()));
        if gvisor {
            return "with 900 others; gVisor does not count context switches".into();
        }
        let [before, after] =
            [before, bundle.switches()].map(|n| n.parse::<u64>().expect("a number"));
        let woken = after - before;
        assert!((1..=200).contains(&woken), "scheduled {woken} times");
        format!("scheduled {woken} times by them and 900 others")
    });
    report.check("a zombie that it starts with is reaped", || {
        let bundle = sleeping(&[
            "sh",
            "-c",
// With commands of the shell itself, as it reaps its children when it waits for another.
            "true & while read -r _ _ state _ </proc/$!/stat && [ $state != Z ]; do :; done; exec /pause",
        ]);
        assert_eq!(bundle.children(), "");
    });
    report.check("SIGTERM, SIGINT and SIGCHLD that the starter has blocked", || {
        let bundle = sleeping(&["env", "--block-signal=TERM,INT,CHLD", "/pause"]);
        bundle.orphans();
        bundle.kill("TERM");
        assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
        "orphans are reaped, and SIGTERM ends it with 0".to_string()
    });
    report.check("a SIGTERM that is pending at the start takes effect", || {
        let bundle = started(&[
            "env",
            "--block-signal=TERM",
            "sh",
            "-c",
            &format!("{delay}kill -TERM $$; exec /pause"),
        ]);
        assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
    });
    if !gvisor {
        report.check("signals that pause does not know do nothing", || {
            let bundle = sleeping(&["/pause"]);
            for signal in ["HUP", "USR1", "WINCH"] {
                bundle.kill(signal);
            }
            bundle.exec("kill -USR1 1; kill -KILL 1");
            bundle.kill("TERM");
            assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
            "HUP, USR1 and WINCH from outside, USR1 and KILL from inside".to_string()
        });
        return;
    }
    report.check("gVisor: its log of system calls shows what wakes pause", || {
        let folder = work.folder.join("runsc-log");
        let log = format!("--debug-log={}/", folder.display());
        let mut logging = runtime.clone();
        logging.options.extend(
            ["--debug", "--strace", "--strace-syscalls=rt_sigtimedwait", &log].map(String::from),
        );
        let bundle = Bundle::new(work, &logging, &["/pause"]);
        bundle.start("run", &[]);
        bundle.sleeps();
        let slept = || {
            let line = format!("cat {}/*.boot* | grep -c ' E rt_sigtimedwait('", folder.display());
            harness::run("sh", &["-c", &line]).trim().parse::<u64>().expect("a number")
        };
        let sleeps_after = |command: &str| {
            bundle.exec(command);
            until("they are gone", || bundle.children().is_empty().then_some(()));
            slept()
        };
        assert_eq!(slept(), 1);
        assert_eq!(sleeps_after("/orphans"), 1, "an ordinary orphan woke it");
        let woken = sleeps_after("/orphans traced") - 1;
        assert!((1..=100).contains(&woken), "woken {woken} times");
        format!("1,000 orphans: 0 times; 900, and 100 that it traces: {woken} times")
    });
    report.check("gVisor: a signal that pause does not know ends it, as any first process", || {
        for program in [&["/pause"][..], &["sleep", "600"]] {
            let bundle = started(program);
            until("it runs", || (bundle.status()? == "running").then_some(()));
            bundle.kill("HUP");
            assert_eq!(bundle.end().0, Some(128 + libc::SIGHUP));
        }
        "SIGHUP ends pause and busybox's sleep with 129".to_string()
    });
    report.check(
        "gVisor: a program may start with argc 0, and pause takes no variable for an argument",
        || {
            let bundle = Bundle::new(work, runtime, &["/exec0"]);
            bundle.add(&program("exec0"));
            bundle.start("run", &[]);
            bundle.sleeps();
            // Linux has given an empty first argument since 5.18, which is one byte here.
            assert_eq!(bundle.exec("wc -c </proc/1/cmdline"), "0");
            assert_eq!(bundle.exec("tr '\\0' ' ' </proc/1/environ"), "-v");
            bundle.kill("TERM");
            assert_eq!(bundle.end(), (Some(0), TERMINATED.into()));
            "0 bytes of arguments, and a variable -v in the environment".to_string()
        },
    );
    report.check("gVisor: checkpoint and restore, with an orphan, and SIGTERM after it", || {
        restored(work, runtime)
    });
}

/// Dumps a container with an orphan to files, restores it, and ends it with SIGTERM.
fn restored(work: &Work, runtime: &Runtime) -> String {
    // gVisor does not restore what `exec` has started, so the orphan is there from the start. It
    // is a loop, as a sleep that was restored may end at once.
    let bundle =
        Bundle::new(work, runtime, &["sh", "-c", "(while :; do sleep 1; done &); exec /pause"]);
    bundle.start("run", &[]);
    bundle.sleeps();
    until("pause has an orphan", || (bundle.children() == "S").then_some(()));
    let files = work.folder.join(format!("{}-files", bundle.id));
    let files = format!("--image-path={}", files.display());
    bundle.runtime("checkpoint", &[&files], &[]);
    bundle.end();
    runtime.delete(&bundle.id);
    bundle.start("restore", &[&files]);
    bundle.sleeps();
    assert_eq!(bundle.children(), "S", "the orphan is there");
    bundle.exec("kill $(cat /proc/[0-9]*/stat 2>/dev/null | awk '$4 == 1 { print $1 }')");
    until("the orphan is reaped", || bundle.children().is_empty().then_some(()));
    bundle.kill("TERM");
    let (status, output) = bundle.end();
    assert_eq!((status, output.as_str()), (Some(0), TERMINATED));
    "the orphan is reaped; SIGTERM ends it with 0".to_string()
}
