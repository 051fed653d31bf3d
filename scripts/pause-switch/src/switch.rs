//! The commands. Each step says what it does before it does it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::change::Kind;
use crate::journal::{Journal, prepare};
use crate::node::{Node, output, words};
use crate::runtimes::{self, Runtime};

/// The digests, by SHA-256, of the layer of the image for this platform, and of the program in it, of the release that
/// this program is a file of. Without them nothing is compared.
const LAYER: Option<&str> = option_env!("PAUSE_LAYER");
const PROGRAM: Option<&str> = option_env!("PAUSE_PROGRAM");

/// An error with the exit status that scripts and configuration management tell apart.
#[derive(Debug)]
pub struct Coded(pub u8, String);

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Coded {}

const WRONG_USE: u8 = 2;
/// Not possible on this node.
const NOT_HERE: u8 = 3;
/// Undoing failed.
const BY_HAND: u8 = 4;

fn coded(status: u8, message: impl Into<String>) -> Error {
    Coded(status, message.into()).into()
}

pub struct Switch {
    pub node: Node,
    pub only: Option<Kind>,
    pub dry_run: bool,
    pub json: bool,
    pub limit: Duration,
    /// Set by SIGINT, SIGTERM and SIGHUP: what was begun is undone then.
    pub interrupted: Arc<AtomicBool>,
}

/// What `to` was asked for.
pub struct To<'a> {
    pub image: &'a str,
    pub archive: Option<&'a Path>,
    pub any: bool,
}

impl Switch {
    /// Says one step, or one result.
    fn say(&self, text: &str) {
        self.print(json!({"step": text}), text);
    }

    fn result(&self, changed: bool, text: &str) {
        self.print(json!({"changed": changed, "result": text}), text);
    }

    /// Whoever read it may be gone: that is no reason to stop in between.
    fn print(&self, line: Value, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = match self.json {
            true => writeln!(stdout, "{line}"),
            false => writeln!(stdout, "pause-switch: {text}"),
        };
    }

