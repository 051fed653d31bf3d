//! The recipes of docs/switch.md for switching a node to pause, and for going back, carried out word for
//! word on a node whose kubelet runs pods on another pause.

use harness::{documentation, until_at_most};

use crate::Work;
use crate::images::{Images, PAUSE, PREVIOUS, archive};
use crate::kubelet::{self, StaticPod, manifest};
use crate::node::{LIMIT, Node, Runtime, bin};
use crate::pod::is_ours;
use crate::report::Report;

/// The name that the recipes give our image. The registry of the cell is the mirror of every host.
const NEW: &str = concat!("registry.example/pause:", env!("PAUSE_VERSION"));

/// An image that no container uses and nobody pins, as a control.
const UNPINNED: &str = "localhost/e2e:app-2";

/// The image of the containers.
const SLEEPER: &str = "localhost/e2e:sleeper";

/// Carries out a step with the variables of those before. A pipe fails if any of its commands
/// does.
const CARRY_OUT: &str = "
set -e -o pipefail
PATH=/run/recipe:@PATH@
[ ! -e /run/recipe/variables ] || . /run/recipe/variables
set -o allexport
. /run/recipe/step
export -p >/run/recipe/variables
";

/// A shell that carries out the steps of a recipe one after another: what one step sets, the
/// next one has, as in the terminal of whoever follows that page.
struct Shell<'a> {
    node: &'a Node,
    steps: Vec<String>,
}

impl Shell<'_> {
    /// Carries out step `number`, counted from 1, and returns what it prints.
    #[track_caller]
    fn step(&self, number: usize) -> String {
        self.node.write("/run/recipe/step", &self.steps[number - 1]);
        // The machine has a containerd of its own, which is not the one that was built.
        let path = match self.node.is_in_cell() {
            true => "$PATH",
            false => "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        };
        let carry_out = CARRY_OUT.replace("@PATH@", path);
        self.node.write("/run/recipe/carry-out", &carry_out);
        self.node.sh("bash /run/recipe/carry-out")
    }

    /// Ends the terminal: the next step knows nothing of the ones before.
    fn close(&self) {
        self.node.sh("rm -f /run/recipe/variables");
    }
}

/// Makes a node whose sandboxes run the old pause, and what a recipe calls. A cell has a
/// registry, and no systemd, so that a small script restarts the daemons. A machine with systemd
/// has no registry: it is an air-gapped node.
fn old_node(runtime: Runtime, work: &Work, images: &Images) -> Node {
    let node = Node::new(runtime, PREVIOUS, work, images);
    let (ctr, imported) = (&node.ctr, "localhost/e2e:old");
    if node.is_in_cell() {
        node.cell().registry();
        images.serve_pause(&node);
        node.write("/run/recipe/systemctl", include_str!("config/systemctl"));
        node.sh("chmod 755 /run/recipe/systemctl");
    } else {
        let crictl = bin().join("crictl");
        node.sh(&format!(
            "{ctr} images tag {imported} {PREVIOUS}
             mkdir -p /run/recipe && ln -sf {} /run/recipe/",
            crictl.display()
        ));
    }
    // Under two names, the runtime would show either.
    if !node.crio {
        node.sh(&format!("{ctr} images remove --sync {imported}"));
    }
    match node.is_in_cell() {
        true => drop(node.crictl(&format!("pull {PREVIOUS}"))),
        // The CRI plugin finds a name that ctr has given when it starts.
        false => node.start(),
    }
    node.write(
        "/etc/crictl.yaml",
        &format!("runtime-endpoint: {0}\nimage-endpoint: {0}\n", node.endpoint),
    );
    node
}

/// The steps of the recipe, and the name that it gives our image. On an air-gapped node they are
/// changed as that page says.
fn steps(recipe: &str, node: &Node) -> (Vec<String>, &'static str) {
    let steps = documentation::recipe(recipe);
    if node.is_in_cell() {
        return (steps, NEW);
    }
    let import = format!("ctr -n k8s.io images import {}", archive());
    let change = |step: &String| {
        let step = step.replace(NEW, PAUSE);
        step.replace("crictl pull \"$image\"", &import)
    };
    (steps.iter().map(change).collect(), PAUSE)
}

/// The name of the image that the pause of a pod comes from.
fn image_of(pod: &StaticPod) -> String {
    let (sandbox, _) = pod.running();
    let info = pod.node.inspect(&format!("inspectp {sandbox}"));
    let name = info["info"]["image"].as_str().expect("the image of a sandbox");
    name.to_string()
}

/// Whether the runtime has an image.
fn has(node: &Node, image: &str) -> bool {
    node.crictl_output(&format!("inspecti {image}")).status.success()
}

/// Starts a static pod with one container and returns it when it runs.
fn start<'a>(node: &'a Node, name: &'static str, image: &str) -> StaticPod<'a> {
    let text = include_str!("config/member.yaml").replace("@NAME@", name);
    manifest(node, &format!("{name}.yaml"), &text.replace("@IMAGE@", image));
    let pod = StaticPod { node, name };
    pod.runs("member");
    pod
}

