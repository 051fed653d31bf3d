//! A hundred pods held by our pause on one node, and at the same time a hundred held by a C
//! pause on another: memory, CPU time and wake-ups of all sandboxes are counted.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::Work;
use crate::images::{C_PAUSE, Images, PAUSE};
use crate::node::{Node, Runtime};
use crate::pod::{CriPod, Mode, is_ours, status};
use crate::report::Report;
use harness::running::Cost;

const PODS: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// The memory that is charged to the control group of a sandbox, in bytes. The kernel charges
/// a page of a file to the control group that read it first.
#[derive(Clone, Copy, Default)]
struct Memory {
    charged: u64,
    /// Anonymous memory and pages of files.
    resident: u64,
    /// Memory of the kernel for the process: its stack, page tables and other structures.
    kernel: u64,
}

/// Reads the charges of a sandbox from the memory controller, version 1 or 2.
fn memory(pod: &CriPod) -> Memory {
    let node = pod.node;
    let groups = ["/memory", ""].map(|hierarchy| {
        node.path(&format!("/sys/fs/cgroup{hierarchy}{}/{}", node.parent(), pod.id))
    });
    let group = groups.iter().find(|group| group.join("memory.stat").exists());
    let group = group.expect("the control group of a sandbox");
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(group.join(name)).ok()?.trim().parse().ok()
    };
    let stat = fs::read_to_string(group.join("memory.stat")).expect("memory.stat");
    let field = |name: &str| -> Option<u64> {
        let mut lines = stat.lines();
        lines.find_map(|line| line.strip_prefix(&format!("{name} ")))?.parse().ok()
    };
    let parts = match number("memory.current") {
        Some(charged) => (Some(charged), field("anon"), field("file"), field("kernel")),
        None => (
            number("memory.usage_in_bytes"),
            field("rss"),
            field("cache"),
            number("memory.kmem.usage_in_bytes"),
        ),
    };
    let (Some(charged), Some(anonymous), Some(file), Some(kernel)) = parts else {
        panic!("{}: not all of {parts:?}", group.display());
    };
    Memory { charged, resident: anonymous + file, kernel }
}

/// Runs `work` on both nodes at the same time.
fn both<'a, T: Sync, R: Send>(two: &'a [T; 2], work: impl Fn(&'a T) -> R + Sync) -> [R; 2] {
    thread::scope(|scope| {
        two.each_ref()
            .map(|one| scope.spawn(|| work(one)))
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let nodes = [PAUSE, C_PAUSE].map(|pause| Node::new(Runtime::Containerd2, pause, work, images));
    report.versions(&nodes[0].programs);
    let pods =
        both(&nodes, |node| (0..PODS).map(|_| CriPod::new(node, Mode::Pod)).collect::<Vec<_>>());
    report.check(&format!("{PODS} sandboxes are held by pause, and as many by a C pause"), || {
        pods[0].iter().for_each(|pod| is_ours(pod.node, pod.pid));
        let another =
            |pod: &CriPod| fs::metadata(pod.node.proc(pod.pid, "exe")).expect("its file").len();
        let size = another(&pods[1][0]);
        assert!(size > 100_000 && pods[1].iter().all(|pod| another(pod) == size), "{size}");
        format!("a C pause of {size} bytes")
    });
    let memory = pods.each_ref().map(|pods| {
        pods.iter().map(memory).fold(Memory::default(), |sum, one| Memory {
            charged: sum.charged + one.charged,
            resident: sum.resident + one.resident,
            kernel: sum.kernel + one.kernel,
        })
    });
    let charged = memory.map(|memory| memory.charged);
    let rss = pods.each_ref().map(|pods| {
        let rss = |pod: &CriPod| status(pod.node, pod.pid).vmrss.expect("VmRSS") * 1024;
        pods.iter().map(rss).sum()
    });

    both(&pods, |pods| pods.iter().for_each(|pod| drop(pod.start("orphans", "orphans"))));
    let ran =
        || pods.each_ref().map(|pods| pods.iter().map(|pod| pod.pause().cost).collect::<Vec<_>>());
    let before = ran();
    thread::sleep(MINUTE);
    let after = ran();
    let grown = |of: &dyn Fn(&Cost) -> u64| {
        let sum = |costs: &Vec<Cost>| costs.iter().map(of).sum::<u64>();
        [0, 1].map(|i| sum(&after[i]) - sum(&before[i]))
    };
    let (cpu, woken) = (grown(&|cost| cost.cpu), grown(&|cost| cost.switches));
    report.check("in a minute in which each makes an orphan a second, pause never runs", || {
        let orphans = PODS as u64 * MINUTE.as_secs();
        assert!(woken[1] > orphans / 2, "C was woken {} times: there were no orphans", woken[1]);
        assert_eq!((woken[0], cpu[0]), (0, 0));
        format!("woken 0 times, C {} times", woken[1])
    });
    report.check("it takes less memory than C", || {
        assert!(charged[0] < charged[1] && rss[0] < rss[1], "{charged:?} {rss:?}");
        format!("{:.2} of it as charged, {:.3} as resident", ratio(charged), ratio(rss))
    });
    report.note(&format!(
        "| {PODS} sandboxes together | pause | C, glibc | ratio |\n|---|--:|--:|--:|"
    ));
    for (what, [ours, c]) in [
        ("charged to their control groups, kB", charged.map(|n| n / 1024)),
        ("of it anonymous and files, kB", memory.map(|memory| memory.resident / 1024)),
        ("of it kernel, kB", memory.map(|memory| memory.kernel / 1024)),
        ("RSS of the processes, kB", rss.map(|n| n / 1024)),
        ("CPU in a minute of orphans, \u{b5}s", cpu.map(|n| n / 1000)),
        ("woken in that minute", woken),
    ] {
        report.note(&format!("| {what} | {ours} | {c} | {:.3} |", ratio([ours, c])));
    }
    // Killing PID 1 of a cell ends everything in it at once.
    pods.into_iter().flatten().for_each(std::mem::forget);
}

fn ratio([ours, c]: [u64; 2]) -> f64 {
    ours as f64 / c as f64
}
