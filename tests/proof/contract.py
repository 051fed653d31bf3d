"""docs/contract.md as a machine: which system call comes next, with which arguments, and what follows each answer.

A state is a tuple. `step` says what must happen in it, `check` what the arguments of each system call must be. prove.py
shows that the files do exactly this. "Row 4" is a row of docs/contract.md.
"""

from typing import Callable, NamedTuple

from claripy import And, Or, true

INT, TERM, CHLD = 2, 15, 17
EINTR = 4
STDOUT, STDERR = 1, 2
OUT = 4  # POLLOUT

WARNING = b"Warning: pause should be the first process\n"
ERROR = b"Error: infinite loop terminated\n"
SHUTDOWN = {
    INT: b"Shutting down, got signal: Interrupt\n",
    TERM: b"Shutting down, got signal: Terminated\n",
}

# The state in which the process starts, and in which the handler of a signal starts (rows 2 and 4).
START = ("handler", INT)


def version(number: str):
    """Row 1, for an argument that is -v or -V."""
    return say(STDOUT, f"pause {number}\n".encode(), ("exit", 0))


def stopped(signal: int):
    """Row 4. The mask of the handler is full: no other signal comes in between."""
    return say(STDERR, SHUTDOWN[signal], ("exit", 0))


def say(stream: int, line: bytes, then):
    """A line is written only if the kernel says that there is room for it and a reader."""
    return ("poll", stream, line, then)


class Step(NamedTuple):
    """What happens in a state."""

    call: tuple  # the system call that must come: its name, and what `check` returns of it
    may: Callable  # what the kernel may answer; an error is -1 to -4095
    then: list = []  # pairs: for which answers (and, of ppoll, for which revents), and the state that follows


def between(low: int, high: int):
    return lambda r: And(r.SGE(low), r.SLE(high))


def either(one: Callable, other: Callable):
    return lambda r: Or(one(r), other(r))


def always(*_):
    return true()


error = between(-4095, -1)
zero = between(0, 0)
pid = between(1, 2**31 - 1)


def step(state) -> Step:
    match state:
        case ("handler", signal):  # rows 4, 5, 6 and 10
            status = (INT, TERM, CHLD).index(signal) + 1
            then = {INT: ("handler", TERM), TERM: ("handler", CHLD), CHLD: ("mask",)}[signal]
            answers = [(lambda r, _: r == 0, then), (lambda r, _: r != 0, ("exit", status))]
            return Step(("rt_sigaction", signal), either(zero, error), answers)
        case ("mask",):  # row 5, and row 6a: SIGCHLD alone is blocked
            return Step(("rt_sigprocmask",), either(zero, error), [(always, ("pid",))])
        case ("pid",):  # row 3
            first = (lambda r, _: r == 1, ("wait",))
            return Step(
                ("getpid",), either(pid, error), [first, (lambda r, _: r != 1, say(STDERR, WARNING, ("wait",)))]
            )
        case ("wait",):  # rows 6a and 7: until there is no zombie
            reaped = (lambda r, _: r.SGT(0), ("wait",))
            return Step(("wait4",), either(either(zero, pid), error), [reaped, (lambda r, _: r.SLE(0), ("sleep",))])
        case ("sleep",):  # rows 6a, 9 and 11
            again = (lambda r, _: Or(r.SGE(0), r == -EINTR), ("wait",))
            refused = (lambda r, _: And(r.SLT(0), r != -EINTR), ("pause",))
            return Step(("rt_sigtimedwait",), either(between(0, 64), error), [again, refused])
        case ("pause",):  # row 11
            return Step(("pause",), either(zero, error), [(always, say(STDERR, ERROR, ("exit", 42)))])
        case ("poll", stream, line, then):
            ready = (lambda _, revents: revents == OUT, ("write", stream, line, then))
            return Step(
                ("ppoll", stream), either(between(0, 1), error), [ready, (lambda _, revents: revents != OUT, then)]
            )
        case ("write", stream, line, then):
            return Step(("write", stream, line), either(between(0, len(line)), error), [(always, then)])
        case ("exit", status):  # if it is refused, a trap
            return Step(("exit_group", status), error)


def check(name: str, arg: Callable, words: Callable, mask: Callable, text: Callable, file: range, restorer: int):
    """What a call is in terms of `step`, or False if an argument is wrong. `arg(i)` is an argument, `arg(i, 32)` one of
    which the kernel takes 32 bits. Of memory, `words` reads unsigned words (W), ints (i) and shorts (h), `mask` a set of
    signals, and `text` bytes."""
    only_child = 1 << CHLD - 1
    match name:
        case "rt_sigaction":  # for CHLD SIG_IGN, for the others a handler in the file; all signals are in its mask
            handler, flags, full = words(arg(1), "WW") + (mask(arg(1), 2 if restorer is None else 3),)
            right = handler == 1 if arg(0, 32) == CHLD else handler in file
            return right and (flags, full, arg(3)) == (restorer or 0, 2**64 - 1, 8) and (name, arg(0, 32))
        case "rt_sigprocmask":  # SIG_SETMASK
            return (arg(0, 32), arg(3), mask(arg(1), 0)) == (2, 8, only_child) and (name,)
        case "wait4":  # any child, __WALL | WNOHANG, no rusage
            return (arg(0, 32), arg(2, 32), arg(3)) == (2**32 - 1, 0x40000001, 0) and (name,)
        case "rt_sigtimedwait":  # no information, no time limit
            return (mask(arg(0), 0), arg(1), arg(2), arg(3)) == (only_child, 0, 0, 8) and (name,)
        case "ppoll":  # one descriptor, a time limit of 0, no mask
            stream, events, revents = words(arg(0), "ihh")
            right = (arg(1, 32), events, revents, arg(3)) == (1, OUT, 0, 0) and words(arg(2), "WW") == (0, 0)
            return right and (name, stream)
        case "write":
            return (name, arg(0, 32), text(arg(1), min(arg(2), 200)))
        case "exit_group":
            return (name, arg(0, 32))
        case _:  # getpid, pause
            return (name,)
