//! The runtimes of a node: how each is found, which file sets its sandbox image, and how it is asked and
//! restarted. docs/switch.md has the same as a table.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::containerd;
use crate::edit::Setting;
use crate::node::{Node, output, words};
use crate::unit;

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Containerd,
    Crio,
    K3s,
    Rke2,
    K0s,
    Microk8s,
    CriDockerd,
    Podman,
}

/// A runtime of this node.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub kind: Kind,
    /// The configuration file, where a flag can name another.
    pub config: String,
    /// The program that runs, if it does.
    pub program: Option<String>,
}

/// One change that switches a runtime.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A setting in a file. A file that is not there begins with `head`.
    Setting { file: String, setting: Setting, value: String, head: String },
    /// A file of our own.
    File { file: String, text: String },
}

impl Change {
    pub fn file(&self) -> &str {
        match self {
            Self::Setting { file, .. } | Self::File { file, .. } => file,
        }
    }
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
    crictl: &'static str,
    ctr: &'static str,
}

/// Pins the image of before for CRI-O, which pins only the one that it uses.
const PINNED: &str = "/etc/crio/crio.conf.d/99-pause-switch.conf";

const FACTS: [Facts; 8] = [
    Facts {
        kind: Kind::K3s,
        name: "k3s",
        processes: &["k3s-server", "k3s-agent"],
        paths: &["/etc/rancher/k3s", "/var/lib/rancher/k3s"],
        units: &["k3s", "k3s-agent"],
        crictl: "k3s crictl",
        ctr: "k3s ctr",
    },
    Facts {
        kind: Kind::Rke2,
        name: "rke2",
        processes: &["rke2"],
        paths: &["/etc/rancher/rke2", "/var/lib/rancher/rke2"],
        units: &["rke2-server", "rke2-agent"],
        crictl: "/var/lib/rancher/rke2/bin/crictl --runtime-endpoint unix:///run/k3s/containerd/containerd.sock",
        ctr: "/var/lib/rancher/rke2/bin/ctr --address /run/k3s/containerd/containerd.sock",
    },
    Facts {
        kind: Kind::K0s,
        name: "k0s",
        processes: &["k0s"],
        paths: &["/etc/k0s", "/var/lib/k0s"],
        units: &[], // it reads its folder again by itself
        crictl: "crictl --runtime-endpoint unix:///run/k0s/containerd.sock",
        ctr: "k0s ctr",
    },
    Facts {
        kind: Kind::Microk8s,
        name: "microk8s",
        processes: &["kubelite"],
        paths: &["/var/snap/microk8s/current/args"],
        units: &["snap.microk8s.daemon-containerd"],
        crictl: "crictl --runtime-endpoint unix:///var/snap/microk8s/common/run/containerd.sock",
        ctr: "microk8s ctr",
    },
    Facts {
        kind: Kind::Crio,
        name: "crio",
        processes: &["crio"],
        paths: &["/etc/crio"],
        units: &["crio"],
        crictl: "crictl --runtime-endpoint unix:///run/crio/crio.sock",
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
        crictl: "crictl --runtime-endpoint unix:///run/cri-dockerd.sock",
        ctr: "",
    },
    Facts {
        kind: Kind::Containerd,
        name: "containerd",
        processes: &["containerd"],
        paths: &["/etc/containerd/config.toml"],
        units: &["containerd"],
        crictl: "crictl --runtime-endpoint unix:///run/containerd/containerd.sock",
        ctr: "ctr",
    },
    Facts {
        kind: Kind::Podman,
        name: "podman",
        processes: &[],
        paths: &["/etc/containers/containers.conf", "/etc/containers/containers.conf.d"],
        units: &[],
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

/// The configuration file that a flag names, as `--config FILE`, `-c FILE` or `--config=FILE`.
fn config_flag(command: &[String]) -> Option<String> {
    let mut rest = command.iter();
    while let Some(word) = rest.next() {
        if let Some(file) = word.strip_prefix("--config=").or(word.strip_prefix("-c=")) {
            return Some(file.into());
        }
        if word == "--config" || word == "-c" {
            return rest.next().cloned();
        }
    }
    None
}

/// The runtimes of a node: those that run or, if nothing can be asked, those whose files are there.
pub fn find(node: &Node) -> Vec<Runtime> {
    let mut found = Vec::new();
    for facts in &FACTS {
        let config = match facts.kind {
            Kind::Containerd => "/etc/containerd/config.toml",
            Kind::K0s => "/etc/k0s/containerd.toml",
            Kind::Microk8s => "/var/snap/microk8s/current/args/containerd-template.toml",
            _ => "",
        };
        let runtime = |program| Runtime { kind: facts.kind, config: config.into(), program };
        if !node.is_live || facts.kind == Kind::Podman {
            if facts.paths.iter().any(|path| node.has(path)) {
                found.push(runtime(None));
            }
            continue;
        }
        for (pid, command) in node.processes(facts.processes) {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            let mut one = runtime(program.map(|path| path.display().to_string()));
            if facts.kind == Kind::Containerd {
                let config = config_flag(&command).unwrap_or(config.into());
                // The containerd of another runtime, which writes its file, or of Docker.
                let others = [
                    "/var/lib/rancher/",
                    "/etc/k0s/",
                    "/run/k0s/",
                    "/var/snap/",
                    "/var/run/docker/",
                    "/run/docker/",
                ];
                if others.iter().any(|folder| config.starts_with(folder)) {
                    continue;
                }
                one.config = config;
            }
            found.push(one);
        }
    }
    found.dedup_by(|one, other| one.kind == other.kind);
    found
}

impl Runtime {
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The changes that give new pods an image, and that keep the image of before for the way back.
    pub fn plan(&self, node: &Node, image: &str, before: Option<&str>) -> Result<Vec<Change>> {
        if self.kind == Kind::Rke2 && image.starts_with("localhost/") {
            bail!(
                "RKE2 takes localhost/ for a name on Docker Hub: use a name with the host of a registry"
            );
        }
        let one = |file: String, setting: Setting, head: &str| {
            vec![Change::Setting { file, setting, value: image.into(), head: head.into() }]
        };
        Ok(match self.kind {
            Kind::Containerd | Kind::Microk8s => containerd::plan(node, &self.config, image)?,
            Kind::K0s => {
                let folder = node.list("/etc/k0s/containerd.d", ".toml");
                match containerd::deciding(node, &folder)? {
                    Some(file) => containerd::plan(node, &file, image)?,
                    None => {
                        let version = containerd::version(node, &self.config)?.max(2);
                        let head = format!("version = {version}\n");
                        one(
                            "/etc/k0s/containerd.d/pause.toml".into(),
                            containerd::setting(version),
                            &head,
                        )
                    }
                }
            }
            Kind::Crio => {
                let image_key = Setting::toml(&["crio", "image", "pause_image"]);
                let command_key = Setting::toml(&["crio", "image", "pause_command"]);
                let mut files = vec!["/etc/crio/crio.conf".to_string()];
                files.extend(node.list("/etc/crio/crio.conf.d", ""));
                let file = last_with(node, &files, &image_key)?;
                let file = file.unwrap_or("/etc/crio/crio.conf.d/99-pause.conf".into());
                let mut changes = one(file, image_key, "");
                // OpenShift and MicroShift have an image whose program has another name.
                if let Some(file) = last_with(node, &files, &command_key)? {
                    let text = node.read(&file)?.unwrap_or_default();
                    if !["/pause", ""]
                        .contains(&command_key.read(&text)?.unwrap_or_default().as_str())
                    {
                        let value = "/pause".into();
                        changes.push(Change::Setting {
                            file,
                            setting: command_key,
                            value,
                            head: String::new(),
                        });
                    }
                }
                // A list that somebody has made would be replaced.
                let list = Setting::toml(&["crio", "image", "pinned_images"]);
                let has_list = |file: &String| list.is_in(&node.read(file)?.unwrap_or_default());
                let lists = files.iter().map(has_list).collect::<Result<Vec<_>>>()?;
                if let Some(before) = before.filter(|_| !lists.contains(&true)) {
                    let file = PINNED.into();
                    changes.push(Change::File {
                        file,
                        text: format!("[crio.image]\npinned_images = [\"{before}\"]\n"),
                    });
                }
                changes
            }
            Kind::K3s | Kind::Rke2 => {
                let folder = format!("/etc/rancher/{}", self.name());
                let setting = Setting::yaml("pause-image");
                let mut files = vec![format!("{folder}/config.yaml")];
                files.extend(node.list(&format!("{folder}/config.yaml.d"), ".yaml"));
                let file = last_with(node, &files, &setting)?;
                one(file.unwrap_or(format!("{folder}/config.yaml.d/99-pause.yaml")), setting, "")
            }
            Kind::Podman => {
                let setting = Setting::toml(&["engine", "infra_image"]);
                let mut files = vec!["/etc/containers/containers.conf".to_string()];
                files.extend(node.list("/etc/containers/containers.conf.d", ".conf"));
                let file = last_with(node, &files, &setting)?;
                one(
                    file.unwrap_or("/etc/containers/containers.conf.d/99-pause.conf".into()),
                    setting,
                    "",
                )
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
            Kind::Containerd => {
                let dump = output(&[
                    program,
                    "--config".into(),
                    self.config.clone(),
                    "config".into(),
                    "dump".into(),
                ])?;
                containerd::of_dump(&dump)
            }
            Kind::Crio => {
                let dump = output(&[program, "config".into()])?;
                Setting::toml(&["crio", "image", "pause_image"]).read(&dump)
            }
            _ => self.configured(node),
        }
    }

    /// The image in the configuration that k3s and RKE2 write for their containerd when they start, which a
    /// flag or a template may decide.
    pub fn written(&self, node: &Node) -> Result<Option<String>> {
        let file = format!("/var/lib/rancher/{}/agent/etc/containerd/config.toml", self.name());
        match self.kind {
            Kind::K3s | Kind::Rke2 => containerd::of_dump(&node.read(&file)?.unwrap_or_default()),
            _ => self.effective(node),
        }
    }

    /// The command of a tool with its arguments.
    pub fn crictl(&self, arguments: &str) -> Vec<String> {
        words(&format!("{} {arguments}", self.kind.facts().crictl))
    }

    /// The same for ctr in Kubernetes' namespace, where the runtime is a containerd.
    pub fn ctr(&self, arguments: &str) -> Option<Vec<String>> {
        let ctr = self.kind.facts().ctr;
        (!ctr.is_empty()).then(|| words(&format!("{ctr} --namespace k8s.io {arguments}")))
    }

    /// Has the runtime read its files.
    pub fn restart(&self) -> Result<()> {
        let units = self.kind.facts().units;
        if units.is_empty() {
            return Ok(());
        }
        let is_active =
            |unit: &&&str| output(&words(&format!("systemctl is-active --quiet {unit}"))).is_ok();
        let unit = units.iter().find(is_active).or(units.first()).context("a unit")?;
        if self.kind == Kind::CriDockerd {
            output(&words("systemctl daemon-reload"))?;
        }
        output(&words(&format!("systemctl restart {unit}"))).map(drop)
    }

    pub fn speaks_cri(&self) -> bool {
        self.kind != Kind::Podman
    }
}

/// The last file that has a setting: it decides.
fn last_with(node: &Node, files: &[String], setting: &Setting) -> Result<Option<String>> {
    node.last(files, |file, text| {
        Ok(setting.read(text).with_context(|| file.to_string())?.is_some())
    })
}

/// Who owns the setting of a node that is not set by hand, and where it is set.
pub fn owner(node: &Node) -> Result<Option<&'static str>> {
    let release = node.read("/etc/os-release")?.unwrap_or_default();
    let is = |id: &str| {
        release.lines().any(|line| {
            line.trim_matches('"') == format!("ID={id}") || line == format!("ID=\"{id}\"")
        })
    };
    let owners = [
        (
            is("talos"),
            "Talos: a document of kind CRICustomizationConfig in the machine configuration",
        ),
        (is("bottlerocket"), "Bottlerocket: it has no setting for it since 1.21.0"),
        (
            node.has("/etc/eks/nodeadm") || node.has("/etc/eks/nodeadm.yaml"),
            "nodeadm of EKS: spec.containerd.config of its NodeConfig",
        ),
        (node.has("/opt/azure/containers"), "AKS: it has no setting for it"),
        (
            node.has("/home/kubernetes/bin/kube-env") || node.has("/home/kubernetes/kube-env"),
            "GKE: it has no setting for it",
        ),
        (
            node.has("/etc/machine-config-daemon"),
            "OpenShift: a MachineConfig with a file in /etc/crio/crio.conf.d",
        ),
    ];
    Ok(owners.into_iter().find(|(owns, _)| *owns).map(|(_, who)| who))
}

/// Checks an image name: HOST/NAME:TAG, as the runtime stores it.
pub fn parse_image(name: &str) -> Result<String> {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let host = path.split('/').next().unwrap_or_default();
    let known = |letter: char| letter.is_ascii_alphanumeric() || "._-/:".contains(letter);
    let is_host = host.contains(['.', ':']) || host == "localhost";
    if name.contains('@') || tag.is_empty() || tag.contains('/') {
        bail!("it wants a tag, as registry.example/pause:1, and no digest");
    }
    if !is_host
        || !path.contains('/')
        || !name.chars().all(known)
        || path.chars().any(|letter| letter.is_ascii_uppercase())
    {
        bail!("it wants HOST/NAME:TAG in lower case, as registry.example/pause:1");
    }
    Ok(name.into())
}
