//! The runtimes of a node: how each is found, which file sets its sandbox image, and how it is asked and restarted.
//! docs/switch.md has the same as a table.

use anyhow::{Context, Result, bail};

use crate::change::{Change, Kind};
use crate::containerd;
use crate::edit::Setting;
use crate::journal::Journal;
use crate::node::{Node, output, words};
use crate::unit;

/// A runtime of this node.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub kind: Kind,
    /// The configuration file, where a flag can name another.
    pub config: String,
    /// The program that runs, if it does.
    pub program: Option<String>,
    /// Where it answers CRI.
    socket: String,
}

/// How a kind is told, and how it is spoken to.
struct Facts {
    kind: Kind,
    name: &'static str,
    /// The names of its process.
    processes: &'static [&'static str],
    /// It is there if one of these is.
    paths: &'static [&'static str],
    units: &'static [&'static str],
    /// Of CRI, unless its configuration names another.
    socket: &'static str,
    crictl: &'static str,
    ctr: &'static str,
}

/// SOCKET is replaced. /etc/crictl.yaml may name those of another runtime.
const CRICTL: &str = "crictl --runtime-endpoint unix://SOCKET --image-endpoint unix://SOCKET";

/// Pins the image of before for CRI-O, which pins only the one that it uses.
const PINNED: &str = "/etc/crio/crio.conf.d/99-pause-switch.conf";

const FACTS: [Facts; 8] = [
    Facts {
        kind: Kind::K3s,
        name: "k3s",
        processes: &["k3s-server", "k3s-agent"],
        paths: &["/etc/rancher/k3s", "/var/lib/rancher/k3s"],
        units: &["k3s", "k3s-agent"],
        socket: "",
        crictl: "k3s crictl",
        ctr: "k3s ctr",
    },
    Facts {
        kind: Kind::Rke2,
        name: "rke2",
        processes: &["rke2"],
        paths: &["/etc/rancher/rke2", "/var/lib/rancher/rke2"],
        units: &["rke2-server", "rke2-agent"],
        socket: "/run/k3s/containerd/containerd.sock",
        crictl: "/var/lib/rancher/rke2/bin/crictl --runtime-endpoint unix://SOCKET",
        ctr: "/var/lib/rancher/rke2/bin/ctr --address SOCKET",
    },
    Facts {
        kind: Kind::K0s,
        name: "k0s",
        processes: &["k0s"],
        paths: &["/etc/k0s", "/var/lib/k0s"],
        units: &[], // it restarts its containerd by itself
        socket: "/run/k0s/containerd.sock",
        crictl: CRICTL,
        ctr: "k0s ctr",
    },
    Facts {
        kind: Kind::Microk8s,
        name: "microk8s",
        processes: &["kubelite"],
        paths: &["/var/snap/microk8s/current/args"],
        units: &["snap.microk8s.daemon-containerd"],
        socket: "/var/snap/microk8s/common/run/containerd.sock",
        crictl: CRICTL,
        ctr: "microk8s ctr",
    },
    Facts {
        kind: Kind::Crio,
        name: "crio",
        processes: &["crio"],
        paths: &["/etc/crio"],
        units: &["crio"],
        socket: "/run/crio/crio.sock",
        crictl: CRICTL,
        ctr: "",
    },
    Facts {
        kind: Kind::CriDockerd,
        name: "cri-dockerd",
        processes: &["cri-dockerd"],
        paths: &[
            "/etc/systemd/system/cri-docker.service",
            "/usr/lib/systemd/system/cri-docker.service",
            "/lib/systemd/system/cri-docker.service",
        ],
        units: &["cri-docker"],
        socket: "/run/cri-dockerd.sock",
        crictl: CRICTL,
        ctr: "",
    },
    Facts {
        kind: Kind::Containerd,
        name: "containerd",
        processes: &["containerd"],
        paths: &["/etc/containerd/config.toml"],
        units: &["containerd"],
        socket: "/run/containerd/containerd.sock",
        crictl: CRICTL,
        ctr: "ctr --address SOCKET",
    },
    Facts {
        kind: Kind::Podman,
        name: "podman",
        processes: &[],
        paths: &["/etc/containers/containers.conf", "/etc/containers/containers.conf.d"],
        units: &[],
        socket: "",
        crictl: "",
        ctr: "",
    },
];

