//! Pods held by our pause on one node, and as many held by a C pause on another: memory, CPU time and wake-ups of
//! all sandboxes are counted. A hundred on both at the same time, or a thousand on one after the other.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::Work;
use crate::images::{C_PAUSE, Images, PAUSE};
use crate::node::{Node, Runtime};
use crate::pod::{CriPod, Mode, status};
use crate::report::Report;
use harness::programs::{HOST, dist};
use harness::{running, thousands};
use plotters::prelude::*;

/// How many pods, the image of their one container, which makes an orphan every so often, and how long it is
/// watched.
struct Load {
    pods: usize,
    member: &'static str,
    time: Duration,
    orphans: usize,
}

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

/// What the sandboxes of a node cost together.
struct Cost {
    size: u64,
    memory: Memory,
    rss: u64,
    cpu: u64,
    woken: u64,
}

/// Starts pods, and counts what their sandboxes cost.
fn measure(node: &Node, load: &Load) -> Cost {
    let pods: Vec<_> = (0..load.pods).map(|_| CriPod::new(node, Mode::Pod)).collect();
    let size = |pod: &CriPod| fs::metadata(node.proc(pod.pid, "exe")).expect("its file").len();
    let first = size(&pods[0]);
    assert!(pods.iter().all(|pod| size(pod) == first), "not all sandboxes run the same pause");
    let memory = pods.iter().map(memory).fold(Memory::default(), |sum, one| Memory {
        charged: sum.charged + one.charged,
        resident: sum.resident + one.resident,
        kernel: sum.kernel + one.kernel,
    });
    let rss = pods.iter().map(|pod| status(node, pod.pid).vmrss.expect("VmRSS") * 1024).sum();
    pods.iter().for_each(|pod| drop(pod.start("member", load.member)));
    let ran = || pods.iter().map(|pod| pod.pause().cost).collect::<Vec<_>>();
    let before = ran();
    thread::sleep(load.time);
    let after = ran();
    let grown = |of: fn(&running::Cost) -> u64| {
        after.iter().map(of).sum::<u64>() - before.iter().map(of).sum::<u64>()
    };
    let (cpu, woken) = (grown(|cost| cost.cpu), grown(|cost| cost.switches));
    // Killing PID 1 of a cell ends everything in it at once.
    pods.into_iter().for_each(std::mem::forget);
    Cost { size: first, memory, rss, cpu, woken }
}

