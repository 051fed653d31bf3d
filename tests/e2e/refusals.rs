//! What `scripts/e2e` says for bad input (one line and a non-zero exit status), and what is
//! left after an interruption.

use std::fs;
use std::process::{Command, Stdio};

use crate::Work;
use crate::node::{LIMIT, bin, path_in};
use crate::report::Report;
use harness::cell::{Cell, left_behind};
use harness::checkout::scripts_for_all;
use harness::programs::root;
use harness::{refused, until_at_most};

/// A command for `scripts/e2e` with a PATH that lacks the programs that it builds.
fn e2e(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/e2e"));
    let path = std::env::var("PATH").expect("PATH");
    let bin = bin().display().to_string();
    let path: Vec<_> = path.split(':').filter(|folder| *folder != bin).collect();
    command.args(arguments).env("PATH", path.join(":"));
    command
}

pub fn check(work: &Work, report: &mut Report) {
    let mut says = |what: &str, arguments: &[&str], text: &str| {
        report.check(what, || {
            refused(&e2e(arguments).output().expect("scripts/e2e"), text);
            String::new()
        });
    };
    says(
        "an unknown flag",
        &["--endpiont", "x"],
        "unknown argument '--endpiont'; see --help",
    );
    says("an unknown part", &["kublet"], "there is no part 'kublet'");
    says(
        "a flag without its value",
        &["--report"],
        "--report wants a value",
    );
    says(
        "a report in a folder that is not there",
        &["--report", "/nowhere/page.md"],
        "there is no folder /nowhere",
    );
    says(
        "an endpoint that is no socket",
        &["--endpoint", "/run/x.sock"],
        "--endpoint wants unix:///PATH",
    );
    says(
        "an endpoint where nothing is",
        &["--endpoint", "unix:///nowhere.sock"],
        "there is no socket /nowhere.sock",
    );
    says(
        "parts of another's node",
        &["--endpoint", "unix:///nowhere.sock", "critest"],
        "parts are for nodes of its own",
    );

    for (arguments, text) in [
        (&["--hours", "long"][..], "--hours wants a number"),
        (&["--seed"], "--seed wants a number"),
        (&["--minutes", "5"], "unknown argument '--minutes'"),
    ] {
        report.check(&format!("scripts/soak {}", arguments.join(" ")), || {
            let output = Command::new(root().join("scripts/soak"))
                .args(arguments)
                .output();
            refused(&output.expect("scripts/soak"), text);
            String::new()
        });
    }
    report.check("no root", || {
        let copy = scripts_for_all();
        let mut nobody = Command::new("setpriv");
        nobody
            .args(["--reuid=65534", "--clear-groups"])
            .arg(copy.join("scripts/e2e"));
        refused(&nobody.output().expect("setpriv"), "this wants root");
        String::new()
    });
    report.check("no network to build from", || {
        // Empty folders of Go, so that nothing is taken from what was built before.
        let mut e2e = e2e(&["cri"]);
        for variable in ["GOMODCACHE", "GOCACHE"] {
            e2e.env(variable, work.folder.join(variable));
        }
        e2e.env("GOPROXY", "http://127.0.0.1:9");
        let output = e2e.output().expect("scripts/e2e");
        refused(&output, "go failed: ");
        String::from_utf8_lossy(&output.stderr).trim().into()
    });
    report.check("an endpoint that does not answer", || {
        let path = work.folder.join("deaf.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let output = e2e(&["--endpoint", &format!("unix://{}", path.display())]).output();
        refused(&output.expect("scripts/e2e"), "no CRI runtime answers at ");
        String::new()
    });
    report.check("a runtime too old to speak CRI v1", || {
        let cell = Cell::start();
        fs::create_dir_all(path_in(&cell, "/etc/containerd")).expect("a folder");
        let config = "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n";
        fs::write(path_in(&cell, "/etc/containerd/config.toml"), config).expect("a file");
        cell.daemon("containerd", "ctr version");
        let socket = path_in(&cell, "/run/containerd/containerd.sock");
        let output = e2e(&["--endpoint", &format!("unix://{}", socket.display())]).output();
        refused(&output.expect("scripts/e2e"), "does not speak CRI v1");
        String::new()
    });
    report.check("interrupted, it leaves nothing", || {
        let logs = work.logs.join("interrupted");
        let _ = fs::remove_dir_all(&logs);
        let mut running = e2e(&["--logs", logs.to_str().expect("UTF-8"), "cri"])
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
        assert_eq!(
            running.wait().expect("its end").code(),
            Some(128 + libc::SIGINT)
        );
        assert_eq!(left_behind(&name), Vec::<String>::new());
        String::new()
    });
}
