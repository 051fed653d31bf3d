//! `pause-switch --root`: what it makes of files as people have them, there and back; what happens if it is killed; and
//! what it refuses. `scripts/e2e switch` runs it on nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pause_switch::edit::Setting;

use harness::switch::{Case, cases};
use harness::{Folder, refused, run, text};

const NEW: &str = "registry.example/pause:1";

/// A node: the files below a folder.
struct Node(Folder);

impl Node {
    fn new(files: &BTreeMap<String, String>) -> Self {
        let node = Self(Folder::new("node"));
        for (path, text) in files {
            harness::write(&node.0.join(path), text);
        }
        node
    }

    /// All files, without those of the journal.
    fn files(&self) -> BTreeMap<String, String> {
        let list = run("find", &[text(&self.0), "-type", "f", "-printf", "%P\n"]);
        let names = list.lines().filter(|name| !name.starts_with("var/lib/pause-switch"));
        names.map(|name| (name.into(), fs::read_to_string(self.0.join(name)).expect(name))).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--root").arg(&*self.0).args(arguments).env("RUST_BACKTRACE", "0");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("pause-switch")
    }

    /// Runs a command that must succeed, and returns what it printed.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

fn program() -> PathBuf {
    std::env::var_os("PAUSE_SWITCH").expect("scripts/test sets PAUSE_SWITCH").into()
}

pub fn changes_the_one_setting_in_files_as_people_have_them() {
    let cases = cases();
    assert!(cases.len() > 70);
    for Case { name, files, expected } in cases {
        let node = Node::new(&files);
        let output = node.run(&["to", NEW, "--dry-run"]);
        let status = output.status.code().expect("a status");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        let diff = stdout.split_inclusive('\n').filter(|line| !line.starts_with("pause-switch: "));
        let shown = match status {
            0 => diff.collect::<String>(),
            _ => format!("exit {status}: {}", stderr.trim_start_matches("pause-switch: ")),
        };
        assert_eq!(shown, expected, "{name}");
        assert_eq!(node.files(), files, "{name}: a dry run has changed something");
        assert_eq!(node.run(&["to", NEW]).status.code(), Some(status), "{name}");
        if status == 0 {
            assert!(node.says(&["status"]).contains(NEW), "{name}");
            node.says(&["check"]);
            assert!(node.says(&["to", NEW]).contains("unchanged"), "{name}");
            // What was before is what was before the first change.
            node.says(&["to", "registry.example/pause:2"]);
            node.says(&["back"]);
            assert!(node.says(&["back"]).contains("unchanged"), "{name}");
        }
        assert_eq!(node.files(), files, "{name}: there and back is not the same");
    }
}

/// Files of lines that stand in no order: comments, tables, settings, with tabs and with CRLF.
pub fn any_file_is_the_same_after_there_and_back() {
    // Parts between bars; `\n` within a part is a line break.
    const TOML: &str = "# a comment||version = 2|[plugins]|[plugins.'io.containerd.grpc.v1.cri']|[debug]|\
        \t[plugins.\"io.containerd.grpc.v1.cri\"]|\tsandbox_image = 'a.example/old:1' # why|\
        sandbox_image = \"a.example/old:1\"|# sandbox_image = \"b\"|[plugins.'io.containerd.grpc.v1.cri'.registry]|\
        plugins = { 'io.containerd.grpc.v1.cri' = { a = 1 } }|level = \"info\" |[[array]]|imports = [\n  'a', # b\n]";
    const YAML: &str = "# a comment||pause-image: a.example/old:1|pause-image:   'a.example/old:1'  # why|é: ü|---|\
        \"pause-image\": \"a.example/old:1\"|list:\n  - pause-image: b|map: {pause-image: b}|text: |\n  pause-image: b";
    let image = ["plugins", "io.containerd.grpc.v1.cri", "sandbox_image"];
    let mut random = fastrand::Rng::with_seed(1);
    for (setting, pool) in [(Setting::toml(&image), TOML), (Setting::yaml("pause-image"), YAML)] {
        let pool: Vec<_> = pool.split('|').collect();
        let (mut changed, mut added) = (0, 0);
        for _ in 0..20_000 {
            let number = random.usize(0..7);
            let lines: Vec<_> = (0..number).map(|_| pool[random.usize(0..pool.len())]).collect();
            let end = if random.bool() { "\n" } else { "\r\n" };
            let mut file = lines.join("\n").replace('\n', end);
            if random.bool() && !file.is_empty() {
                file += end;
            }
            // Many of these are no TOML, or no YAML: they are refused.
            let Ok(Some((new, edit))) = setting.set(&file, NEW) else { continue };
            assert_eq!(setting.read(&new).expect("it is read"), Some(NEW.into()));
            for comment in ["# a comment", "# why", "# b", "# sandbox_image"] {
                assert_eq!(new.matches(comment).count(), file.matches(comment).count(), "{file:?}");
            }
            assert_eq!(edit.undo(&new).expect("it is undone"), file, "{new:?}");
            // Others go on: a line at the end, and one at the start.
            let before = format!("# later{end}");
            assert_eq!(edit.undo(&format!("{before}{new}")).expect("it is undone"), before.clone() + &file);
            changed += usize::from(edit.before.is_some());
            added += usize::from(edit.before.is_none());
        }
        assert!(changed > 300 && added > 300, "{changed} changed, {added} added");
    }
}

fn one_file(text: &str) -> BTreeMap<String, String> {
    [("etc/containerd/config.toml".to_string(), text.to_string())].into()
}

const CONFIG: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a.example/old:1\"\n";

pub fn keeps_what_others_have_changed_since() {
    let node = Node::new(&one_file(CONFIG));
    let file = node.0.join("etc/containerd/config.toml");
    let now = || fs::read_to_string(&file).expect("the file");
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(&file).expect("the file");
        fs::write(&file, text.replace(from, to)).expect("the file");
    };
    node.says(&["to", NEW]);
    edit("version = 2\n", "version = 2\n# theirs\noom_score = -999\n");
    node.says(&["back"]);
    let theirs = CONFIG.replace("version = 2\n", "version = 2\n# theirs\noom_score = -999\n");
    assert_eq!(fs::read_to_string(&file).expect("the file"), theirs);