/// A hundred on two nodes at the same time, so that both are under the same load.
pub fn check(work: &Work, images: &Images, report: &mut Report) {
    let time = Duration::from_secs(60);
    let load = Load { pods: 100, member: "orphans", time, orphans: 60 };
    let nodes = [PAUSE, C_PAUSE].map(|pause| Node::new(Runtime::Containerd2, pause, work, images));
    report.versions(&nodes[0].programs);
    let costs = thread::scope(|scope| {
        nodes
            .each_ref()
            .map(|node| scope.spawn(|| measure(node, &load)))
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    compare(&costs, &load, report);
}

/// A thousand on one node after the other, as the shims of 2,000 would not fit into the memory of a small machine.
pub fn check_thousand(work: &Work, images: &Images, report: &mut Report) {
    let time = Duration::from_secs(600);
    let load = Load { pods: 1000, member: "rare-orphans", time, orphans: 60 };
    let costs = [PAUSE, C_PAUSE].map(|pause| {
        let node = Node::new(Runtime::Containerd2, pause, work, images);
        if pause == PAUSE {
            report.versions(&node.programs);
        }
        measure(&node, &load)
    });
    compare(&costs, &load, report);
    let chart = work.logs.join("thousand.svg");
    draw(&chart, &costs).unwrap_or_else(|error| panic!("{}: {error}", chart.display()));
    report.note(&format!("what a node saves: {}", chart.display()));
}

fn compare(costs: &[Cost; 2], load: &Load, report: &mut Report) {
    let both = |of: fn(&Cost) -> u64| costs.each_ref().map(of);
    let Load { pods, time, .. } = load;
    let minutes = time.as_secs() / 60;
    report.check(&format!("{pods} sandboxes are held by pause, and as many by a C pause"), || {
        let ours = fs::metadata(dist(&HOST)).expect("pause").len();
        assert!(costs[0].size == ours && costs[1].size > 100_000, "{:?}", both(|cost| cost.size));
        format!("a C pause of {} bytes", costs[1].size)
    });
    let (charged, rss) = (both(|cost| cost.memory.charged), both(|cost| cost.rss));
    let (cpu, woken) = (both(|cost| cost.cpu), both(|cost| cost.woken));
    report.check(&format!("while each makes {} orphans, pause never runs", load.orphans), || {
        let orphans = (pods * load.orphans) as u64;
        assert!(woken[1] > orphans / 2, "C was woken {} times: there were no orphans", woken[1]);
        assert_eq!((woken[0], cpu[0]), (0, 0));
        format!("woken 0 times, C {} times", woken[1])
    });
    report.check("it takes less memory than C", || {
        assert!(charged[0] < charged[1] && rss[0] < rss[1], "{charged:?} {rss:?}");
        format!("{:.2} of it as charged, {:.3} as resident", ratio(charged), ratio(rss))
    });
    report.note(&format!(
        "| {pods} sandboxes together | pause | C, glibc | ratio |\n|---|--:|--:|--:|"
    ));
    for (what, [ours, c]) in [
        ("charged to their control groups, kB".to_string(), charged.map(|n| n / 1024)),
        ("of it anonymous and files, kB".into(), both(|cost| cost.memory.resident / 1024)),
        ("of it kernel, kB".into(), both(|cost| cost.memory.kernel / 1024)),
        ("RSS of the processes, kB".into(), rss.map(|n| n / 1024)),
        (format!("CPU in {minutes} min with orphans, \u{b5}s"), cpu.map(|n| n / 1000)),
        ("woken in that time".into(), woken),
    ] {
        report.note(&format!("| {what} | {ours} | {c} | {:.3} |", ratio([ours, c])));
    }
}

/// Draws what a node pays for its sandboxes: for each cost a bar of pause beside one of C, which has the full height.
fn draw(file: &Path, costs: &[Cost; 2]) -> Result<(), Box<dyn std::error::Error>> {
    type Of = fn(&Cost) -> u64;
    let groups: [(&str, Of); 4] = [
        ("memory charged, MB", |cost| cost.memory.charged / 1_000_000),
        ("RSS, MB", |cost| cost.rss / 1_000_000),
        ("CPU time, ms", |cost| cost.cpu / 1_000_000),
        ("wake-ups", |cost| cost.woken),
    ];
    let root = SVGBackend::new(file, (760, 300)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "What 1,000 sandboxes cost a node in ten minutes, with 60 orphans each";
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .build_cartesian_2d(0f64..12f64, -0.15f64..1.15f64)?;
    let colours = [RGBColor(240, 128, 96), RGBColor(120, 170, 225)];
    for (group, (name, of)) in groups.iter().enumerate() {
        let left = group as f64 * 3.0 + 0.3;
        for (i, cost) in costs.iter().enumerate() {
            let (x, value) = (left + 1.15 * i as f64, of(cost));
            let height = value as f64 / of(&costs[1]).max(1) as f64;
            let who = format!("{} {}", ["pause", "C"][i], thousands(value));
            let bar = Rectangle::new([(x, 0.0), (x + 1.0, height)], colours[i].filled());
            let label = Text::new(who, (x, height + 0.08), ("sans-serif", 14));
            chart.draw_series([bar])?;
            chart.draw_series([label])?;
        }
        let name = Text::new(name.to_string(), (left, -0.04), ("sans-serif", 15));
        chart.draw_series([name])?;
    }
    Ok(root.present()?)
}

fn ratio([ours, c]: [u64; 2]) -> f64 {
    ours as f64 / c as f64
}