impl Kind {
    fn facts(self) -> &'static Facts {
        FACTS.iter().find(|facts| facts.kind == self).expect("each kind has its facts")
    }

    pub fn name(self) -> &'static str {
        self.facts().name
    }

    pub fn of(name: &str) -> Result<Self> {
        let kind = FACTS.iter().find(|facts| facts.name == name).map(|facts| facts.kind);
        let names: Vec<_> = FACTS.iter().map(|facts| facts.name).collect();
        kind.with_context(|| format!("it is one of: {}", names.join(", ")))
    }
}

/// The value of a flag, as `--config FILE`, `-c FILE` or `--config=FILE`.
fn flag(command: &[String], names: &[&str]) -> Option<String> {
    let mut rest = command.iter();
    while let Some(word) = rest.next() {
        if names.contains(&word.as_str()) {
            return rest.next().cloned();
        }
        if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            return Some(value.into());
        }
    }
    None
}

/// The socket that a runtime was told to answer on, by a flag or by a file.
fn socket(node: &Node, kind: Kind, command: &[String], config: &str) -> Option<String> {
    let named = match kind {
        Kind::Containerd => flag(command, &["--address", "-a"])
            .or_else(|| Setting::toml(&["grpc", "address"]).read(&node.read(config).ok()??).ok()?),
        Kind::Crio => flag(command, &["--listen"]).or_else(|| {
            let setting = Setting::toml(&["crio", "api", "listen"]);
            let file = last_with(node, &crio_files(node), &setting).ok()??;
            setting.read(&node.read(&file).ok()??).ok()?
        }),
        // Without a path it is fd://: the socket of its unit.
        Kind::CriDockerd => {
            flag(command, &["--container-runtime-endpoint"]).filter(|endpoint| endpoint.starts_with("unix:///"))
        }
        _ => None,
    };
    named.map(|socket| socket.trim_start_matches("unix://").into())
}

/// The files of CRI-O, in the order in which a later one wins.
fn crio_files(node: &Node) -> Vec<String> {
    let mut files = vec!["/etc/crio/crio.conf".to_string()];
    files.extend(node.list("/etc/crio/crio.conf.d", &[""]));
    files
}

/// The runtimes of a node: those that run or, if nothing can be asked, those whose files are there.
pub fn find(node: &Node) -> Vec<Runtime> {
    let mut found = Vec::new();
    for facts in &FACTS {
        if !node.is_live || facts.kind == Kind::Podman {
            if facts.paths.iter().any(|path| node.has(path)) {
                found.push(Runtime::new(facts, None));
            }
            continue;
        }
        for (pid, command) in node.processes(facts.processes) {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            let mut one = Runtime::new(facts, program.map(|path| path.display().to_string()));
            if facts.kind == Kind::Containerd {
                one.config = flag(&command, &["--config", "-c"]).unwrap_or(one.config);
                // The containerd of another runtime, which writes its file, or of Docker.
                let others =
                    ["/var/lib/rancher/", "/etc/k0s/", "/run/k0s/", "/var/snap/", "/var/run/docker/", "/run/docker/"];
                if others.iter().any(|folder| one.config.starts_with(folder)) {
                    continue;
                }
            }
            if let Some(socket) = socket(node, facts.kind, &command, &one.config) {
                one.socket = socket;
            }
            found.push(one);
        }
    }
    found.dedup_by(|one, other| one.kind == other.kind);
    // A switch that was killed may have left one that does not run, or whose file is gone.
    if found.iter().all(|one| one.kind == Kind::Podman) {
        let daemons = FACTS.iter().filter(|facts| facts.kind != Kind::Podman);
        let switched = daemons.filter(|facts| Journal::is_there(node, facts.kind));
        found.extend(switched.map(|facts| Runtime::new(facts, None)));
    }
    found
}

