//! `scripts/e2e` itself: `--endpoint` for a node that runs already, what it says for bad input (one
//! line and a non-zero exit status), and what is left after an interruption.

use std::fs;
use std::process::{Command, Stdio};

use crate::Work;
use crate::images::Images;
use crate::node::{LIMIT, Node, bin, path_in};
use crate::report::Report;
use harness::cell::{Cell, left_behind};
use harness::checkout::{as_nobody, scripts_for_all};
use harness::programs::root;
use harness::{refused, text, until_at_most};

/// A command for `scripts/e2e` with a PATH that lacks the programs that it builds.
fn e2e(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/e2e"));
    let path = std::env::var("PATH").expect("PATH");
    let bin = bin().display().to_string();
    let path: Vec<_> = path.split(':').filter(|folder| *folder != bin).collect();
    command.args(arguments).env("PATH", path.join(":"));
    command
}

/// Runs `scripts/e2e --endpoint` for a node. A machine has no cargo, so this program itself runs.
pub fn endpoint(node: &Node, report: &mut Report) {
    report.check("scripts/e2e --endpoint makes its pods there, and leaves none", || {
        let logs = node.logs().join("existing");
        let (endpoint, logs) = (&node.endpoint, logs.display());
        let program = match node.is_in_cell() {
            true => format!("{}/scripts/e2e", root().display()),
            false => {
                let program = std::env::current_exe().expect("this program");
                format!("{} --machine '' e2e", program.display())
            }
        };
        let output = node.sh(&format!("{program} --endpoint {endpoint} --logs {logs}"));
        let last = output.lines().last().unwrap_or_default();
        assert!(last.contains(" passed, 0 failed"), "{last}");
        assert_eq!(node.crictl("pods --quiet"), "");
        assert_eq!(node.crictl("images --quiet localhost/e2e"), "");
        last.to_string()
    });
}

pub fn refusals(work: &Work, _: &Images, report: &mut Report) {
    for (what, arguments, reason) in [
        ("an unknown flag", &["--endpiont", "x"][..], "unexpected argument '--endpiont'"),
        ("an unknown part", &["kublet"], "there is no such part"),
        ("a flag without its value", &["--report"], "a value is required for '--report"),
        ("a report in a folder that is not there", &["--report", "/no/where"], "no such folder"),
        ("an endpoint that is no socket", &["--endpoint", "/run/x.sock"], "it wants unix:///PATH"),
        ("an endpoint where nothing is", &["--endpoint", "unix:///no.sock"], "no socket /no.sock"),
    ] {
        report.check(what, || {
            refused(&e2e(arguments).output().expect("scripts/e2e"), reason);
        });
    }
    for (arguments, reason) in [
        (&["--hours", "long"][..], "invalid value 'long' for '--hours"),
        (&["--seed"], "a value is required for '--seed"),
        (&["--minutes", "5"], "unexpected argument '--minutes'"),
    ] {
        report.check(&format!("scripts/soak {}", arguments.join(" ")), || {
            let output = Command::new(root().join("scripts/soak")).args(arguments).output();
            refused(&output.expect("scripts/soak"), reason);
        });
    }
    report.check("no root", || {
        let e2e = as_nobody(&scripts_for_all(), "e2e").output();
        refused(&e2e.expect("setpriv"), "this wants root");
    });
    report.check("no network to build from", || {
        // Empty folders of Go, so that nothing is taken from what was built before.
        let mut e2e = e2e(&["cri"]);
        for variable in ["GOMODCACHE", "GOCACHE"] {
            e2e.env(variable, work.folder.join(variable));
        }
        let output = e2e.env("GOPROXY", "http://127.0.0.1:9").output().expect("scripts/e2e");
        refused(&output, "is there a network, or a proxy in GOPROXY?");
        String::from_utf8_lossy(&output.stderr).trim().to_string()
    });
    let path = work.folder.join("silent.sock");
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let silent = format!("unix://{}", path.display());
    for (what, arguments, reason) in [
        (
            "an endpoint that does not answer",
            &["--endpoint", &silent][..],
            "no CRI runtime answers",
        ),
        ("parts with an endpoint", &["--endpoint", &silent, "cri"], "cannot be used with"),
    ] {
        report.check(what, || refused(&e2e(arguments).output().expect("scripts/e2e"), reason));
    }
    report.check("a runtime too old to speak CRI v1", || {
        let cell = Cell::start();
        fs::create_dir_all(path_in(&cell, "/etc/containerd")).expect("a folder");
        let config = "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n";
        fs::write(path_in(&cell, "/etc/containerd/config.toml"), config).expect("a file");
        cell.daemon("containerd", "ctr version");
        let socket = path_in(&cell, "/run/containerd/containerd.sock");
        let output = e2e(&["--endpoint", &format!("unix://{}", socket.display())]).output();
        refused(&output.expect("scripts/e2e"), "does not speak CRI v1");
    });
    report.check("interrupted, it leaves nothing", || {
        let logs = work.logs.join("interrupted");
        let _ = fs::remove_dir_all(&logs);
        let mut running = e2e(&["--logs", text(&logs), "cri"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/e2e");
        let name = until_at_most(*LIMIT, "it has made a cell", || {
            let cells = fs::read_to_string(logs.join("cells")).ok()?;
            Some(cells.lines().next()?.to_string())
        });
        assert!(!left_behind(&name).is_empty(), "its control groups");
        // SAFETY: a child of this process that was not waited for yet.
        unsafe { libc::kill(running.id() as i32, libc::SIGINT) };
        assert_eq!(running.wait().expect("its end").code(), Some(128 + libc::SIGINT));
        assert_eq!(left_behind(&name), Vec::<String>::new());
    });
}
