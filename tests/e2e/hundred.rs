//! A hundred pods held by our pause on one node, and as many held by a C pause on another at the same time: memory, CPU
//! time and wake-ups of all sandboxes are counted.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::images::Images;
use crate::node::{Node, Runtime};
use crate::pod::{CriPod, Mode, status};
use crate::report::Report;
use crate::work::{C_PAUSE, PAUSE, Work};
use harness::programs::{HOST, dist};
use harness::running;

const PODS: usize = 100;
/// Each pod makes one orphan a second, and is watched for this time.
const TIME: Duration = Duration::from_secs(60);

/// What the sandboxes of a node cost together: the size of pause, the memory that is charged to their control groups
/// and what of it is of the kernel, RSS, in bytes; CPU time in nanoseconds, and wake-ups.
struct Cost {
    size: u64,
    charged: u64,
    kernel: u64,
    rss: u64,
    cpu: u64,
    woken: u64,
}

/// What is charged to the control group of a sandbox, and what of it is memory of the kernel: version 1 or 2.
fn memory(pod: &CriPod) -> (u64, u64) {
    let node = pod.node;
    let groups =
        ["/memory", ""].map(|hierarchy| node.path(&format!("/sys/fs/cgroup{hierarchy}{}/{}", node.parent(), pod.id)));
    let group = groups.iter().find(|group| group.join("memory.stat").exists()).expect("the control group of a sandbox");
    let number = |name: &str| -> Option<u64> { fs::read_to_string(group.join(name)).ok()?.trim().parse().ok() };
    let stat = fs::read_to_string(group.join("memory.stat")).expect("memory.stat");
    let kernel = || stat.lines().find_map(|line| line.strip_prefix("kernel "))?.parse().ok();
    let charged = number("memory.current").or(number("memory.usage_in_bytes")).expect("what is charged");
    (charged, number("memory.kmem.usage_in_bytes").or_else(kernel).expect("what of it is the kernel's"))
}

/// Starts pods, and counts what their sandboxes cost.
fn measure(node: &Node) -> Cost {
    let pods: Vec<_> = (0..PODS).map(|_| CriPod::new(node, Mode::Pod)).collect();
    let size = |pod: &CriPod| fs::metadata(node.proc(pod.pid, "exe")).expect("its file").len();
    let first = size(&pods[0]);
    assert!(pods.iter().all(|pod| size(pod) == first), "not all sandboxes run the same pause");
    let memory: Vec<_> = pods.iter().map(memory).collect();
    let rss = pods.iter().map(|pod| status(node, pod.pid).vmrss.expect("VmRSS") * 1024).sum();
    pods.iter().for_each(|pod| drop(pod.start("member", "orphans")));
    let ran = || pods.iter().map(|pod| pod.pause().cost).collect::<Vec<_>>();
    let before = ran();
    thread::sleep(TIME);
    let after = ran();
    let grown = |of: fn(&running::Cost) -> u64| after.iter().map(of).sum::<u64>() - before.iter().map(of).sum::<u64>();
    // Killing PID 1 of a cell ends everything in it at once.
    pods.into_iter().for_each(std::mem::forget);
    Cost {
        size: first,
        charged: memory.iter().map(|one| one.0).sum(),
        kernel: memory.iter().map(|one| one.1).sum(),
        rss,
        cpu: grown(|cost| cost.cpu),
        woken: grown(|cost| cost.switches),
    }
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let nodes = [PAUSE, C_PAUSE].map(|pause| images.node(Runtime::Containerd2, pause, work));
    report.versions(&nodes[0].programs);
    let [ours, c] = thread::scope(|scope| {
        let both = nodes.each_ref().map(|node| scope.spawn(|| measure(node)));
        both.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    report.check(&format!("{PODS} sandboxes are held by pause, and as many by a C pause"), || {
        assert!(ours.size == fs::metadata(dist(&HOST)).expect("pause").len() && c.size > 100_000, "{}", ours.size);
        format!("a C pause of {} bytes", c.size)
    });
    report.check("while each makes an orphan a second for a minute, pause never runs", || {
        assert!(c.woken > 3000, "C was woken {} times: there were no orphans", c.woken);
        assert_eq!((ours.woken, ours.cpu), (0, 0));
        format!("woken 0 times, C {} times", c.woken)
    });
    report.check("it takes less memory than C", || {
        assert!(ours.charged < c.charged && ours.rss < c.rss, "{} {}", ours.charged, ours.rss);
    });
    report.note(&format!("| {PODS} sandboxes together | pause | C, glibc | ratio |\n|---|--:|--:|--:|"));
    for (what, ours, c) in [
        ("charged to their control groups, KiB", ours.charged / 1024, c.charged / 1024),
        ("of it kernel, KiB", ours.kernel / 1024, c.kernel / 1024),
        ("RSS of the processes, KiB", ours.rss / 1024, c.rss / 1024),
        ("CPU in a minute with orphans, \u{b5}s", ours.cpu / 1000, c.cpu / 1000),
        ("woken in that minute", ours.woken, c.woken),
    ] {
        report.note(&format!("| {what} | {ours} | {c} | {:.3} |", ours as f64 / c as f64));
    }
}
