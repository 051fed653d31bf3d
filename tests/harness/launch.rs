//! Starts a program, in unusual and hostile conditions if a test asks for them.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

use crate::fork::{checked, clone, pid_namespace};
use crate::running::Running;

/// A function for the child between fork and exec. It may make system calls only.
type Hook = Box<dyn Fn() -> io::Result<()>>;

/// A program, its arguments, and the conditions in which it will start.
pub struct Launch {
    runner: Vec<CString>,
    program: CString,
    /// All arguments, argv\[0\] included.
    arguments: Vec<CString>,
    init: bool,
    hooks: Vec<Hook>,
    streams: [Option<OwnedFd>; 2],
}

impl Launch {
    /// A launch of `program` with its path as argv\[0\] and no other argument.
    pub fn new(program: &Path) -> Self {
        let name = program.file_name().expect("a file");
        Self {
            runner: Vec::new(),
            program: c_string(program.as_os_str()),
            arguments: vec![c_string(name)],
            init: false,
            hooks: Vec::new(),
            streams: [None, None],
        }
    }

    /// Runs the program by `runner`, which is qemu-user.
    pub fn under(mut self, runner: &[&str]) -> Self {
        self.runner = runner.iter().map(|word| c_string(OsStr::new(word))).collect();
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(c_string(OsStr::new(argument)));
        self
    }

    /// Sets all arguments, argv\[0\] included.
    pub fn argv(mut self, argv: &[&str]) -> Self {
        self.arguments = argv.iter().map(|word| c_string(OsStr::new(word))).collect();
        self
    }

    /// Starts the program as PID 1 of a new PID namespace.
    pub fn init(mut self) -> Self {
        self.init = true;
        self
    }

    /// Adds a function that the child runs before exec, after those added earlier.
    ///
    /// # Safety
    ///
    /// The child is a fork of a process with threads, so the function may make system calls only: no allocation, and no
    /// lock, which another thread may hold.
    pub unsafe fn before(mut self, hook: impl Fn() -> io::Result<()> + 'static) -> Self {
        self.hooks.push(Box::new(hook));
        self
    }

    /// The same for the functions of this module, which make system calls only.
    fn hook(self, hook: impl Fn() -> io::Result<()> + 'static) -> Self {
        // SAFETY: see above.
        unsafe { self.before(hook) }
    }

    /// Blocks all signals.
    pub fn blocked(self) -> Self {
        self.hook(block_all_signals)
    }

    /// Ignores `signal`.
    pub fn ignoring(self, signal: i32) -> Self {
        // SAFETY: a system call; there is no handler.
        self.hook(move || checked(unsafe { libc::signal(signal, libc::SIG_IGN) } as i64))
    }

    /// Makes `signal` pending. It must be blocked.
    pub fn pending(self, signal: i32) -> Self {
        // SAFETY: system calls.
        self.hook(move || checked(unsafe { libc::kill(libc::getpid(), signal) }))
    }

    /// Closes a descriptor.
    pub fn closed(self, fd: RawFd) -> Self {
        // SAFETY: a system call. execve replaces the program that opened the descriptor.
        self.hook(move || checked(unsafe { libc::close(fd) }))
    }

    /// Gives the program a pipe as standard input whose other end stays open in itself.
    pub fn endless_input(self) -> Self {
        self.hook(|| {
            let mut ends = [0; 2];
            // SAFETY: system calls on two integers that live.
            unsafe {
                checked(libc::pipe(ends.as_mut_ptr()))?;
                checked(libc::dup2(ends[0], 0))
            }
        })
    }

    /// Gives the program `count` children that are zombies before the program starts.
    pub fn with_zombies(self, count: usize) -> Self {
        self.hook(move || (0..count).try_for_each(|_| leave_zombie(libc::SIGCHLD)))
    }

    /// Sets standard output or error (1 or 2). By default each is a pipe that [`Running`] reads.
    pub fn stream(mut self, number: usize, fd: impl Into<OwnedFd>) -> Self {
        self.streams[number - 1] = Some(fd.into());
        self
    }

    /// Installs a seccomp filter with an action for `rules`; all other calls are allowed.
    pub fn seccomp(self, action: SeccompAction, rules: Vec<(i64, Vec<SeccompRule>)>) -> Self {
        self.filter(SeccompAction::Allow, action, rules)
    }

    /// Makes one system call fail with EPERM.
    pub fn without(self, call: i64) -> Self {
        self.failing(call, libc::EPERM)
    }

