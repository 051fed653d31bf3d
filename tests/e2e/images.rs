//! The images that the checks use: one root filesystem with busybox and nginx under many
//! names, and an image of a C pause as the control. Nothing is pulled from a registry.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Work;
use crate::node::Node;
use harness::programs::root;
use harness::run;

/// Our image, under the name that README gives it.
pub const PAUSE: &str = concat!("localhost/pause:", env!("CARGO_PKG_VERSION"));
/// The image of `tests/bench/pause.c`, which handles SIGCHLD as upstream's pause does.
pub const C_PAUSE: &str = "localhost/e2e:pause-c";

/// The tags of `localhost/e2e` for the containers of a pod, and the command of each.
const MEMBERS: [(&str, &[&str]); 5] = [
    (
        "orphans",
        &[
            "sh",
            "-c",
            "trap exit TERM; while :; do (sleep 0.5 &); sleep 1; done",
        ],
    ),
    (
        "sleeper",
        &["sh", "-c", "trap exit TERM; sleep infinity & wait"],
    ),
    ("web", &["nginx", "-c", "/etc/nginx/proxy.conf"]),
    (
        "app-1",
        &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/1"],
    ),
    (
        "app-2",
        &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/2"],
    ),
];

/// The images that critest pulls from a registry, and the command that its containers run.
/// The names are from critest's validate/consts.go and framework/util.go.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("pause:3.9", &["sleep", "infinity"]),
    ("e2e-test-images/nginx:1.14-2", &["nginx"]),
    (
        "e2e-test-images/httpd:2.4.39-4",
        &["sh", "-c", "echo httpd; exec httpd -f -h /srv/1"],
    ),
    ("e2e-test-images/nonewprivs:1.3", &["/nonewprivs"]),
    ("k8s-staging-cri-tools/hostnet-nginx-amd64:latest", HOSTNET),
    ("k8s-staging-cri-tools/hostnet-nginx-arm64:latest", HOSTNET),
];
const HOSTNET: &[&str] = &["nginx", "-c", "/etc/nginx/hostnet.conf"];

/// Images with the same content and a shell, with the users that critest's images/build sets.
const USERS: [(&str, &str); 5] = [
    (GROUP, "1000"),
    ("k8s-staging-cri-tools/test-image-user-uid:latest", "1002"),
    (
        "k8s-staging-cri-tools/test-image-user-username:latest",
        "www-data",
    ),
    (
        "k8s-staging-cri-tools/test-image-user-uid-group:latest",
        "1003:1004",
    ),
    (
        "k8s-staging-cri-tools/test-image-user-username-group:latest",
        "www-data:1004",
    ),
];
/// The user of this image is a member of one more group.
const GROUP: &str = "k8s-staging-cri-tools/test-image-predefined-group:latest";

/// More images with a shell. Images that differ only in their tags are one image.
const SHELLS: [&str; 10] = [
    "e2e-test-images/busybox:1.29-2",
    "k8s-staging-cri-tools/test-image-latest:latest",
    "k8s-staging-cri-tools/test-image-tag:test",
    "k8s-staging-cri-tools/test-image-tag:all",
    "k8s-staging-cri-tools/test-image-1:latest",
    "k8s-staging-cri-tools/test-image-2:latest",
    "k8s-staging-cri-tools/test-image-3:latest",
    "k8s-staging-cri-tools/test-image-tags:1",
    "k8s-staging-cri-tools/test-image-tags:2",
    "k8s-staging-cri-tools/test-image-tags:3",
];

