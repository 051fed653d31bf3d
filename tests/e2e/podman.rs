//! podman with crun on a machine: a pod on control groups of systemd, with our infra image.

use crate::Work;
use crate::images::{Images, PAUSE, archive};
use crate::node::surroundings;
use crate::report::Report;
use harness::until;

fn sh(line: &str) -> String {
    harness::run("sh", &["-ec", line]).trim().to_string()
}

pub fn check(_: &Work, images: &Images, report: &mut Report) {
    let version = |name: &str| sh(&format!("{name} --version | head -n1")).replace(" version", "");
    let mut versions = vec![version("podman"), version("crun")];
    versions.extend(surroundings("systemd"));
    report.versions(&versions);
    let podman = "podman --cgroup-manager systemd --runtime crun";
    sh(&format!("{podman} load --quiet --input {}", archive()));
    images.load(podman, &["web", "app-1"]);
    let inspect =
        |field: &str| sh(&format!("{podman} inspect --format '{{{{.State.{field}}}}}' infra"));
    report.check("a pod of nginx and an application, on a published port", || {
        sh(&format!(
            "{podman} pod create --name web --infra-image {PAUSE} --infra-name infra --share pid,net,ipc,uts -p 8080:80
             {podman} run --detach --pod web localhost/e2e:web
             {podman} run --detach --pod web --name app localhost/e2e:app-1"
        ));
        until("nginx answers", || {
            let page = sh("curl --silent http://127.0.0.1:8080/ || true");
            (page == "application 1").then_some(())
        });
        assert_eq!(sh(&format!("{podman} exec app cat /proc/1/comm")), "pause");
        let group = inspect("CgroupPath");
        assert!(group.contains(".slice") && group.contains(".scope"), "{group}");
        let label = sh(&format!("cat /proc/{}/attr/apparmor/current", inspect("Pid")));
        format!("{group}, AppArmor: {label}")
    });
    report.check("a stop ends pause with 0", || {
        sh(&format!("{podman} pod stop web"));
        assert_eq!(inspect("ExitCode"), "0");
        let log = sh(&format!("{podman} logs infra 2>&1"));
        sh(&format!("{podman} pod rm --force web"));
        log
    });
}