impl Runtime {
    fn new(facts: &Facts, program: Option<String>) -> Self {
        let config = match facts.kind {
            Kind::Containerd => "/etc/containerd/config.toml",
            Kind::K0s => "/etc/k0s/containerd.toml",
            Kind::Microk8s => "/var/snap/microk8s/current/args/containerd-template.toml",
            _ => "",
        };
        let (kind, config, socket) = (facts.kind, config.into(), facts.socket.into());
        Self { kind, config, program, socket }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The changes that give new pods an image, and that keep the image of before for the way back.
    pub fn plan(&self, node: &Node, image: &str, before: Option<&str>) -> Result<Vec<Change>> {
        if self.kind == Kind::Rke2 && image.starts_with("localhost/") {
            bail!("RKE2 takes localhost/ for a name on Docker Hub: use a name with the host of a registry");
        }
        let one = |file: String, setting: Setting, head: &str| {
            vec![Change::Setting { file, setting, value: image.into(), head: head.into() }]
        };
        Ok(match self.kind {
            Kind::Containerd | Kind::Microk8s => containerd::plan(node, &self.config, image)?,
            Kind::K0s => {
                let folder = node.list("/etc/k0s/containerd.d", &[".toml"]);
                match containerd::deciding(node, &folder)? {
                    Some(file) => containerd::plan(node, &file, image)?,
                    None => {
                        let version = containerd::version(node, &self.config)?.max(2);
                        let head = format!("version = {version}\n");
                        one("/etc/k0s/containerd.d/pause.toml".into(), containerd::setting(version), &head)
                    }
                }
            }
            Kind::Crio => {
                let image_key = Setting::toml(&["crio", "image", "pause_image"]);
                let command_key = Setting::toml(&["crio", "image", "pause_command"]);
                let files = crio_files(node);
                let file = last_with(node, &files, &image_key)?;
                let file = file.unwrap_or("/etc/crio/crio.conf.d/99-pause.conf".into());
                let mut changes = one(file, image_key, "");
                // OpenShift and MicroShift have an image whose program has another name.
                if let Some(file) = last_with(node, &files, &command_key)? {
                    let text = node.read(&file)?.unwrap_or_default();
                    if !["/pause", ""].contains(&command_key.read(&text)?.unwrap_or_default().as_str()) {
                        let value = "/pause".into();
                        changes.push(Change::Setting { file, setting: command_key, value, head: String::new() });
                    }
                }
                // A list that somebody has made would be replaced.
                let list = Setting::toml(&["crio", "image", "pinned_images"]);
                let has_list = |file: &String| list.is_in(&node.read(file)?.unwrap_or_default());
                let lists = files.iter().map(has_list).collect::<Result<Vec<_>>>()?;
                if let Some(before) = before.filter(|before| !before.is_empty() && !lists.contains(&true)) {
                    let file = PINNED.into();
                    changes
                        .push(Change::File { file, text: format!("[crio.image]\npinned_images = [\"{before}\"]\n") });
                }
                changes
            }
            Kind::K3s | Kind::Rke2 => {
                let folder = format!("/etc/rancher/{}", self.name());
                let setting = Setting::yaml("pause-image");
                let mut files = vec![format!("{folder}/config.yaml")];
                files.extend(node.list(&format!("{folder}/config.yaml.d"), &[".yaml", ".yml"]));
                let file = last_with(node, &files, &setting)?;
                one(file.unwrap_or(format!("{folder}/config.yaml.d/99-pause.yaml")), setting, "")
            }
            Kind::Podman => {
                let setting = Setting::toml(&["engine", "infra_image"]);
                let mut files = vec!["/etc/containers/containers.conf".to_string()];
                files.extend(node.list("/etc/containers/containers.conf.d", &[".conf"]));
                let file = last_with(node, &files, &setting)?;
                one(file.unwrap_or("/etc/containers/containers.conf.d/99-pause.conf".into()), setting, "")
            }
            Kind::CriDockerd => {
                let (file, text) = unit::drop_in(node, image)?;
                vec![Change::File { file, text }]
            }
        })
    }

    /// The image that the files say, if they say one.
    pub fn configured(&self, node: &Node) -> Result<Option<String>> {
        if self.kind == Kind::CriDockerd {
            return unit::image(node);
        }
        let plan = self.plan(node, "none:none", None)?;
        let Some(Change::Setting { file, setting, .. }) = plan.first() else { return Ok(None) };
        setting.read(&node.read(file)?.unwrap_or_default()).with_context(|| file.clone())
    }

    /// The image that the runtime itself reads from its files, where it can say so.
    pub fn effective(&self, node: &Node) -> Result<Option<String>> {
        let Some(program) = self.program.clone().filter(|_| node.is_live) else {
            return self.configured(node);
        };
        match self.kind {
            Kind::Containerd => self.dump(program),
            Kind::Crio => {
                let dump = output(&[program, "config".into()])?;
                Setting::toml(&["crio", "image", "pause_image"]).read(&dump)
            }
            Kind::CriDockerd => {
                Ok(unit::of_show(&output(&words("systemctl show --property=ExecStart --value cri-docker"))?))
            }
            _ => self.configured(node),
        }
    }

    /// What a program of containerd reads from its configuration.
    fn dump(&self, program: String) -> Result<Option<String>> {
        let config = ["--config".into(), self.config.clone()];
        let dump = output(&[&[program], &config[..], &["config".into(), "dump".into()]].concat())?;
        containerd::of_dump(&dump)
    }

    /// The image that the runtime was started with, where a flag or a template may decide after all.
    pub fn started_with(&self, node: &Node) -> Result<Option<String>> {
        match self.kind {
            // They write the configuration of their containerd when they start.
            Kind::K3s | Kind::Rke2 => {
                let folder = format!("/var/lib/rancher/{}/agent/etc/containerd", self.name());
                let text = node.read(&format!("{folder}/config.toml"))?;
                containerd::of_dump(&text.unwrap_or_default())
            }
            Kind::K0s => {
                let pid = self.containerd_of_k0s(node).context("k0s runs no containerd")?;
                let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
                self.dump(program.display().to_string())
            }
            Kind::CriDockerd => {
                let (_, command) = node.processes(&["cri-dockerd"]).pop().context("cri-dockerd")?;
                Ok(flag(&command, &[unit::FLAG]))
            }
            _ => self.effective(node),
        }
    }

    /// The PID of the containerd that k0s has started. It starts a new one when a file below /etc/k0s/containerd.d
    /// changes, three seconds later (pkg/component/worker/containerd of k0s).
    pub fn containerd_of_k0s(&self, node: &Node) -> Option<i32> {
        if self.kind != Kind::K0s {
            return None;
        }
        let is_its =
            |(_, command): &(i32, Vec<String>)| flag(command, &["--config", "-c"]).as_deref() == Some(&self.config);
        node.processes(&["containerd"]).into_iter().find(is_its).map(|(pid, _)| pid)
    }

    /// The command of a tool with its arguments.
    pub fn crictl(&self, arguments: &str) -> Vec<String> {
        words(&format!("{} {arguments}", self.kind.facts().crictl.replace("SOCKET", &self.socket)))
    }

    /// The same for ctr in Kubernetes' namespace, where the runtime is a containerd.
    pub fn ctr(&self, arguments: &str) -> Option<Vec<String>> {
        let ctr = self.kind.facts().ctr.replace("SOCKET", &self.socket);
        (!ctr.is_empty()).then(|| words(&format!("{ctr} --namespace k8s.io {arguments}")))
    }

    /// The command that imports an archive, as far as it can under the name of the image.
    pub fn import(&self, archive: &str, image: &str) -> Vec<String> {
        self.ctr(&format!("images import {archive}")).unwrap_or_else(|| {
            words(&match self.kind {
                Kind::CriDockerd => format!("docker load --input {archive}"),
                _ => {
                    format!("skopeo copy --quiet oci-archive:{archive} containers-storage:{image}")
                }
            })
        })
    }

    /// The command that gives an imported image another name. skopeo has given it.
    pub fn tag(&self, name: &str, image: &str) -> Option<Vec<String>> {
        match self.kind {
            Kind::Crio => None,
            Kind::CriDockerd => Some(words(&format!("docker tag {name} {image}"))),
            _ => self.ctr(&format!("images tag --force {name} {image}")),
        }
    }

    /// The unit of systemd that starts the runtime; none where it needs no restart.
    pub fn unit(&self) -> Result<Option<&'static str>> {
        let units = self.kind.facts().units;
        let Some(first) = units.first() else { return Ok(None) };
        // One that failed to start is not active.
        for question in ["is-active --quiet", "cat"] {
            for unit in units {
                match output(&words(&format!("systemctl {question} {unit}"))) {
                    Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
                        return Err(error);
                    }
                    Err(_) => (),
                    Ok(_) => return Ok(Some(unit)),
                }
            }
        }
        bail!("systemd has no unit {first}, so that {} cannot be restarted", self.name())
    }

    /// The command that has systemd read the files of units, where the setting is in one.
    pub fn reload(&self) -> Option<Vec<String>> {
        (self.kind == Kind::CriDockerd).then(|| words("systemctl daemon-reload"))
    }

    /// Whether systemd manages the control groups of its containers. Then a pod wants a slice.
    pub fn uses_systemd_cgroups(&self) -> bool {
        // containerd before 2.0 does not know the first, but shows its settings.
        let says = |command: &str, text: &str| output(&self.crictl(command)).is_ok_and(|answer| answer.contains(text));
        says("runtime-config", "SYSTEMD") || says("info", "\"SystemdCgroup\": true")
    }

    pub fn speaks_cri(&self) -> bool {
        self.kind != Kind::Podman
    }
}