    // Another value of the setting itself is theirs too.
    node.says(&["to", NEW]);
    edit(NEW, "a.example/theirs:1");
    let output = node.run(&["back"]);
    refused(&output, "a.example/theirs:1, which is not what was set: give --force");
    assert!(now().contains("a.example/theirs:1"));
    refused(&node.run(&["to", "a.example/pause:3"]), "pause-switch back --force sets it back");
    node.says(&["back", "--force"]);
    assert_eq!(now(), theirs);
    // Or they have taken it away.
    node.says(&["to", NEW]);
    edit(&format!("sandbox_image = \"{NEW}\"\n"), "");
    refused(&node.run(&["back"]), "is not set, which is not what was set");
    node.says(&["back", "--force"]);
    assert!(now().contains("sandbox_image = \"a.example/old:1\""));

    // A table that was added stays if others have added to it.
    let node = Node::new(&one_file("version = 2\n"));
    let file = node.0.join("etc/containerd/config.toml");
    node.says(&["to", NEW]);
    let text = fs::read_to_string(&file).expect("the file") + "enable_cdi = true\n";
    fs::write(&file, &text).expect("the file");
    node.says(&["back"]);
    let left = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n";
    assert_eq!(fs::read_to_string(&file).expect("the file"), left);
}

/// The system calls that change a file.
const CHANGES: &str = "openat,write,fsync,rename,unlink,mkdir,fchmod,chown";