    /// Holds others off while this changes the node, and reads the journal.
    fn begin(&self, kind: Kind) -> Result<(Option<File>, Option<Journal>)> {
        if self.dry_run {
            return Ok((None, Journal::read(&self.node, kind)?));
        }
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.interrupted))?;
        }
        let folder = self.node.path("/var/lib/pause-switch")?;
        let lock = || {
            std::fs::create_dir_all(&folder)?;
            File::create(folder.join("lock"))
        };
        let lock = lock().with_context(|| folder.display().to_string())?;
        if lock.try_lock().is_err() {
            return Err(anyhow!("another pause-switch runs here: wait for its end"));
        }
        let journal = Journal::read(&self.node, kind)?;
        Journal::sweep(&self.node, kind, journal.as_ref())?;
        Ok((Some(lock), journal))
    }

    fn is_interrupted(&self) -> Result<()> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(anyhow!("it was interrupted")),
            false => Ok(()),
        }
    }

    /// Runs a command that changes the node or, in a dry run, only says it.
    fn run(&self, command: &[String]) -> Result<String> {
        self.is_interrupted()?;
        let line = command.join(" ");
        match self.dry_run {
            true => self.say(&format!("would run: {line}")),
            false => self.say(&format!("running: {line}")),
        }
        if self.dry_run { Ok(String::new()) } else { output(command) }
    }

    /// Ends unless this may ask and change the node.
    pub fn wants_root(&self) -> Result<()> {
        let uid = std::fs::metadata("/proc/self").map(|process| process.uid()).unwrap_or(0);
        match self.node.is_live && uid != 0 {
            true => Err(coded(WRONG_USE, "this wants root: run it with sudo")),
            false => Ok(()),
        }
    }

    /// The one runtime that is meant.
    fn runtime(&self) -> Result<Runtime> {
        if let Some(owner) = runtimes::owner(&self.node)? {
            return Err(coded(NOT_HERE, format!("this node's setting belongs to {owner}; nothing was changed")));
        }
        let mut found = runtimes::find(&self.node);
        match self.only {
            Some(only) => found.retain(|one| one.kind == only),
            // podman is on many nodes beside the runtime of Kubernetes.
            None if found.len() > 1 => found.retain(|one| one.kind != Kind::Podman),
            None => (),
        }
        let names: Vec<_> = found.iter().map(Runtime::name).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                let what = if self.node.is_live { "no runtime runs here" } else { "there are no files of a runtime" };
                let wanted = self.only.map(|kind| format!(" called {}", kind.name())).unwrap_or_default();
                Err(coded(NOT_HERE, format!("{what}{wanted} that this program knows")))
            }
            _ => Err(coded(
                NOT_HERE,
                format!("several runtimes are here: {}; choose one by --runtime", names.join(", ")),
            )),
        }
    }

    pub fn status(&self) -> Result<()> {
        if let Some(owner) = runtimes::owner(&self.node)? {
            self.say(&format!("the setting belongs to {owner}"));
        }
        let mut found = runtimes::find(&self.node);
        found.retain(|one| self.only.is_none_or(|only| one.kind == only));
        if found.is_empty() {
            return Err(coded(NOT_HERE, "no runtime is here that this program knows"));
        }
        for runtime in found {
            let name = runtime.name();
            let plan = runtime.plan(&self.node, "none:none", None)?;
            let configured = runtime.configured(&self.node)?;
            let effective = runtime.effective(&self.node)?.or(configured.clone());
            let image = effective.as_deref().unwrap_or("the default of the runtime");
            let file = plan.first().map(|change| change.file()).unwrap_or_default();
            self.say(&match configured {
                Some(_) => format!("{name}: {file} sets {image}"),
                None => format!("{name}: no file sets the image; {file} would; it uses {image}"),
            });
            if let Some(journal) = Journal::read(&self.node, runtime.kind)? {
                let before = journal.before_or_default();
                let state = if journal.is_complete { "switched" } else { "not finished" };
                self.say(&format!("{name}: {state} from {before} to {}", journal.after));
            }
            if !self.node.is_live || !runtime.speaks_cri() {
                continue;
            }
            now_answers(&runtime)?;
            if let Some(image) = &effective {
                self.say(&match inspect(&runtime, image) {
                    Some(info) => format!("{name}: {image} is on the node, {}", pinned(&info)),
                    None => format!("{name}: {image} is NOT on the node"),
                });
            }
            let mut images = BTreeMap::<String, usize>::new();
            for (_, (_, image)) in sandboxes(&runtime)? {
                *images.entry(image).or_default() += 1;
            }
            for (image, count) in images {
                self.say(&format!("{name}: running sandboxes of {image}: {count}"));
            }
        }
        Ok(())
    }

    pub fn to(&self, to: &To) -> Result<()> {
        let runtime = self.runtime()?;
        let kind = runtime.kind;
        let (_lock, journal) = self.begin(kind)?;
        let is_complete = journal.as_ref().is_none_or(|journal| journal.is_complete);
        let effective = if is_complete { runtime.effective(&self.node)? } else { None };
        if effective.as_deref() == Some(to.image) {
            self.result(false, &format!("unchanged: {} uses {} already", runtime.name(), to.image));
            return Ok(());
        }
        let before = match &journal {
            Some(journal) => journal.before.clone(),
            None => effective,
        };
        if self.node.is_live {
            let ready = self.preflight(&runtime, to, before.as_deref());
            ready.context("nothing was changed")?;
        }
        if let Some(journal) = &journal {
            // What was before stays what it was before the first change.
            self.say(&format!("undoing the change to {} first", journal.after));
            self.undo_files(journal, Some("pause-switch back --force sets it back"))?;
            if !self.dry_run {
                Journal::remove(&self.node, kind)?;
            }
        }
        let changes = runtime.plan(&self.node, to.image, before.as_deref())?;
        let prepared = prepare(&self.node, &changes)?;
        for (file, text, _) in &prepared {
            self.say(&format!("{file} will have the new image"));
            if self.dry_run {
                self.diff(file, Some(text))?;
            }
        }
        if self.dry_run {
            return self.end_dry_run(&runtime, None);
        }
        // The runtime still uses what the last switch has set.
        let last = journal.map(|journal| journal.after);
        let was_switched = last.is_some();
        let done = prepared.iter().map(|(_, _, done)| done.clone()).collect();
        let mut journal = Journal { kind, before, after: to.image.into(), done, is_complete: false };
        journal.write(&self.node)?;
        let daemon = runtime.containerd_of_k0s(&self.node);
        for (file, text, _) in &prepared {
            if let Err(error) = self.node.write(file, text) {
                self.undo(&runtime, &journal, was_switched)?;
                return Err(error.context("the change was undone"));
            }
        }
        if self.node.is_live
            && let Err((error, was_restarted)) = self.take(&runtime, to.image, daemon)
        {
            self.say(&format!("undoing: {error:#}"));
            self.undo(&runtime, &journal, was_restarted || was_switched)?;
            return Err(error.context("the change was undone"));
        }
        journal.is_complete = true;
        journal.write(&self.node)?;
        if let Some(last) = last.filter(|last| self.node.is_live && last != to.image) {
            let _ = self.label(&runtime, &last, "");
        }
        self.result(true, &format!("{} gives new pods {}; running pods keep theirs", runtime.name(), to.image));
        Ok(())
    }

    /// Checks, before anything is changed, that pods will start after the change and after the way back.
    fn preflight(&self, runtime: &Runtime, to: &To, before: Option<&str>) -> Result<()> {
        if !runtime.speaks_cri() {
            return Ok(());
        }
        now_answers(runtime)?;
        has_unit(runtime)?;
        if let Some(before) = before
            && inspect(runtime, before).is_none()
        {
            return Err(anyhow!(
                "the old image {before} is not on the node, so there would be no way back: pull it first"
            ));
        }
        let is_pause = |info: &Value| to.any || LAYER.is_none_or(|layer| info.to_string().contains(layer));
        // What an archive is given for is replaced if it is something else.
        let is_new = inspect(runtime, to.image).is_none_or(|info| to.archive.is_some() && !is_pause(&info));
        match to.archive {
            Some(archive) if is_new => self.import(runtime, archive, to.image)?,
            Some(_) => {
                self.say(&format!("{} is on the node already; the archive is not read", to.image));
            }
            None if is_new => drop(self.run(&runtime.crictl(&format!("pull {}", to.image)))?),
            None => (),
        }
        let is_imported = is_new && to.archive.is_some();
        if !(is_new && self.dry_run) {
            self.verify(runtime, to.image, is_pause).inspect_err(|_| {
                if is_imported {
                    let _ = runtime.ctr(&format!("images rm {}", to.image)).map(|rm| self.run(&rm));
                }
            })?;
        }
        // An import has pinned it already.
        let new = (!is_imported).then_some(to.image);
        for image in before.into_iter().chain(new) {
            self.pin(runtime, image)?;
        }
        Ok(())
    }

    /// Waits until the runtime has an image, and looks whether that is pause.
    fn verify(&self, runtime: &Runtime, image: &str, is_pause: impl Fn(&Value) -> bool) -> Result<()> {
        // The CRI plugin of containerd hears of an import by an event.
        let info = self.wait(|| {
            let info = inspect(runtime, image);
            info.with_context(|| format!("{image} is not on the node, also after the import"))
        })?;
        if !is_pause(&info) {
            return Err(anyhow!(
                "{image} is not the pause of this release for this platform: give --any to use it all the same"
            ));
        }
        Ok(())
    }

    /// Pins an image where that takes a label. cri-dockerd pins what it uses by itself, and CRI-O by a setting.
    fn pin(&self, runtime: &Runtime, image: &str) -> Result<()> {
        self.label(runtime, image, "pinned")
    }

    fn label(&self, runtime: &Runtime, image: &str, value: &str) -> Result<()> {
        let label = runtime.ctr(&format!("images label {image} io.cri-containerd.pinned={value}"));
        label.map_or(Ok(()), |label| self.run(&label).map(drop))
    }

    /// Imports an archive, and gives the image in it the name that is configured.
    fn import(&self, runtime: &Runtime, archive: &Path, image: &str) -> Result<()> {
        let archive = std::path::absolute(archive)?.display().to_string();
        let printed = self
            .run(&runtime.import(&archive, image))
            .with_context(|| format!("{archive} was not imported; has it an image for this platform?"))?;
        // "unpacking NAME (sha256:…)...done" of ctr, "Loaded image: NAME" of docker
        let name = printed.split_whitespace().find(|word| word.contains('/') && word.contains(':'));
        let name = name.unwrap_or("NAME-IN-THE-ARCHIVE");
        if name != image
            && let Some(tag) = runtime.tag(name, image)
        {
            self.run(&tag)?;
        }
        // Of an import and a tag by ctr the CRI plugin of containerd 1.7 hears nothing, and of a label it does
        // (containerd#13494).
        self.pin(runtime, image)
    }

    /// Has the runtime read the new files. The error says whether it was restarted.
    fn take(&self, runtime: &Runtime, image: &str, daemon: Option<i32>) -> Result<(), (Error, bool)> {
        let early = |error| (error, false);
        self.reload(runtime).map_err(early)?;
        let read = runtime.effective(&self.node).map_err(early)?;
        if read.as_deref() != Some(image) {
            let says = read.unwrap_or("nothing".into());
            return Err(early(anyhow!("{} reads {says} from its files, not {image}", runtime.name())));
        }
        let before = sandboxes(runtime).map_err(early)?;
        self.restart(runtime, daemon).map_err(|error| (error, true))?;
        let started_with = runtime.started_with(&self.node).map_err(|error| (error, true))?;
        if started_with.as_deref() != Some(image) {
            let says = started_with.unwrap_or("nothing".into());
            return Err((anyhow!("{} was started with {says}: a flag or a template decides", runtime.name()), true));
        }
        let after = sandboxes(runtime).map_err(|error| (error, true))?;
        let moved = before.iter().filter(|(id, (pid, _))| after.get(*id).is_none_or(|(now, _)| now != pid)).count();
        if moved > 0 {
            return Err((anyhow!("{moved} of {} sandboxes did not survive the restart", before.len()), true));
        }
        let count = before.len();
        self.say(&format!("{} answers; running sandboxes: {count}, as before", runtime.name()));
        self.say_pinned(runtime, image).map_err(|error| (error, true))
    }

    /// Says whether an image that was switched to is on the node and pinned. It fails if it is not there.
    fn say_pinned(&self, runtime: &Runtime, image: &str) -> Result<()> {
        if !runtime.speaks_cri() {
            return Ok(());
        }
        let info = inspect(runtime, image).with_context(|| format!("{image} is not on the node"))?;
        let why = match info["status"]["pinned"] == true || runtime.ctr("").is_none() {
            true => "",
            false => {
                ": this containerd ignores the label, and a kubelet may remove the image when the disk is nearly full"
            }
        };
        self.say(&format!("{image} is on the node, {}{why}", pinned(&info)));
        Ok(())
    }

    /// Has systemd read the files of units, where the setting is in one.
    fn reload(&self, runtime: &Runtime) -> Result<()> {
        runtime.reload().map_or(Ok(()), |reload| self.run(&reload).map(drop))
    }

    /// Restarts the runtime, and waits until it answers. k0s restarts its containerd, which was `daemon`, by itself.
    fn restart(&self, runtime: &Runtime, daemon: Option<i32>) -> Result<()> {
        if let Some(unit) = runtime.unit()? {
            // A unit may take as long to start as it says, or for ever.
            let limit = self.limit.as_secs();
            self.run(&words(&format!("timeout {limit} systemctl restart {unit}")))?;
        }
        if runtime.kind == Kind::K0s && !self.dry_run {
            self.say("waiting until k0s has restarted its containerd");
            self.wait(|| match runtime.containerd_of_k0s(&self.node) {
                now @ Some(_) if now != daemon => Ok(()),
                _ => Err(anyhow!("k0s has not restarted its containerd")),
            })?;
        }
        if self.dry_run { Ok(()) } else { self.answers(runtime) }
    }

    /// The commands that would follow the changes of files.
    fn end_dry_run(&self, runtime: &Runtime, unpinned: Option<&str>) -> Result<()> {
        if self.node.is_live {
            self.reload(runtime)?;
            self.restart(runtime, None)?;
            if let Some(image) = unpinned {
                self.label(runtime, image, "")?;
            }
        }
        self.result(true, "nothing was changed: this was a dry run");
        Ok(())
    }

    /// Waits until the runtime answers.
    fn answers(&self, runtime: &Runtime) -> Result<()> {
        if !runtime.speaks_cri() {
            return Ok(());
        }
        self.wait(|| now_answers(runtime))
    }

    /// Tries something until it succeeds, or until the limit has passed.
    fn wait<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            match attempt() {
                Err(_) if start.elapsed() <= self.limit => {
                    self.is_interrupted()?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                done => return done,
            }
        }
    }

    fn diff(&self, file: &str, new: Option<&str>) -> Result<()> {
        let old = self.node.read(file)?.unwrap_or_default();
        let diff = similar::TextDiff::from_lines(old.as_str(), new.unwrap_or_default());
        let to = if new.is_some() { file } else { "/dev/null" };
        let diff = diff.unified_diff().header(file, to).to_string();
        let text = if self.json { format!("{}\n", json!({"diff": diff})) } else { diff };
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }

    /// Puts the files back. With a hint, but not if somebody else has changed a setting since.
    fn undo_files(&self, journal: &Journal, hint: Option<&str>) -> Result<()> {
        if let Some(hint) = hint {
            for done in &journal.done {
                if let Some(conflict) = done.conflict(&self.node)? {
                    return Err(anyhow!("{conflict}, which is not what was set: {hint}"));
                }
            }
        }
        for done in journal.done.iter().rev() {
            let (file, text) = (done.file(), done.undone(&self.node, hint.is_none())?);
            if self.node.read(file)? == text {
                continue;
            }
            self.say(&format!("{file}: putting the setting back"));
            match &text {
                _ if self.dry_run => self.diff(file, text.as_deref())?,
                Some(text) => self.node.write(file, text)?,
                None => self.node.remove(file)?,
            }
        }
        Ok(())
    }

    /// Undoes a change that failed. If that fails too, somebody has to do it.
    fn undo(&self, runtime: &Runtime, journal: &Journal, restart: bool) -> Result<()> {
        self.interrupted.store(false, Ordering::Relaxed);
        let name = runtime.name();
        let daemon = runtime.containerd_of_k0s(&self.node);
        self.undo_files(journal, None).map_err(|error| {
            let files: Vec<_> = journal.done.iter().map(|done| done.file()).collect();
            let before = journal.before.as_deref().unwrap_or("the default");
            coded(
                BY_HAND,
                format!("undoing failed: {error:#}; set {before} in {} and restart {name}", files.join(", ")),
            )
        })?;
        let rest = || -> Result<()> {
            if self.node.is_live {
                self.reload(runtime)?;
                if restart {
                    self.restart(runtime, daemon)?;
                }
                let _ = self.label(runtime, &journal.after, "");
            }
            Journal::remove(&self.node, journal.kind)
        };
        rest().map_err(|error| {
            let what =
                format!("undoing failed: {error:#}; the files are as before: see the log of {name}, and restart it");
            coded(BY_HAND, what)
        })
    }

    pub fn back(&self, force: bool) -> Result<()> {
        let runtime = self.runtime()?;
        let (_lock, journal) = self.begin(runtime.kind)?;
        let Some(journal) = journal else {
            self.result(false, &format!("unchanged: nothing of {} was switched", runtime.name()));
            return Ok(());
        };
        if self.node.is_live && runtime.speaks_cri() {
            has_unit(&runtime)?;
            if let Some(before) = &journal.before
                && now_answers(&runtime).is_ok()
                && inspect(&runtime, before).is_none()
            {
                self.run(&runtime.crictl(&format!("pull {before}")))?;
            }
        }
        let daemon = runtime.containerd_of_k0s(&self.node);
        let hint = (!force).then_some("give --force to set it back all the same");
        self.undo_files(&journal, hint)?;
        if self.dry_run {
            return self.end_dry_run(&runtime, Some(&journal.after));
        }
        if self.node.is_live {
            let done = self.reload(&runtime).and_then(|()| self.restart(&runtime, daemon));
            done.map_err(|error| coded(BY_HAND, format!("the files are as before, but {error:#}: see its log")))?;
            let _ = self.label(&runtime, &journal.after, "");
        }
        Journal::remove(&self.node, runtime.kind)?;
        // Another setting may decide now, or there is none any more.
        let now = runtime.effective(&self.node).ok().flatten().filter(|now| !now.is_empty());
        let now = now.as_deref().unwrap_or("the default of the runtime");
        let again = if now == journal.before_or_default() { " again" } else { "" };
        self.result(true, &format!("{} gives new pods {now}{again}", runtime.name()));
        Ok(())
    }

    pub fn check(&self, pod: bool) -> Result<()> {
        if pod && !self.node.is_live {
            return Err(coded(WRONG_USE, "--pod wants a node that runs, and not --root"));
        }
        let runtime = self.runtime()?;
        let journal = Journal::read(&self.node, runtime.kind)?.context("nothing was switched here")?;
        let image = &journal.after;
        if !journal.is_complete {
            return Err(anyhow!("the switch to {image} did not end: run it again, or pause-switch back"));
        }
        let read = runtime.effective(&self.node)?.unwrap_or("the default".into());
        if read != *image {
            return Err(anyhow!("{} uses {read}, not {image}", runtime.name()));
        }
        if self.node.is_live && runtime.speaks_cri() {
            self.say_pinned(&runtime, image)?;
            if pod {
                self.start_pod(&runtime, image)?;
            }
        }
        self.result(false, &format!("the next pod gets {image}"));
        Ok(())
    }

    /// Starts a sandbox, looks at the program that holds it, and removes it.
    fn start_pod(&self, runtime: &Runtime, image: &str) -> Result<()> {
        let id = std::process::id();
        let mut config = json!({
            "metadata": {"name": format!("pause-switch-{id}"), "namespace": "default", "uid": id.to_string(), "attempt": 0},
            "linux": {"security_context": {"namespace_options": {"network": 2}}},
        });
        if runtime.uses_systemd_cgroups() {
            config["linux"]["cgroup_parent"] = "system.slice".into();
        }
        let file = std::env::temp_dir().join(format!("pause-switch-{id}.json"));
        std::fs::write(&file, config.to_string())?;
        // A kubelet removes pods that it does not know, every two seconds: then there is another attempt.
        let sum = self.wait(|| program_of_pod(runtime, &file));
        std::fs::remove_file(&file)?;
        let sum = sum?;
        if PROGRAM.is_some_and(|program| program != sum) {
            return Err(anyhow!("a new pod ran {sum}, which is not the pause of this release ({image})"));
        }
        let whose = if PROGRAM.is_some() { ", that of this release" } else { "" };
        self.say(&format!("a pod was started and removed; the SHA-256 of its pause was {sum}{whose}"));
        Ok(())
    }
}