/// The last file that has a setting: it decides.
fn last_with(node: &Node, files: &[String], setting: &Setting) -> Result<Option<String>> {
    node.last(files, |file, text| Ok(setting.read(text).with_context(|| file.to_string())?.is_some()))
}

/// Who owns the setting of a node that is not set by hand, and where it is set.
pub fn owner(node: &Node) -> Result<Option<&'static str>> {
    let release = node.read("/etc/os-release")?.unwrap_or_default();
    let is = |id: &str| {
        release.lines().any(|line| line.trim_matches('"') == format!("ID={id}") || line == format!("ID=\"{id}\""))
    };
    let owners = [
        (is("talos"), "Talos: a document of kind CRICustomizationConfig in the machine configuration"),
        (is("bottlerocket"), "Bottlerocket: it has no setting for it since 1.21.0"),
        (
            ["/etc/eks/nodeadm", "/etc/eks/nodeadm.yaml", "/usr/bin/nodeadm"].iter().any(|file| node.has(file)),
            "nodeadm of EKS: spec.containerd.config of its NodeConfig",
        ),
        (node.has("/opt/azure/containers"), "AKS: it has no setting for it"),
        (
            is("cos") || node.has("/home/kubernetes/bin/kube-env") || node.has("/home/kubernetes/kube-env"),
            "GKE: it has no setting for it",
        ),
        (node.has("/etc/machine-config-daemon"), "OpenShift: a MachineConfig with a file in /etc/crio/crio.conf.d"),
    ];
    Ok(owners.into_iter().find(|(owns, _)| *owns).map(|(_, who)| who))
}