/// strace kills it before its first such call, its second one and so on: the file has the old or the new image each
/// time, and the next call goes on or back.
pub fn goes_on_after_it_was_killed_at_any_step() {
    let ours = CONFIG.replace("a.example/old:1", NEW);
    for (first, then) in [("to", "to"), ("to", "back"), ("back", "back"), ("back", "to")] {
        let arguments = |command: &'static str| if command == "to" { vec!["to", NEW] } else { vec![command] };
        for killed in 0.. {
            let node = Node::new(&one_file(CONFIG));
            if first == "back" {
                node.says(&["to", NEW]);
            }
            let command = node.command(&arguments(first));
            let inject = format!("inject={CHANGES}:signal=KILL:when={}", killed + 1);
            let mut strace = Command::new("strace");
            strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={CHANGES}"), "-e", &inject]);
            let output = strace.arg(command.get_program()).args(command.get_args()).output().expect("strace");
            let files = node.files();
            let now = &files["etc/containerd/config.toml"];
            assert!([CONFIG, &ours].contains(&now.as_str()), "{first}, killed at {killed}: {now}");
            node.says(&arguments(then));
            let now = fs::read_to_string(node.0.join("etc/containerd/config.toml")).expect("the file");
            assert_eq!(now, if then == "to" { ours.clone() } else { CONFIG.into() }, "{first}, {killed}, {then}");
            node.says(&["back"]);
            assert_eq!(node.files(), one_file(CONFIG), "{first}, killed at {killed}, {then}, back");
            if output.status.success() {
                assert!(killed > 10, "killed {killed} times only");
                break;
            }
        }
    }
}

pub fn keeps_the_mode_the_owner_and_a_link_also_on_a_mount() {
    let node = Node::new(&one_file(CONFIG));
    let path = |name: &str| node.0.join(name).display().to_string();
    let file = path("etc/containerd/config.toml");
    let real = path("etc/containerd/real.toml");
    run("sh", &["-ec", &format!("mv {file} {real}; ln -s real.toml {file}; chmod 640 {real}; chown 7:8 {real}")]);
    // Not every file system has attributes.
    let has_attributes = xattr::set(&real, "user.theirs", b"kept").is_ok();
    let attribute = || xattr::get(&real, "user.theirs").expect("attributes");
    let stat = || run("stat", &["-c", "%F %a %u:%g", &file, &real]);
    let before = stat();
    assert_eq!(before.lines().last(), Some("regular file 640 7:8"));
    node.says(&["to", NEW]);
    assert_eq!(stat(), before);
    assert!(!has_attributes || attribute() == Some(b"kept".to_vec()));
    assert!(fs::read_to_string(&file).expect("the file").contains(NEW));
    // A folder that is a mount: the file above it is on another one.
    let line = "mount --bind \"$1/etc/containerd\" \"$1/etc/containerd\"; exec \"$2\" --root \"$1\" back";
    run("unshare", &["--mount", "sh", "-ec", line, "sh", text(&node.0), text(&program())]);
    assert_eq!(stat(), before);
    assert_eq!(fs::read_to_string(&file).expect("the file"), CONFIG);
}

/// Links, and paths with two dots, lead to files below the root.
pub fn stays_below_the_root() {
    let outside = Folder::new("outside");
    let other = outside.join("other.toml");
    fs::write(&other, CONFIG).expect("a file");
    let up = "../".repeat(20);
    for link in [text(&other).to_string(), format!("{up}{}", text(&other).trim_start_matches('/'))] {
        let node = Node::new(&one_file("version = 2\n"));
        let file = node.0.join("etc/containerd/config.toml");
        fs::remove_file(&file).expect("the file");
        std::os::unix::fs::symlink(&link, &file).expect("a link");
        node.run(&["to", NEW]);
        let import = format!("version = 2\nimports = [\"{link}\"]\n");
        Node::new(&one_file(&import)).says(&["to", NEW]);
        assert_eq!(fs::read_to_string(&other).expect("the other file"), CONFIG);
    }
    // A link that is right on the node.
    let node = Node::new(&[("etc/real.toml".to_string(), CONFIG.to_string())].into());
    fs::create_dir(node.0.join("etc/containerd")).expect("a folder");
    std::os::unix::fs::symlink("/etc/real.toml", node.0.join("etc/containerd/config.toml")).expect("a link");
    node.says(&["to", NEW]);
    assert!(node.files()["etc/real.toml"].contains(NEW));
}