/// Adds images: the name, the command and the user of each.
fn critest() -> impl Iterator<Item = (&'static str, &'static [&'static str], &'static str)> {
    let commands = COMMANDS
        .into_iter()
        .map(|(name, command)| (name, command, ""));
    let users = USERS
        .into_iter()
        .map(|(name, user)| (name, &["sh"][..], user));
    let shells = SHELLS.into_iter().map(|name| (name, &["sh"][..], ""));
    commands.chain(users).chain(shells)
}

/// The tag in our OCI layout for an image name that has a tag of its own.
fn tag(name: &str) -> String {
    let repository = name.split(':').next().expect("a name");
    repository.replace('/', "-")
}

/// A configuration with which nginx runs as any user, in any container.
fn nginx(server: &str) -> String {
    format!(
        "user root; daemon off; pid /var/run/nginx.pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off; root /srv/1; server {{ {server} }} }}\n"
    )
}

pub struct Images {
    /// An OCI layout with all images.
    layout: PathBuf,
    /// The same layout as a tar archive.
    archive: PathBuf,
}

impl Images {
    pub fn new(work: &Work) -> Self {
        let images = Self {
            layout: work.folder.join("images"),
            archive: work.folder.join("images.tar"),
        };
        let tree = work.folder.join("root"); // of scripts/e2e
        let put = |name: &str, content: &str| {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        };
        put(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
             www-data:x:33:33::/:/bin/false\ndefault-user:x:1000:1000::/:/bin/sh\n",
        );
        put("srv/1/index.html", "application 1\n");
        put("srv/2/index.html", "application 2\n");
        put("etc/nginx/nginx.conf", &nginx("listen 80;"));
        put("etc/nginx/hostnet.conf", &nginx("listen 12003;"));
        put(
            "etc/nginx/proxy.conf",
            &nginx("listen 80; location / { proxy_pass http://127.0.0.1:2368; }"),
        );
        compile("tests/e2e/nonewprivs.c", &tree.join("nonewprivs"));
        run("chmod", &["4755", text(&tree.join("nonewprivs"))]);

        run("umoci", &["init", "--layout", text(&images.layout)]);
        images.make("base", &tree, "/");
        let pause = work.folder.join("pause-c");
        compile("tests/bench/pause.c", &pause);
        images.make("pause-c", &pause, "/pause");
        images.umoci(
            "config",
            "pause-c",
            &["--config.entrypoint=/pause", "--config.user=65535:65535"],
        );
        for (tag, command) in MEMBERS {
            images.derive(tag, command, "");
        }
        let group = work.folder.join("group");
        fs::write(
            &group,
            "root:x:0:\ndefault-user:x:1000:\nmembers:x:50000:default-user\n",
        )
        .expect("a file");
        for (name, command, user) in critest() {
            images.derive(&tag(name), command, user);
        }
        images.umoci("insert", &tag(GROUP), &[text(&group), "/etc/group"]);
        run(
            "tar",
            &[
                "-cf",
                text(&images.archive),
                "-C",
                text(&images.layout),
                ".",
            ],
        );
        images
    }

    fn umoci(&self, command: &str, tag: &str, arguments: &[&str]) {
        let image = format!("{}:{tag}", text(&self.layout));
        run(
            "umoci",
            &[&[command, "--image", &image], arguments].concat(),
        );
    }

    /// Adds an image that contains one file or folder.
    fn make(&self, tag: &str, from: &Path, to: &str) {
        self.umoci("new", tag, &[]);
        self.umoci("insert", tag, &[text(from), to]);
    }

    /// Adds an image with the same root filesystem. Its label gives it a digest of its own.
    fn derive(&self, tag: &str, command: &[&str], user: &str) {
        let mut arguments: Vec<String> = command
            .iter()
            .map(|word| format!("--config.cmd={word}"))
            .collect();
        arguments.push(format!("--config.user={user}"));
        arguments.push(format!("--config.label=tag={tag}"));
        arguments.push(format!("--tag={tag}"));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.umoci("config", "base", &arguments);
    }

    /// Imports our image into a node with README's commands.
    pub fn import_pause(&self, node: &Node) {
        let pause = root().join("dist/pause.oci.tar");
        let pause = pause.display();
        match node.crio {
            true => node.sh(&format!(
                "skopeo copy --quiet oci-archive:{pause} containers-storage:{PAUSE}"
            )),
            false => node.sh(&format!("{} images import {pause}", node.ctr)),
        };
    }

    /// Imports the other images into a node.
    pub fn import(&self, node: &Node) {
        if !node.crio {
            let archive = self.archive.display();
            node.sh(&format!(
                "{} images import --base-name localhost/e2e {archive}",
                node.ctr
            ));
            return;
        }
        for tag in MEMBERS.iter().map(|(tag, _)| *tag).chain(["pause-c"]) {
            let from = format!("oci:{}:{tag}", self.layout.display());
            node.sh(&format!(
                "skopeo copy --quiet {from} containers-storage:localhost/e2e:{tag}"
            ));
        }
    }

    /// Starts a registry in the cell of a node, with the images that critest pulls.
    pub fn serve(&self, node: &Node) {
        node.cell().registry();
        for (name, _, _) in critest() {
            let from = format!("oci:{}:{}", self.layout.display(), tag(name));
            let to = format!("docker://127.0.0.1:5000/{name}");
            node.sh(&format!(
                "skopeo copy --quiet --dest-tls-verify=false {from} {to}"
            ));
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Compiles a statically linked program.
fn compile(source: &str, to: &Path) {
    let source = root().join(source);
    run(
        "gcc",
        &["-Os", "-static", "-s", "-o", text(to), text(&source)],
    );
}