/// Checks an image name: HOST/NAME:TAG, as the runtime stores it. The rules are those of the references of
/// distribution, which all runtimes share.
pub fn parse_image(name: &str) -> Result<String> {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    if name.contains('@') || tag.is_empty() || tag.contains('/') {
        bail!("it wants a tag, as registry.example/pause:1, and no digest");
    }
    let (host, path) = path.split_once('/').unwrap_or(("", path));
    let (domain, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_label = |label: &str| {
        let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        !label.is_empty() && label.chars().all(known) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_host = (host.contains(['.', ':']) || host == "localhost")
        && domain.split('.').all(is_label)
        && port.parse::<u16>().is_ok();
    // Letters and digits, with one separator between: a dot, one or two underscores, or hyphens.
    let is_part = |part: &str| {
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let separators = part.split(is_plain).filter(|separator| !separator.is_empty());
        part.starts_with(is_plain)
            && part.ends_with(is_plain)
            && separators
                .into_iter()
                .all(|one| [".", "_", "__"].contains(&one) || one.chars().all(|letter| letter == '-'))
    };
    let is_tag = tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    if !is_host || !is_tag || name.len() > 255 || !path.split('/').all(is_part) {
        bail!("it wants HOST/NAME:TAG, with the name in lower case, as registry.example/pause:1");
    }
    Ok(name.into())
}
