"""The contract of /pause (src/main.rs) as a model: the system calls of a life, one after another.

contract() yields each system call that pause must make, and is sent the answer of the kernel. It
returns the status of the exit. ANSWERS has the answers that the kernel, a seccomp profile or a
tracer may give to each, the usual one first.
"""

from dataclasses import dataclass

INT, TERM, CHLD = 2, 15, 17
EPERM, EINTR, ECHILD, EAGAIN, EINVAL, EPIPE, ENOSYS = 1, 4, 10, 11, 22, 32, 38
OUT = 4  # of poll(2); without a reader there are ERR (8) or HUP (16) beside it

WARNING = b"Warning: pause should be the first process\n"
ERROR = b"Error: infinite loop terminated\n"
ENDINGS = {
    INT: b"Shutting down, got signal: Interrupt\n",
    TERM: b"Shutting down, got signal: Terminated\n",
}

# Rows 1, 2 and 2a: what execve gave. argc 0 has a variable `-v` where argv[1] would be.
ARGUMENTS = (
    [b"/pause"],
    [b"/pause", b"-v"],
    [b"/pause", b"-V"],
    [b"/pause", b"", b"-x", b"-v", b"y"],
    [b"-v", b"x"],
    [b"/pause", b""],
    [b"/pause", b"-"],
    [b"/pause", b"-vv", b"-w", b"-\x16", b"v", b"+v"],
    [],
)


class Signal(Exception):
    """SIGINT or SIGTERM reaches its handler."""


@dataclass
class Answer:
    """What a system call returns, and what it does beside."""

    value: int
    revents: int = 0  # of ppoll
    signal: int = 0  # comes when the call returns


def errors(*numbers):
    return [Answer(-number) for number in numbers]


def interrupted(value=-EINTR):
    return [Answer(value, signal=signal) for signal in (TERM, INT)]


# All that differ from the one that counts in a single bit.
NEAR_EINTR = [EINTR ^ 1 << bit for bit in range(12) if EINTR ^ 1 << bit]
NEAR_OUT = [OUT ^ 1 << bit for bit in range(16)]
LAST = 4095  # the largest error of any system call

# A signal may come behind the calls of main, once it has a handler. None comes between ppoll and
# write of a line of main: the model of say would be the same for it.
ANSWERS = {
    "rt_sigaction": [Answer(0), *errors(EPERM, EINVAL, ENOSYS), *interrupted(0)],
    "rt_sigprocmask": [Answer(0), *errors(EPERM), *interrupted(0)],
    "getpid": [Answer(1), Answer(2), Answer(2**22), *errors(EPERM), *interrupted(1)],
    "wait4": [*errors(ECHILD), Answer(0), Answer(7), Answer(2**22), *errors(EPERM, EINTR, LAST), *interrupted(0)],
    "rt_sigtimedwait": [*interrupted(), Answer(CHLD), *errors(EINTR, EPERM, ENOSYS, LAST, *NEAR_EINTR)],
    "pause": [*interrupted(), *errors(EINTR, EPERM, ENOSYS)],
    "ppoll": [Answer(1, OUT), Answer(0), *errors(EPERM, EINTR, EINVAL), *(Answer(1, near) for near in NEAR_OUT)],
    "write": [Answer(40), Answer(0), Answer(1), *errors(EPIPE, EAGAIN, EINTR)],
    "exit_group": [Answer(0)],
}


def contract(arguments, version):
    if any(argument in (b"-v", b"-V") for argument in arguments[1:]):
        yield from say(1, b"pause %s\n" % version)
        return 0
    try:
        for status, signal in enumerate((INT, TERM, CHLD), 1):
            if (yield "rt_sigaction", signal) != 0:
                return status  # row 10
        yield ("rt_sigprocmask",)  # row 5: now a signal may come that the starter has blocked
        if (yield ("getpid",)) != 1:
            yield from say(2, WARNING)  # row 3
        woken = CHLD
        while woken in (CHLD, -EINTR):  # rows 6a and 9
            while (yield ("wait4",)) > 0:  # row 7
                pass
            woken = yield ("rt_sigtimedwait",)
        yield ("pause",)  # row 11
        yield from say(2, ERROR)
        return 42
    except Signal as signal:
        yield from say(2, ENDINGS[signal.args[0]])  # row 4
        return 0


def say(descriptor, line):
    """Row 4: only if there is room and a reader."""
    if (yield "ppoll", descriptor) == OUT:
        yield "write", descriptor, line