    /// Makes one system call fail with `errno`.
    pub fn failing(self, call: i64, errno: i32) -> Self {
        self.seccomp(SeccompAction::Errno(errno as u32), vec![(call, vec![])])
    }

    /// Allows only these system calls and execve. Any other call kills the program.
    pub fn only(self, calls: &[i64]) -> Self {
        let calls = calls.iter().chain([&libc::SYS_execve]);
        let rules = calls.map(|call| (*call, vec![])).collect();
        self.filter(SeccompAction::KillProcess, SeccompAction::Allow, rules)
    }

    fn filter(self, otherwise: SeccompAction, action: SeccompAction, rules: Vec<(i64, Vec<SeccompRule>)>) -> Self {
        let arch = std::env::consts::ARCH.try_into().expect("an architecture");
        let filter = SeccompFilter::new(rules.into_iter().collect(), otherwise, action, arch);
        let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
        self.hook(move || seccompiler::apply_filter(&program).map_err(|_| io::Error::last_os_error()))
    }

    /// Starts the program. Panics if that fails.
    pub fn start(self) -> Running {
        self.try_start().expect("start the program")
    }

    /// Starts the program, traced by this thread, and waits until execve has stopped it.
    pub fn start_traced(self) -> Running {
        // SAFETY: a system call.
        let traced = || checked(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) });
        let running = self.hook(traced).start();
        waitpid(Pid::from_raw(running.pid()), None).expect("its stop at execve");
        running
    }

    /// Starts the program. The error is that of the hook or of execve.
    fn try_start(mut self) -> io::Result<Running> {
        let words: Vec<&CString> = match self.runner.is_empty() {
            true => self.arguments.iter().collect(),
            // qemu-user wants the path of the program where argv[0] would be.
            false => (self.runner.iter()).chain([&self.program]).chain(self.arguments.iter().skip(1)).collect(),
        };
        let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(ptr::null());
        let path = self.runner.first().unwrap_or(&self.program).as_ptr();

        let (failure, report) = pipe2(OFlag::O_CLOEXEC)?;
        let mut readers = [None, None];
        for (stream, reader) in self.streams.iter_mut().zip(&mut readers) {
            if stream.is_none() {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                (*stream, *reader) = (Some(write), Some(read));
            }
        }
        let streams = [0, 1].map(|i| self.streams[i].as_ref().expect("set above").as_raw_fd());

        let namespaces = if self.init { pid_namespace() } else { 0 };
        let flags = namespaces | libc::SIGCHLD;
        // SAFETY: the child makes system calls only, as every hook promises to.
        let pid = unsafe { clone(flags) };
        if pid == -1 && self.init {
            panic!(
                "no PID namespace can be made here ({}): run it as root, or allow user namespaces (sysctl user.max_user_namespaces)",
                io::Error::last_os_error()
            );
        }
        checked(pid)?;
        if pid == 0 {
            let failed = self.prepare(streams);
            // SAFETY: path and argv live, and a null pointer ends argv.
            let errno = match failed {
                Ok(()) => unsafe {
                    libc::execve(path, argv.as_ptr(), [ptr::null()].as_ptr());
                    *libc::__errno_location()
                },
                Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
            };
            // SAFETY: a system call on four bytes that live.
            unsafe {
                libc::write(report.as_raw_fd(), (&raw const errno).cast(), 4);
                libc::_exit(127)
            }
        }
        // From here on Drop kills and reaps the child.
        let running = Running::new(pid, readers.map(|fd| fd.map(File::from)));
        drop(report);
        drop(self);
        let mut errno = Vec::new();
        File::from(failure).read_to_end(&mut errno)?;
        match errno.try_into() {
            Ok(errno) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            Err(_) => Ok(running),
        }
    }

    fn prepare(&self, streams: [RawFd; 2]) -> io::Result<()> {
        // SAFETY: system calls on descriptors that are open.
        unsafe {
            // The child is killed when the test ends without dropping it.
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // A stop signal would be discarded in an orphaned process group (setpgid(2)), so the child gets a group of
            // its own, whose parent is the test.
            checked(libc::setpgid(0, 0))?;
            // Dispositions as in a terminal. Rust's runtime ignores SIGPIPE, a shell ignores SIGINT in background jobs,
            // and posix_spawn leaves signal 32 ignored.
            let default = [0u64; 4];
            for signal in (1..=64).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s)) {
                let (call, old) = (libc::SYS_rt_sigaction, ptr::null_mut::<u64>());
                checked(libc::syscall(call, signal, default.as_ptr(), old, 8))?;
            }
            checked(libc::dup2(streams[0], 1))?;
            checked(libc::dup2(streams[1], 2))?;
        }
        self.hooks.iter().try_for_each(|hook| hook())
    }
}

fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("no NUL")
}

/// A standard output or error (1 or 2) that takes nothing.
pub type Unwritable = fn(Launch, usize) -> Launch;

/// All standard outputs and errors that take nothing.
pub const UNWRITABLE: [Unwritable; 5] = [closed, full_device, broken_pipe, socket_without_peer, full_pipe];

fn closed(launch: Launch, number: usize) -> Launch {
    launch.closed(number as RawFd)
}

/// /dev/full: a write fails with ENOSPC.
fn full_device(launch: Launch, number: usize) -> Launch {
    let full = File::options().write(true).open("/dev/full");
    launch.stream(number, full.expect("/dev/full"))
}

/// A pipe without a reader: a write fails with EPIPE, and SIGPIPE is sent.
fn broken_pipe(launch: Launch, number: usize) -> Launch {
    // SAFETY: a system call on two integers that live.
    launch.hook(move || one_end(number, |ends| unsafe { libc::pipe(ends) }))
}

/// A socket whose other end is closed: as the pipe.
fn socket_without_peer(launch: Launch, number: usize) -> Launch {
    let pair = |ends| {
        // SAFETY: a system call on two integers that live.
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends) }
    };
    launch.hook(move || one_end(number, pair))
}

/// Makes a stream of the child one of two connected ends, and closes the other. Both are made in the child: the child
/// of a test that starts a program at this time would inherit a copy of the other end, which stays open until execve.
fn one_end(number: usize, connect: impl Fn(*mut RawFd) -> i32) -> io::Result<()> {
    let mut ends = [0; 2];
    checked(connect(ends.as_mut_ptr()))?;
    // SAFETY: system calls on descriptors that are open.
    unsafe {
        checked(libc::dup2(ends[1], number as RawFd))?;
        checked(libc::close(ends[0]))?;
        checked(libc::close(ends[1]))
    }
}

/// A full pipe, whose other end is the program's own standard input: a write never returns.
pub fn full_pipe(launch: Launch, number: usize) -> Launch {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    while nix::unistd::write(&write, &[b'.'; 4096]).is_ok() {}
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty())).expect("make it block");
    // SAFETY: a system call on two descriptors that are open.
    let launch = launch.hook(move || checked(unsafe { libc::dup2(read.as_raw_fd(), 0) }));
    launch.stream(number, write)
}

/// Blocks all signals in the child.
fn block_all_signals() -> io::Result<()> {
    // SAFETY: system calls on a set that lives.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        checked(libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()))
    }
}

/// Gives the program a child that is a zombie before the program starts, in another process group, where wait4 with 0
/// as its first argument would not find it. The exit signal, which the kernel sends to the parent, is SIGCHLD after
/// fork, and any other or none after clone.
pub fn leave_zombie(exit_signal: i32) -> io::Result<()> {
    // SAFETY: system calls only.
    unsafe {
        let pid = clone(exit_signal);
        if pid == 0 {
            libc::setpgid(0, 0);
            libc::_exit(0);
        }
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        checked(libc::waitid(libc::P_PID, pid as _, &mut info, options))
    }
}

/// Gives the program a child that sleeps until SIGTERM ends it, or the end of its parent.
pub fn leave_sleeper(exit_signal: i32) -> io::Result<i32> {
    // SAFETY: system calls only.
    unsafe {
        let pid = clone(exit_signal);
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // execve closes the pipe that reports errors to the test; this process makes no execve.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
            libc::pause();
            libc::_exit(0);
        }
        checked(pid).map(|()| pid)
    }
}

/// Makes the calling process one of a user without a name, a group or a capability.
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: system calls only. Leaving uid 0 drops the capabilities. The functions of the C library would change the
    // other threads of the test as well.
    unsafe {
        checked(libc::syscall(libc::SYS_setgroups, 0, ptr::null::<u32>()))?;
        checked(libc::syscall(libc::SYS_setresgid, id, id, id))?;
        checked(libc::syscall(libc::SYS_setresuid, id, id, id))?;
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}
