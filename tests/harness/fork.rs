//! System calls after which a child may make no other than system calls.

use std::io;

/// Calls fork(2) directly. The C library's function takes locks, which another thread of the test may have held when
/// the caller was forked.
///
/// # Safety
///
/// The child may make system calls only, and none for which the C library does more.
pub unsafe fn fork() -> i32 {
    // SAFETY: the caller's promise.
    unsafe { clone(libc::SIGCHLD) }
}

/// [`fork`], with new namespaces for the child and any exit signal.
///
/// # Safety
///
/// As for [`fork`].
pub unsafe fn clone(flags: i32) -> i32 {
    // SAFETY: clone without a stack and without CLONE_VM does what fork does.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32 }
}

/// The clone flags for a PID namespace. Without root they include a user namespace.
pub fn pid_namespace() -> i32 {
    // SAFETY: a system call.
    match unsafe { libc::geteuid() } {
        0 => libc::CLONE_NEWPID,
        _ => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
    }
}

/// Converts the result of a system call made after fork.
pub fn checked(result: impl Into<i64>) -> io::Result<()> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
