//! The images that the checks use: one root filesystem with busybox and nginx under many
//! names, and an image of a C pause as the control. Nothing is pulled from a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::Work;
use crate::node::{Node, bin};
use harness::programs::{program, root};
use harness::{run, text};

/// Our image, under the name that docs/switch.md gives it.
pub const PAUSE: &str = concat!("localhost/pause:", env!("PAUSE_VERSION"));
/// The image of `tests/bench/pause.c`, which handles SIGCHLD as upstream's pause does.
pub const C_PAUSE: &str = "localhost/e2e:pause-c";

/// The image that a node uses before it is switched: the same C pause under another name.
pub const PREVIOUS: &str = "registry.example/old/pause:3.10";

/// The tags of `localhost/e2e` for the containers of a pod, and the command of each.
const MEMBERS: [(&str, &[&str]); 6] = [
    ("rare-orphans", &["sh", "-c", "trap exit TERM; while :; do (sleep 0.5 &); sleep 10; done"]),
    ("orphans", &["sh", "-c", "trap exit TERM; while :; do (sleep 0.5 &); sleep 1; done"]),
    ("sleeper", &["sh", "-c", "trap exit TERM; sleep infinity & wait"]),
    ("web", &["nginx", "-c", "/etc/nginx/proxy.conf"]),
    ("app-1", &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/1"]),
    ("app-2", &["httpd", "-f", "-p", "127.0.0.1:2368", "-h", "/srv/2"]),
];

/// The images that critest pulls from a registry, and the command that its containers run.
/// The names are from critest's validate/consts.go and framework/util.go.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("pause:3.9", &["sleep", "infinity"]),
    ("e2e-test-images/nginx:1.14-2", &["nginx"]),
    ("e2e-test-images/httpd:2.4.39-4", &["sh", "-c", "echo httpd; exec httpd -f -h /srv/1"]),
    ("e2e-test-images/nonewprivs:1.3", &["/nonewprivs"]),
    ("k8s-staging-cri-tools/hostnet-nginx-amd64:latest", HOSTNET),
    ("k8s-staging-cri-tools/hostnet-nginx-arm64:latest", HOSTNET),
];
const HOSTNET: &[&str] = &["nginx", "-c", "/etc/nginx/hostnet.conf"];