/// Carries out the recipe with this heading on a new node.
pub fn check(runtime: Runtime, recipe: &str, work: &Work, images: &Images, report: &mut Report) {
    let node = &old_node(runtime, work, images);
    report.versions(&[&node.programs[..], &[kubelet::version(node)]].concat());
    let (steps, new) = steps(recipe, node);
    let shell = Shell { node, steps };
    let back = shell.steps.len();
    kubelet::start(node);
    let before = start(node, "before", SLEEPER);
    let held = before.running();
    assert_eq!(image_of(&before), PREVIOUS);

    report.check(
        "steps 1 to 5: the old image is noted, the new one is set, and the check shows it",
        || {
            let shown: Vec<_> = (1..=5).map(|number| shell.step(number)).collect();
            assert!(shown[3].contains(new), "{shown:?}");
            shown[3].trim().to_string()
        },
    );
    report.check("the pods of before run on, with the same pause", || {
        assert_eq!(before.running(), held);
        before.exec("member", "true");
        format!("PID {}", held.1)
    });
    let after = start(node, "after", SLEEPER);
    report.check("step 6: new pods run on ours", || {
        is_ours(node, after.running().1);
        assert_eq!(image_of(&after), new);
        let shown = shell.step(6);
        assert!(!node.pins() || shown.contains("\"pinned\": true"), "{shown}");
        let shown: Vec<_> = shown.lines().map(str::trim).collect();
        shown.join(", ")
    });
    if !node.pins() {
        // Where nothing can be pinned, that page says to keep a container of the image running.
        start(node, "keeper", new);
    }
    report.check(
        "under disk pressure the kubelet removes an image that nobody pins, and not ours",
        || {
            assert!(has(node, UNPINNED) && has(node, new));
            kubelet::start_with_disk_pressure(node);
            until_at_most(*LIMIT, "the kubelet removes unused images", || {
                (!has(node, UNPINNED)).then_some(())
            });
            kubelet::end_disk_pressure(node);
            assert!(has(node, new), "our image is gone");
            // Without a pin the old one may be gone, and step 7 brings it back.
            let old = has(node, PREVIOUS);
            assert!(old || !node.pins(), "the old image is gone");
            // Pods still start, which is what breaks on a node without its pause.
            is_ours(node, start(node, "pressed", SLEEPER).running().1);
            format!("the old pause is {}", if old { "there too" } else { "gone" })
        },
    );
    shell.close();
    report.check(
        &format!("step {back}: rolled back in another terminal, new pods run on the old pause"),
        || {
            let ours = after.sandbox_and_pause();
            shell.step(back);
            let again = start(node, "again", SLEEPER);
            assert_eq!(image_of(&again), PREVIOUS);
            assert_eq!(after.sandbox_and_pause(), ours, "a pod of ours moved");
            assert_eq!(before.running(), held, "a pod of before moved");
            "pods on ours and on the old one run on".to_string()
        },
    );
    if !node.crio {
        report.check("step 3 is safe with every form of the file, and when it is repeated", || {
            let forms = forms(node);
            shell.close();
            shell.step(1);
            for (what, text) in &forms {
                node.write("/etc/containerd/config.toml", text);
                for time in ["once", "twice"] {
                    shell.step(3);
                    let shown = shell.step(4);
                    assert_eq!(shown.matches(new).count(), 1, "{what}, {time}: {shown}");
                }
                let kept = node.sh("cat /etc/containerd/config.toml.before-pause");
                assert_eq!(kept, text.trim(), "{what}");
                node.sh("mv /etc/containerd/config.toml.before-pause /etc/containerd/config.toml");
            }
            // As that page says, containerd 2.x reads files of version 2 as well, with step 3 of the other recipe.
            if runtime == Runtime::Containerd2 {
                let other = Shell { node, steps: documentation::recipe("containerd 1.x") };
                node.write("/etc/containerd/config.toml", "version = 2\n");
                other.step(3);
                assert_eq!(shell.step(4).matches(new).count(), 1, "version 2");
            }
            let names: Vec<_> = forms.into_iter().map(|(what, _)| what).collect();
            names.join(", ")
        });
    }
}

/// Files with the settings of containerd in the forms in which nodes have them.
fn forms(node: &Node) -> Vec<(&'static str, String)> {
    let (version, table, key, below) = match node.name.contains(" 1.") {
        true => {
            let table = "plugins.'io.containerd.grpc.v1.cri'";
            (2, table, "sandbox_image", format!("{table}.registry"))
        }
        false => {
            let table = "plugins.'io.containerd.cri.v1.images'.pinned_images";
            let below = "plugins.'io.containerd.cri.v1.images'.registry".into();
            (3, table, "sandbox", below)
        }
    };
    // The machine has a containerd of its own beside the one that was built.
    let containerd = match node.is_in_cell() {
        true => "containerd",
        false => "/usr/bin/containerd",
    };
    let head = format!("version = {version}\n");
    let with = |line: &str| format!("{head}[{table}]\n{line}\n[debug]\nlevel = 'info'\n");
    let old = format!("  {key} = '{PREVIOUS}'");
    vec![
        ("no table", head.clone()),
        ("a table without the setting", with("")),
        ("the setting in single quotes", with(&old)),
        ("in double quotes", with(&old).replace('\'', "\"")),
        ("a comment with it", with(&format!("# {key} = 'none'\n{old}"))),
        ("no line break at the end", with(&old).trim_end().into()),
        ("only a table below it", format!("{head}[{below}]\n")),
        ("what containerd itself prints", node.sh(&format!("{containerd} config default"))),
    ]
}
