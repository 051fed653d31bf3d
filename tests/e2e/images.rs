//! The images that the checks use: one root filesystem with busybox and nginx under several names, and an image of a C
//! pause as the control. Nothing is pulled from a registry.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::{Node, Runtime};
use crate::work::{PAUSE, PREVIOUS, Work, bin};
use harness::programs::{program, root};
use harness::{run, text};

/// The tags of `localhost/e2e` for the containers of a pod, and the command of each.
const MEMBERS: [(&str, &[&str]); 5] = [
    ("orphans", &["sh", "-c", "trap exit TERM; while :; do (sleep 0.5 &); sleep 1; done"]),
    ("sleeper", &["sh", "-c", "trap exit TERM; sleep infinity & wait"]),
    ("web", &["nginx", "-c", "/etc/nginx/proxy.conf"]),
    ("app-1", &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/1"]),
    ("app-2", &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/2"]),
];

/// Makes a root for containers: busybox, and other programs of this machine with their libraries, of which a static
/// program has none. The applets are hard links: the same file, and no symlink that finds itself.
const ROOTFS: &str = r#"
    tree=$1; shift; mkdir -p "$tree"; cd "$tree"
    mkdir -p bin etc root srv/1 srv/2 tmp usr/share/nginx var/lib/nginx var/log/nginx var/run
    busybox=$(command -v busybox); cp "$busybox" bin/busybox
    for applet in $(busybox --list | grep -vx busybox); do ln bin/busybox "bin/$applet"; done
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >etc/passwd; echo root:x:0: >etc/group
    { printf '%s\n' "$@"; ldd "$@" 2>/dev/null | grep -o '/[^ :]*'; } | sort -u | xargs cp --parents --dereference -t ."#;

/// A configuration with which nginx runs as any user, in any container.
const NGINX: &str = "user root; daemon off; pid /var/run/nginx.pid; error_log stderr; events {}
http { access_log off; server { listen 80; location / { proxy_pass http://127.0.0.1:2368; } } }\n";

pub struct Images {
    /// An OCI layout with all images.
    layout: PathBuf,
    /// The same layout as a tar archive.
    archive: PathBuf,
}

impl Images {
    pub fn new(work: &Work) -> Self {
        let images = Self { layout: work.folder.join("images"), archive: work.folder.join("images.tar") };
        let tree = work.folder.join("root");
        rootfs(&tree, &["/usr/sbin/nginx", "/usr/bin/env"]);
        let write = |name: &str, content: &str| harness::write(&tree.join(name), content);
        write("srv/1/index.html", "application 1\n");
        write("srv/2/index.html", "application 2\n");
        write("etc/nginx/proxy.conf", NGINX);
        fs::copy(program("orphans"), tree.join("orphans")).expect("the program");

        run("umoci", &["init", "--layout", text(&images.layout)]);
        images.make("base", &tree, "/");
        let (pause, source) = (work.folder.join("pause-c"), root().join("tests/bench/pause.c"));
        run("gcc", &["-Os", "-static", "-s", "-o", text(&pause), text(&source)]);
        images.make("pause-c", &pause, "/pause");
        images.umoci("config", "pause-c", &["--config.entrypoint=/pause", "--config.user=65535:65535"]);
        // Another image for the runtimes, by its label.
        images.umoci("config", "pause-c", &["--config.label=tag=old", "--tag=old"]);
        for (tag, command) in MEMBERS {
            images.derive(tag, command);
        }
        run("tar", &["-cf", text(&images.archive), "-C", text(&images.layout), "."]);
        images
    }

    /// Makes a node that uses `pause` as its sandbox image, and has the images.
    pub fn node(&self, runtime: Runtime, pause: &str, work: &Work) -> Node {
        let mut node = Node::new(runtime, pause, work);
        self.import(&node);
        // A node that will be switched gets pause by pause-switch.
        if pause != PREVIOUS {
            self.import_pause(&node);
            if runtime == Runtime::Containerd1 {
                node.sh(&format!("{} images label {pause} io.cri-containerd.pinned=pinned", node.ctr));
                if node.is_in_cell() {
                    node.sh("pkill -x containerd");
                }
                node.start();
            }
        }
        node.read_versions();
        node
    }

    fn umoci(&self, command: &str, tag: &str, arguments: &[&str]) {
        let image = format!("{}:{tag}", text(&self.layout));
        run("umoci", &[&[command, "--image", &image], arguments].concat());
    }

    /// Adds an image that contains one file or folder.
    fn make(&self, tag: &str, from: &Path, to: &str) {
        self.umoci("new", tag, &[]);
        self.umoci("insert", tag, &[text(from), to]);
    }

    /// Adds an image with the same root filesystem. Its label gives it a digest of its own.
    fn derive(&self, tag: &str, command: &[&str]) {
        let words = command.iter().map(|word| format!("--config.cmd={word}"));
        let arguments: Vec<_> = words.chain([format!("--config.label=tag={tag}"), format!("--tag={tag}")]).collect();
        self.umoci("config", "base", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Imports our image into a node with the commands of docs/switch.md.
    pub fn import_pause(&self, node: &Node) {
        let pause = archive();
        match node.crio {
            true => node.sh(&format!("skopeo copy --quiet oci-archive:{pause} containers-storage:{PAUSE}")),
            false => node.sh(&format!("{} images import {pause}", node.ctr)),
        };
    }

    /// Imports the other images into a node.
    fn import(&self, node: &Node) {
        if !node.crio {
            let archive = self.archive.display();
            node.sh(&format!("{} images import --base-name localhost/e2e {archive}", node.ctr));
            return;
        }
        for tag in MEMBERS.iter().map(|(tag, _)| *tag).chain(["pause-c"]) {
            let from = format!("oci:{}:{tag}", self.layout.display());
            node.sh(&format!("skopeo copy --quiet {from} containers-storage:localhost/e2e:{tag}"));
        }
    }

    /// Adds the old pause and ours to the registry of a node, ours by the command of README.
    pub fn serve_pause(&self, node: &Node) {
        let (_, old) = PREVIOUS.split_once('/').expect("a host");
        push(node, &format!("oci:{}:old", self.layout.display()), old);
        let ours = format!("--all --preserve-digests oci-archive:{}", archive());
        push(node, &ours, concat!("pause:", env!("PAUSE_VERSION")));
    }

    /// Starts a registry in the cell of a node, with the images that kubeadm names: our pause, and the programs that
    /// were built.
    pub fn serve_cluster(&self, node: &Node, names: &[&str]) {
        node.cell().registry();
        for name in names.iter().filter(|name| !name.contains("coredns")) {
            let (_, path) = name.split_once('/').expect("a host");
            let program = path.split(':').next().expect("a name");
            let from = match program {
                // The command of docs/switch.md, with the archive of all platforms.
                "pause" => format!("--all --preserve-digests oci-archive:{}", archive()),
                _ => {
                    self.of_program(program);
                    format!("oci:{}:{program}", self.layout.display())
                }
            };
            push(node, &from, path);
        }
    }

    /// Makes the image of a program of a cluster.
    fn of_program(&self, name: &str) {
        // Of its module the program has the name of the last folder.
        let program = bin().join(if name == "etcd" { "server" } else { name });
        if name == "kube-proxy" {
            // With iptables: its one program under all of its names, and its extensions.
            let tree = self.layout.with_file_name("iptables");
            let extensions = run("sh", &["-c", "ls -d /usr/lib/*/xtables/*.so"]);
            rootfs(&tree, &[&["/usr/sbin/xtables-nft-multi"], &extensions.lines().collect::<Vec<_>>()[..]].concat());
            let links = "for name in iptables ip6tables; do for end in '' -save -restore; do
                ln -s xtables-nft-multi \"$1/usr/sbin/$name$end\"; done; done";
            run("sh", &["-ec", links, "sh", text(&tree)]);
            self.derive(name, &[]);
            self.umoci("insert", name, &[text(&tree), "/"]);
        } else {
            self.umoci("new", name, &[]);
        }
        self.umoci("insert", name, &[text(&program), &format!("/usr/local/bin/{name}")]);
    }
}

/// Makes a root for containers with some programs of this machine.
fn rootfs(tree: &Path, programs: &[&str]) {
    run("bash", &[&["-ec", ROOTFS, "bash", text(tree)], programs].concat());
}

/// Copies an image to the registry in the cell of a node. `from` may have options of skopeo.
fn push(node: &Node, from: &str, name: &str) {
    node.sh(&format!("skopeo copy --quiet --dest-tls-verify=false {from} docker://127.0.0.1:5000/{name}"));
}

/// The archive that scripts/image made.
pub fn archive() -> String {
    root().join("dist/pause.oci.tar").display().to_string()
}