/// Images with the same content and a shell, with the users that critest's images/build sets.
const USERS: [(&str, &str); 5] = [
    (GROUP, "1000"),
    ("k8s-staging-cri-tools/test-image-user-uid:latest", "1002"),
    ("k8s-staging-cri-tools/test-image-user-username:latest", "www-data"),
    ("k8s-staging-cri-tools/test-image-user-uid-group:latest", "1003:1004"),
    ("k8s-staging-cri-tools/test-image-user-username-group:latest", "www-data:1004"),
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
    let commands = COMMANDS.into_iter().map(|(name, command)| (name, command, ""));
    let users = USERS.into_iter().map(|(name, user)| (name, &["sh"][..], user));
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
        let images =
            Self { layout: work.folder.join("images"), archive: work.folder.join("images.tar") };
        let tree = work.folder.join("root");
        // critest needs ipcs and pgrep, which the busybox of Debian does not have; env of
        // coreutils starts a program with blocked signals.
        let web = run("sh", &["-c", "PATH=$PATH:/usr/sbin command -v nginx"]);
        let programs = [web.trim(), "/usr/bin/ipcs", "/usr/bin/pgrep", "/usr/bin/env"];
        let rootfs = root().join("scripts/engines/rootfs");
        run(text(&rootfs), &[&[text(&tree)], &programs[..]].concat());
        let write = |name: &str, content: &str| harness::write(&tree.join(name), content);
        write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
             www-data:x:33:33::/:/bin/false\ndefault-user:x:1000:1000::/:/bin/sh\n",
        );
        for name in ["kitten", "nautilus"] {
            write(&format!("srv/{name}/data.json"), &format!("{{\"image\": \"{name}.jpg\"}}\n"));
        }
        write("srv/1/index.html", "application 1\n");
        write("srv/2/index.html", "application 2\n");
        write("etc/nginx/nginx.conf", &nginx("listen 80;"));
        write("etc/nginx/hostnet.conf", &nginx("listen 12003;"));
        write(
            "etc/nginx/proxy.conf",
            &nginx("listen 80; location / { proxy_pass http://127.0.0.1:2368; }"),
        );
        fs::copy(program("orphans"), tree.join("orphans")).expect("the program");
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
        // Another image for the runtimes, by its label.
        images.umoci("config", "pause-c", &["--config.label=tag=old", "--tag=old"]);
        for (tag, command) in MEMBERS {
            images.derive(tag, command, "");
        }
        run("tar", &["-cf", text(&images.archive), "-C", text(&images.layout), "."]);
        images
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
    fn derive(&self, tag: &str, command: &[&str], user: &str) {
        let mut arguments: Vec<String> =
            command.iter().map(|word| format!("--config.cmd={word}")).collect();
        arguments.push(format!("--config.user={user}"));
        arguments.push(format!("--config.label=tag={tag}"));
        arguments.push(format!("--tag={tag}"));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.umoci("config", "base", &arguments);
    }

    /// Imports our image into a node with the commands of docs/switch.md.
    pub fn import_pause(&self, node: &Node) {
        let pause = archive();
        match node.crio {
            true => node
                .sh(&format!("skopeo copy --quiet oci-archive:{pause} containers-storage:{PAUSE}")),
            false => node.sh(&format!("{} images import {pause}", node.ctr)),
        };
    }

    /// Imports the other images into a node.
    pub fn import(&self, node: &Node) {
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

    /// Adds the image of a container to the registry of a node, as `e2e:TAG`.
    pub fn serve_member(&self, node: &Node, tag: &str) {
        push(node, &format!("oci:{}:{tag}", self.layout.display()), &format!("e2e:{tag}"));
    }

    /// The images that kubeadm names, with the host of their registry.
    pub fn of_cluster(&self) -> Vec<String> {
        let kubeadm = bin().join("kubeadm");
        let version = run(text(&kubeadm), &["version", "--output", "short"]);
        let arguments = ["config", "images", "list", "--kubernetes-version", version.trim()];
        let names = run(text(&kubeadm), &arguments);
        names.lines().map(String::from).collect()
    }

    /// Starts a registry in the cell of a node, with the images that kubeadm names. Its pause is
    /// ours, or another of these images.
    pub fn serve_cluster(&self, node: &Node, names: &[String], pause: Option<&str>) {
        node.cell().registry();
        for name in names {
            let (_, path) = name.split_once('/').expect("a host");
            let program = path.split(':').next().expect("a name");
            let program = program.rsplit('/').next().expect("a part");
            let from = match (program, pause) {
                // The command of docs/switch.md, with the archive of all platforms.
                ("pause", None) => {
                    format!("--all --preserve-digests oci-archive:{}", archive())
                }
                ("pause", Some(tag)) => format!("oci:{}:{tag}", self.layout.display()),
                _ => {
                    self.of_program(program);
                    format!("oci:{}:{program}", self.layout.display())
                }
            };
            push(node, &from, path);
        }
    }

    /// Adds to that registry stand-ins for the images that upstream's tests name, as far as specs of
    /// the conformance tests use them.
    pub fn serve_tests(&self, node: &Node) {
        let program = bin().join("e2e.test");
        for name in run(text(&program), &["--list-images"]).lines() {
            let Some((_, path)) = name.split_once("/e2e-test-images/") else {
                continue;
            };
            let tag = path.split(':').next().expect("a name");
            if !self.of_test(tag) {
                continue;
            }
            let from = format!("oci:{}:test-{tag}", self.layout.display());
            push(node, &from, &format!("e2e-test-images/{path}"));
        }
    }

    /// Makes the stand-in for an image of upstream's tests, if there is one.
    fn of_test(&self, name: &str) -> bool {
        let tag = format!("test-{name}");
        if self.has(&tag) {
            return true;
        }
        let (command, user): (&[&str], _) = match name {
            "agnhost" => (&["/agnhost", "pause"], ""),
            "busybox" | "glibc-dns-testing" => (&["sh"], ""),
            "nginx" => (&["nginx"], ""),
            "nonewprivs" => (&["/nonewprivs"], ""),
            "nonroot" => (&["id", "-u"], "1234"),
            "kitten" => (&["httpd", "-f", "-h", "/srv/kitten"], ""),
            "nautilus" => (&["httpd", "-f", "-h", "/srv/nautilus"], ""),
            "sample-apiserver" => (&["/sample-apiserver"], ""),
            _ => return false,
        };
        self.derive(&tag, command, user);
        match name {
            "agnhost" => {
                let tree = self.shell("bin/sh");
                // What upstream's image has too: a second name, and files for a server with TLS.
                let line = format!(
                    "cd {} && ln -s agnhost agnhost-2 && openssl req -x509 -newkey rsa:2048 -nodes -days 3650 \
                     -subj /CN=localhost -keyout localhost.key -out localhost.crt 2>&1",
                    text(&tree)
                );
                run("sh", &["-ec", &line]);
                self.umoci("insert", &tag, &[text(&tree), "/"]);
                self.umoci("insert", &tag, &[text(&bin().join(name)), "/agnhost"]);
                // Most pods give arguments only.
                self.umoci(
                    "config",
                    &tag,
                    &["--config.entrypoint=/agnhost", "--clear=config.cmd", "--config.cmd=pause"],
                );
            }
            // Debian's busybox has a shell that drops variables such as data-1, so that which
            // is found first is another.
            "busybox" => self.umoci("insert", &tag, &[text(&self.shell("usr/local/bin/sh")), "/"]),
            "glibc-dns-testing" => {
                self.umoci("insert", &tag, &[text(&self.shell("bin/sh")), "/"]);
            }
            // The specs of image volumes read these two files of it.
            "kitten" => {
                let tree = self.layout.with_file_name("kitten");
                let line = format!(
                    "mkdir -p {0}/etc && echo 'NAME=\"Alpine Linux\"' >{0}/etc/os-release
                     echo '{{\"image\": \"kitten.jpg\"}}' >{0}/data.json",
                    text(&tree)
                );
                run("sh", &["-ec", &line]);
                self.umoci("insert", &tag, &[text(&tree), "/"]);
            }
            "sample-apiserver" => {
                self.umoci("insert", &tag, &[text(&bin().join(name)), "/sample-apiserver"]);
                self.umoci(
                    "config",
                    &tag,
                    &["--config.entrypoint=/sample-apiserver", "--clear=config.cmd"],
                );
            }
            _ => (),
        }
        true
    }

    /// A folder with the tools that upstream's tests call, and bash as the shell at a path.
    fn shell(&self, path: &str) -> PathBuf {
        let tree = self.layout.with_file_name(path.replace('/', "-"));
        if tree.exists() {
            return tree;
        }
        let tools = [
            "/bin/bash",
            "/usr/bin/dig",
            "/usr/bin/nc.openbsd",
            "/usr/bin/curl",
            "/usr/bin/getent",
        ];
        let rootfs = root().join("scripts/engines/rootfs");
        run(text(&rootfs), &[&[text(&tree)], &tools[..]].concat());
        let line = format!(
            "mkdir -p $(dirname {path}); ln -f bin/bash {path}; mkdir -p usr/local/bin
             ln -f usr/bin/nc.openbsd usr/local/bin/nc; printf 'NAME=\"Alpine Linux\"\nID=alpine\n' >etc/os-release"
        );
        run("sh", &["-ec", &format!("cd {}; {line}", text(&tree))]);
        tree
    }

    /// Whether an image is in the layout.
    fn has(&self, tag: &str) -> bool {
        let index = fs::read_to_string(self.layout.join("index.json")).expect("an index");
        index.contains(&format!("\"{tag}\""))
    }

    /// Makes the image of a program of a cluster, if it is not there yet.
    fn of_program(&self, name: &str) {
        if self.has(name) {
            return;
        }
        let program = bin().join(name);
        let path = format!("/usr/local/bin/{name}");
        if name == "kube-proxy" {
            self.derive(name, &[], "");
            self.umoci("insert", name, &[text(&self.iptables()), "/"]);
        } else {
            self.umoci("new", name, &[]);
        }
        self.umoci("insert", name, &[text(&program), &path]);
        if name == "coredns" {
            // kubeadm's manifest has only arguments.
            self.umoci("config", name, &[&format!("--config.entrypoint={path}")]);
        }
    }

    /// A folder with iptables: its one program under all of its names, and its extensions.
    fn iptables(&self) -> PathBuf {
        let tree = self.layout.with_file_name("iptables");
        let program = "/usr/sbin/xtables-nft-multi";
        let extensions = run("sh", &["-c", "ls -d /usr/lib/*/xtables/*.so"]);
        let rootfs = root().join("scripts/engines/rootfs");
        let files: Vec<_> = [program].into_iter().chain(extensions.lines()).collect();
        run(text(&rootfs), &[&[text(&tree)], &files[..]].concat());
        for family in ["iptables", "ip6tables"] {
            for name in [family, &format!("{family}-save"), &format!("{family}-restore")] {
                std::os::unix::fs::symlink(program, tree.join("usr/sbin").join(name))
                    .expect("a link");
            }
        }
        tree
    }

    /// Imports some of the other images into podman's store.
    pub fn load(&self, podman: &str, tags: &[&str]) {
        for tag in tags {
            let from = format!("oci:{}:{tag}", self.layout.display());
            let line = format!("{podman} tag $({podman} pull --quiet {from}) localhost/e2e:{tag}");
            run("sh", &["-ec", &line]);
        }
    }

    /// Makes the images that critest pulls, if they are not there yet.
    fn of_critest(&self) {
        static MADE: Once = Once::new();
        MADE.call_once(|| {
            for (name, command, user) in critest() {
                self.derive(&tag(name), command, user);
            }
            let group = self.layout.with_file_name("group");
            let members = "root:x:0:\ndefault-user:x:1000:\nmembers:x:50000:default-user\n";
            fs::write(&group, members).expect("a file");
            self.umoci("insert", &tag(GROUP), &[text(&group), "/etc/group"]);
        });
    }

    /// Starts a registry in the cell of a node, with the images that critest pulls.
    pub fn serve(&self, node: &Node) {
        node.cell().registry();
        self.of_critest();
        for (name, _, _) in critest() {
            let from = format!("oci:{}:{}", self.layout.display(), tag(name));
            push(node, &from, name);
        }
    }
}

/// Copies an image to the registry in the cell of a node. `from` may have options of skopeo.
fn push(node: &Node, from: &str, name: &str) {
    node.sh(&format!(
        "skopeo copy --quiet --dest-tls-verify=false {from} docker://127.0.0.1:5000/{name}"
    ));
}

/// The archive that scripts/image made.
pub fn archive() -> String {
    root().join("dist/pause.oci.tar").display().to_string()
}

/// Compiles a statically linked program.
fn compile(source: &str, to: &Path) {
    let source = root().join(source);
    run("gcc", &["-Os", "-static", "-s", "-o", text(to), text(&source)]);
}