/// The digest of the program that holds a new sandbox, which is removed again.
fn program_of_pod(runtime: &Runtime, config: &Path) -> Result<String> {
    let pod = output(&runtime.crictl(&format!("runp {}", config.display())))?;
    let look = || -> Result<String> {
        let info = output(&runtime.crictl(&format!("inspectp {pod}")))?;
        let info: Value = serde_json::from_str(&info)?;
        let pid = info["info"]["pid"].as_i64().context("the runtime does not say its PID")?;
        let start = Instant::now();
        loop {
            let program = std::fs::read(format!("/proc/{pid}/exe"));
            let sum = sha256(&program.context("the new pod has ended")?);
            // It may still be that of runc, about to start pause.
            if PROGRAM == Some(&sum) || start.elapsed() > Duration::from_secs(5) {
                return Ok(sum);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let sum = look();
    let removed = output(&runtime.crictl(&format!("rmp --force {pod}")));
    let sum = sum?;
    removed.map(|_| sum)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the runtime answers at once.
fn now_answers(runtime: &Runtime) -> Result<()> {
    let version = output(&runtime.crictl("version"));
    version.map(drop).with_context(|| format!("{} does not answer", runtime.name()))
}

/// Whether the runtime can be restarted.
fn has_unit(runtime: &Runtime) -> Result<()> {
    runtime.unit().map(drop).map_err(|error| coded(NOT_HERE, format!("{error:#}")))
}

/// What the runtime knows of an image, if it has it.
fn inspect(runtime: &Runtime, image: &str) -> Option<Value> {
    serde_json::from_str(&output(&runtime.crictl(&format!("inspecti {image}"))).ok()?).ok()
}

fn pinned(info: &Value) -> &'static str {
    if info["status"]["pinned"] == true { "pinned" } else { "not pinned" }
}

/// The running sandboxes: the PID and the image of each.
fn sandboxes(runtime: &Runtime) -> Result<BTreeMap<String, (i64, String)>> {
    if !runtime.speaks_cri() {
        return Ok(BTreeMap::new());
    }
    let list = output(&runtime.crictl("pods --state ready --quiet"))?;
    let one = |id: String| {
        let info = output(&runtime.crictl(&format!("inspectp {id}")));
        let info: Value = serde_json::from_str(&info?).context("crictl inspectp")?;
        let image = info["info"]["image"]
            .as_str()
            .or(info["info"]["runtimeSpec"]["annotations"]["io.kubernetes.cri-o.ImageName"].as_str());
        let pid = info["info"]["pid"].as_i64().unwrap_or(0);
        Ok((id, (pid, image.unwrap_or("an image that the runtime does not name").to_string())))
    };
    words(&list).into_iter().map(one).collect()
}
