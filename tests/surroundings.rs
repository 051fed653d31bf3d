//! pause needs no files, no privileges, no limits and no open descriptors.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::ptr::null;

use libc::SIGTERM;

use harness::launch::{Launch, checked, close};
use harness::measure::orphans;
use harness::programs::{host, pause};
use harness::{Folder, VERSION};

/// Asserts that pause pauses, reaps and ends as usual, and what it writes.
#[track_caller]
fn pauses(launch: Launch, stderr: &str) {
    let running = launch.init().start().ready();
    orphans(&running, 10);
    running.childless();
    running.signal(SIGTERM);
    let ended = running.end();
    assert_eq!((ended.how, ended.stderr.as_str()), (Ok(0), stderr));
}

const TERMINATED: &str = "Shutting down, got signal: Terminated\n";

limited! {
    fn needs_no_descriptor() {
        let rest = || {
            // SAFETY: a system call. The descriptor by which execve reports its error stays open.
            checked(unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) })
        };
        let launch = (0..3).fold(pause().before(rest), |launch, fd| launch.before(close(fd)));
        let running = launch.init().start().ready();
        running.signal(SIGTERM);
        assert_eq!(running.end().how, Ok(0));
    }

    /// Without RLIMIT_NOFILE `ppoll` fails with EINVAL, so nothing is written.
    ///
    /// All limits but three. With RLIMIT_AS 0 the kernel starts no program, with RLIMIT_STACK 0 it
    /// delivers no signal, and with RLIMIT_CPU 0 it kills a process at the next clock tick.
    fn needs_no_resources() {
        pauses(pause().before(no_more_than_nothing), "");
        let ended = pause().argument("-v").before(no_more_than_nothing).start().end();
        assert_eq!((ended.how, ended.stdout.as_str()), (Ok(0), ""));
    }

    #[ignore = "needs scripts/test"]
    fn needs_no_proc_and_no_writable_root() {
        let root = Folder::new("root");
        fs::copy(host(), root.join("pause")).expect("pause in it");
        pauses(Launch::new(Path::new("/pause")).before(read_only_root(&root)), TERMINATED);
    }

    #[ignore = "needs scripts/test"]
    fn needs_no_user_and_no_capability() {
        pauses(pause().before(|| nobody(65535)), TERMINATED);
    }

    /// `kubeadm upgrade` starts its health-check Job so.
    #[ignore = "needs scripts/test"]
    fn prints_its_version_as_any_user() {
        let ended = pause().argument("-v").before(|| nobody(999)).init().start().end();
        assert_eq!((ended.how, ended.stderr.as_str()), (Ok(0), ""));
        assert_eq!(ended.stdout, format!("pause {VERSION}\n"));
    }
}

/// Sets the soft and hard limits of the child to 0.
fn no_more_than_nothing() -> std::io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    (0..16)
        .filter(|resource| {
            ![libc::RLIMIT_AS, libc::RLIMIT_CPU, libc::RLIMIT_STACK].contains(resource)
        })
        // SAFETY: a system call on a struct that lives.
        .try_for_each(|resource| checked(unsafe { libc::setrlimit(resource, &none) }))
}

/// Makes `path`, read-only, the root of a new mount namespace of the child.
fn read_only_root(path: &Path) -> impl Fn() -> std::io::Result<()> + use<> {
    let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
    move || {
        let (path, none) = (path.as_ptr(), null());
        // SAFETY: system calls on strings that live.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            checked(libc::mount(none, c"/".as_ptr(), none, private, null()))?;
            checked(libc::mount(path, path, none, libc::MS_BIND, null()))?;
            let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            checked(libc::mount(none, path, none, read_only, null()))?;
            checked(libc::chroot(path))?;
            checked(libc::chdir(c"/".as_ptr()))
        }
    }
}

/// Makes the child run as a user without a name, a group or a capability.
fn nobody(id: u32) -> std::io::Result<()> {
    // SAFETY: system calls only. Leaving uid 0 drops the capabilities. The functions of the C
    // library would change the other threads of the test as well.
    unsafe {
        checked(libc::syscall(libc::SYS_setgroups, 0, null::<u32>()))?;
        checked(libc::syscall(libc::SYS_setresgid, id, id, id))?;
        checked(libc::syscall(libc::SYS_setresuid, id, id, id))?;
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}