/// One waits for no other, and nobody finds a file of two.
pub fn lets_one_run_at_a_time() {
    for _ in 0..20 {
        let node = Node::new(&one_file(CONFIG));
        let start = |name: &str| {
            let mut command = node.command(&["to", name]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pause-switch")
        };
        let names = ["a.example/one:1", "a.example/two:2", "a.example/three:3"];
        let mut running = names.map(start);
        let ended = running.each_mut().map(|one| one.wait().expect("its end").success());
        assert!(ended.contains(&true));
        let file = &node.files()["etc/containerd/config.toml"];
        assert!(names.iter().any(|name| *file == CONFIG.replace("a.example/old:1", name)), "{file}");
        node.says(&["back"]);
        assert_eq!(node.files(), one_file(CONFIG));
    }
}

pub fn refuses_bad_input() {
    let node = Node::new(&one_file(CONFIG));
    let names = "pause:1 registry.example/pause registry.example/pause@sha256:00 registry.example/Pause:1 ../pause:1 \
        a..example/pause:1 a.example:99999/pause:1 a.example//pause:1 a.example/pause-:1 a.example/pause:-1";
    let names: Vec<_> = names.split(' ').map(|name| ["to", name]).collect();
    let names = names.iter().map(|arguments| (&arguments[..], 2, "it wants "));
    let others = [
        (&["--limit", "0", "to", NEW][..], 2, "0 is not in 1.."),
        (&["to"], 2, "not provided"),
        (&["to", NEW, "--archive", "/none"], 1, "there is no such archive"),
        (&["--runtime", "rkt", "status"], 2, "it is one of: k3s"),
        (&["--runtime", "crio", "status"], 3, "no runtime is here"),
        (&["--runtime", "crio", "to", NEW], 3, "called crio"),
        (&["check"], 1, "nothing was switched here"),
        (&["check", "--pod"], 2, "--pod wants a node that runs"),
    ];
    for (arguments, status, says) in names.chain(others) {
        let output = node.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert_eq!(node.files(), one_file(CONFIG));
    }
    let mut none = Command::new(program());
    let none = none.args(["--root", "/none", "status"]).output().expect("pause-switch");
    refused(&none, "there is no such folder");
    // File systems that cannot be written, or are full.
    let in_mounts = |mounts: &str| {
        let line = format!(
            "cd \"$1\"; cp -r etc before; {mounts}; status=0
             \"$2\" --root \"$1\" to \"$3\" || status=$?
             diff -r \"$1/etc/containerd\" before/containerd >&2; rm -r before; exit $status"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-ec", &line, "sh"]).arg(&*node.0).arg(program()).arg(NEW);
        unshare.env("RUST_BACKTRACE", "0").output().expect("unshare")
    };
    let read_only = in_mounts("mount --bind . .; mount -o remount,bind,ro \"$1\"");
    refused(&read_only, "Read-only file system");
    fs::create_dir(node.0.join("var")).expect("a folder");
    let full = "head --bytes=4096 /dev/zero";
    let journal = in_mounts(&format!("mount -t tmpfs -o size=4k tmpfs var; {full} >var/full"));
    refused(&journal, "No space left on device");
    let file = in_mounts(&format!("mount -t tmpfs -o size=8k tmpfs etc; cp -r before/. etc; {full} >etc/full"));
    refused(&file, "the change was undone: /etc/containerd/config.toml: No space left on device");
    assert_eq!(node.files(), one_file(CONFIG));
    assert!(!Path::new(&node.0.join("var/lib/pause-switch/containerd.json")).exists());
    // A pipe would be waited for.
    let pipe = Node::new(&one_file(""));
    let path = pipe.0.join("etc/containerd/config.toml");
    run("sh", &["-ec", "rm $1; mkfifo $1", "sh", text(&path)]);
    refused(&pipe.run(&["to", NEW]), "/etc/containerd/config.toml is no ordinary file");
    // A journal that cannot be read says what is to be done.
    node.says(&["to", NEW]);
    fs::write(node.0.join("var/lib/pause-switch/containerd.json"), "{").expect("the journal");
    for arguments in [&["back", "--force"][..], &["to", "a.example/pause:3"], &["check"]] {
        refused(&node.run(arguments), "is broken: set the image of before by hand, and remove this file");
    }
    let output = node.run(&["--json", "back"]);
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&line["changed"], &line["status"]), (&false.into(), &1.into()));
}
