//! pause needs no files, no privileges, no limits and no open descriptors.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr::null;

use harness::fork::checked;
use harness::launch::{Launch, become_user};
use harness::measure::orphans;
use harness::programs::{host, pause};
use harness::{Folder, TERMINATED, VERSION, copy_program};

/// Asserts that pause pauses, reaps and ends as usual, and what it writes.
fn pauses(launch: Launch, stderr: &str) {
    let running = launch.init().start().ready();
    orphans(&running, 10);
    running.childless();
    let ended = running.terminate();
    assert_eq!((ended.how, ended.stderr.trim_end()), (Ok(0), stderr));
}

pub fn needs_no_descriptor() {
    let rest = || {
        // SAFETY: a system call. The descriptor by which execve reports its error stays open.
        checked(unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) })
    };
    // SAFETY: a system call only.
    let launch = unsafe { pause().before(rest) };
    let launch = (0..3).fold(launch, Launch::closed);
    let running = launch.init().start().ready();
    assert_eq!(running.terminate().how, Ok(0));
}

/// Without RLIMIT_NOFILE `ppoll` fails with EINVAL, so nothing is written.
///
/// All limits but three. With RLIMIT_AS 0 the kernel starts no program, with RLIMIT_STACK 0 it delivers no signal, and
/// with RLIMIT_CPU 0 it kills a process at the next clock tick.
pub fn needs_no_resources() {
    // SAFETY: system calls only.
    let limited = |launch: Launch| unsafe { launch.before(no_more_than_nothing) };
    pauses(limited(pause()), "");
    let ended = limited(pause().argument("-v")).start().end();
    assert_eq!((ended.how, ended.stdout.as_str()), (Ok(0), ""));
}

pub fn needs_no_proc_and_no_writable_root() {
    let root = Folder::new("root");
    copy_program(&host(), &root.join("pause"));
    // SAFETY: system calls only.
    let launch = unsafe { Launch::new(Path::new("/pause")).before(read_only_root(&root)) };
    pauses(launch, TERMINATED);
}

pub fn needs_no_user_and_no_capability() {
    let folder = Folder::for_all("user");
    pauses(as_user(&folder, 65535), TERMINATED);
}

/// `kubeadm upgrade` starts its health-check Job so.
pub fn prints_its_version_as_any_user() {
    let folder = Folder::for_all("user");
    let ended = as_user(&folder, 999).argument("-v").init().start().end();
    assert_eq!((ended.how, ended.stderr.as_str()), (Ok(0), ""));
    assert_eq!(ended.stdout, format!("pause {VERSION}\n"));
}

/// Sets the soft and hard limits of the child to 0.
fn no_more_than_nothing() -> std::io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    (0..16)
        .filter(|resource| ![libc::RLIMIT_AS, libc::RLIMIT_CPU, libc::RLIMIT_STACK].contains(resource))
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

/// pause as a user without a name, a group or a capability. It is copied to a folder that every user can enter, as the
/// project may be in the home folder of root.
fn as_user(folder: &Folder, id: u32) -> Launch {
    let path = folder.join("pause");
    copy_program(&host(), &path);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
    // SAFETY: system calls only.
    unsafe { Launch::new(&path).before(move || become_user(id)) }
}
