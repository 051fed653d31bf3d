//! pause as PID 1 of a virtual machine with a kernel of Debian, under qemu-system.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::programs::{Kernel, Platform, dist, processor, program_for, root};
use crate::{Folder, TERMINATED, VERSION, WARNING};

/// A virtual machine. `scripts/test` and `scripts/e2e kernels` put its kernel to its place.
#[derive(Clone, Copy)]
pub struct Machine {
    pub platform: &'static Platform,
    pub kernel: &'static Kernel,
}

impl Machine {
    /// The processor, as for `-cpu` of qemu.
    pub fn cpu(&self) -> &'static str {
        self.kernel.processor.unwrap_or(self.platform.qemu.cpu)
    }

    /// Boots it with pause as PID 1 and `tests/machine/init`, and checks what the console showed. Returns the kernel,
    /// the size of its pages, and what it makes of argc 0.
    pub fn check(&self) -> String {
        let console = self.boot();
        for line in [
            &format!("version: pause {VERSION} 0"),
            "version, unwritable: 0 0 0",
            &format!("not the first: 0 {WARNING};{TERMINATED};"),
            &format!("ignored: 0 {TERMINATED}"),
            "unwritable: 0 0 0",
            &format!("argc 0: 0 {TERMINATED}"),
            "signals: all 64",
            "orphans: 200",
            "woken: 0",
            "traced: 0 left, ",
            "Attempted to kill init! exitcode=0x00000000",
        ] {
            assert!(console.contains(line), "no '{line}' in:\n{console}");
        }
        // PID 1 prints its last line after everything but the kernel, and prints no warning.
        let last = format!(" times\r\n{TERMINATED}");
        assert!(console.contains(&last), "{console}");
        // The firmware may have left something before the line.
        let line = |start: &str| {
            let mut found = console.match_indices(start);
            let at = found.next().unwrap_or_else(|| panic!("no '{start}' in:\n{console}")).0;
            let line = console[at..].lines().next().expect("it begins there");
            &line[start.len()..]
        };
        let (_, arguments) = line("argc 0: ").rsplit_once('(').expect("their size");
        // Linux 5.18 and later give a program that has no argument an empty one, of one byte. So does Debian's 5.10,
        // since that change was taken over into 5.10.110.
        let argc = match arguments {
            "0 bytes of arguments)" => "argc 0 is 0",
            _ => "argc 0 becomes 1",
        };
        let (_, woken) = line("traced: ").split_once(", ").expect("how often");
        assert_ne!(woken, "woken 0 times", "they were not traced");
        let (kernel, pages) = (line("kernel: "), line("pages: "));
        let shown = format!("{kernel}, pages: {pages}, {argc}, 100 traced orphans: {woken}");
        assert!(shown.contains(self.kernel.shows), "{shown}, without '{}'", self.kernel.shows);
        shown
    }

    /// Boots it, and returns the text of its console.
    fn boot(&self) -> String {
        let Platform { architecture, qemu, .. } = self.platform;
        let machines = root().join("target/machine");
        let folder = Folder::new(self.kernel.name);
        for name in ["root/bin", "root/proc", "root/dev"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let tree = folder.join("root");
        let copy = |from: &Path, to: &str| {
            fs::copy(from, tree.join(to))
                .unwrap_or_else(|error| panic!("{}: {error}: run scripts/test", from.display()));
        };
        copy(&machines.join(architecture).join("busybox"), "bin/busybox");
        copy(&dist(architecture), "pause");
        copy(&program_for(architecture, "exec0"), "exec0");
        copy(&program_for(architecture, "orphans"), "orphans");
        copy(&root().join("tests/machine/init"), "init");
        let initramfs = folder.join("initramfs");
        let pack = "chmod 755 init bin/busybox && find . | cpio --quiet -o -H newc";
        let packed = Command::new("sh")
            .args(["-c", pack])
            .current_dir(&tree)
            .stdout(File::create(&initramfs).expect("the archive"))
            .status();
        assert!(packed.expect("sh").success(), "cpio: run scripts/test");

        let emulator = format!("qemu-system-{}", qemu.system);
        // The limit is long, as machines are emulated, perhaps on a busy host.
        let output = Command::new("timeout")
            .args(["--foreground", "--kill-after=5", "800", &emulator])
            .args(["-machine", qemu.machine, "-m", "1024"])
            .args(["-cpu", &processor(&emulator, self.cpu())])
            .args(["-no-reboot", "-nographic", "-vga", "none", "-kernel"])
            .arg(machines.join(self.kernel.name).join("vmlinuz"))
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &format!("{} panic=-1 quiet", qemu.append)])
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{emulator}: {error}: run scripts/test"));
        // What the emulator said is of interest if a check fails.
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}
