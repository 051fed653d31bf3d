"""Runs files of dist/ through their lives in a CPU emulator, and compares each with the contract.

    lives.py VERSION ARCHITECTURE FILE

pause reads nothing but its arguments and the answers of system calls. So this program gives all
of these answers, in every combination of at most three unusual ones, and compares each system call
with the model in contract.py. It prints how many lives there were and how much of the code was
run. It ends with 1 if a life departs from the model, or if an instruction that is no trap was
never run.

The emulator is Unicorn, Debian's python3-unicorn. It has no ppc64le.
"""

import struct
import sys

import unicorn
from unicorn import UC_PROT_READ, UC_PROT_WRITE, arm64_const, arm_const, riscv_const, s390x_const, x86_const

import contract
from contract import ANSWERS, ARGUMENTS, CHLD, ENDINGS, INT, TERM

UNUSUAL = 3  # answers in a life
LONGEST = 2000  # instructions between two system calls
PAGE = 0x10000
GARBAGE = 0xA5  # in memory and registers whose content nobody promised


def numbers(sigaction, sigprocmask, sigtimedwait, getpid, wait4, pause, ppoll, write, exit_group):
    """The numbers of the system calls, as in the kernel's unistd.h."""
    whole = {"sigaction": "rt_sigaction", "sigprocmask": "rt_sigprocmask", "sigtimedwait": "rt_sigtimedwait"}
    return {number: whole.get(name, name) for name, number in locals().items() if isinstance(number, int)}


def numbered(letter, count):
    return " ".join(f"{letter}{n}" for n in range(count))


class Architecture:
    """What the kernel and the emulator know an architecture by: `names` are the registers of the
    program counter, the stack pointer, the number of a system call, its answer and its arguments;
    `general` are those whose content nobody promised at the start, and `lost` those that a system
    call changes. `call` is the instruction of a system call, and `interrupt` the emulator's number
    for it. `traps` stand where nothing comes to."""

    def __init__(
        self, machine, constants, names, general, lost, call, interrupt, calls, traps, word="<Q", restorer=0x0400_0000
    ):
        prefix = next(name for name in vars(constants) if name.endswith("_REG_INVALID"))[: -len("INVALID")]
        register = {name[len(prefix) :]: value for name, value in vars(constants).items() if name.startswith(prefix)}
        self.pc, self.sp, self.number, self.answer, *self.arguments = (register[name] for name in names.split())
        self.general, self.lost = ([register[name] for name in group.split()] for group in (general, lost))
        self.machine, self.call, self.interrupt, self.calls, self.traps = machine, call, interrupt, calls, traps
        self.word, self.restorer = word, restorer
        self.size = struct.calcsize(word)
        # Where the program is loaded and where its stack is: above 4 GiB, if Unicorn can.
        high = 0x5500_0000_0000 if self.size == 8 and constants != s390x_const else 0
        self.base, self.stack = high + PAGE, high + 4 * PAGE


GENERIC = numbers(134, 135, 137, 172, 260, None, 73, 64, 94)  # no pause(2)
ARCHITECTURES = {
    "amd64": Architecture(
        (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64), x86_const, "RIP RSP RAX RAX RDI RSI RDX R10 R8 R9",
        "RAX RBX RCX RDX RSI RDI RBP R8 R9 R10 R11 R12 R13 R14 R15", "RCX R11",
        b"\x0f\x05", None, numbers(13, 14, 128, 39, 61, 34, 271, 1, 231), [b"\x0f\x0b"],
    ),
    "arm64": Architecture(
        (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM), arm64_const, "PC SP X8 X0 X0 X1 X2 X3 X4 X5",
        numbered("X", 31), "", b"\x01\0\0\xd4", 2, GENERIC, [b"\x20\x00\x20\xd4"],
    ),
    "arm": Architecture(
        (unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB), arm_const, "PC SP R7 R0 R0 R1 R2 R3 R4 R5",
        # The traps: udf of rustix and of rustc, the filler of lld, and a nop that aligns constants.
        numbered("R", 13) + " LR", "", b"\0\xdf", 2, numbers(174, 175, 177, 20, 114, 29, 336, 4, 248),
        [b"\x10\xde", b"\xfe\xde", b"\xd4\xd4", b"\x00\xbf"], "<I",
    ),
    "riscv64": Architecture(
        (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64), riscv_const, "PC SP A7 A0 A0 A1 A2 A3 A4 A5",
        f"{numbered('A', 8)} {numbered('T', 7)} {numbered('S', 12)} RA", "", b"\x73\0\0\0", 8, GENERIC, [b"\x00\x00"],
        restorer=None,
    ),
    "s390x": Architecture(
        (unicorn.UC_ARCH_S390X, unicorn.UC_MODE_BIG_ENDIAN), s390x_const, "PC R15 R1 R2 R2 R3 R4 R5 R6 R7",
        numbered("R", 15), "", b"\x0a\0", 2, numbers(174, 175, 177, 20, 114, 29, 302, 4, 248),
        [b"\xa7\xf4\x00\x01"], ">Q",
    ),
}


class Departure(Exception):
    """A life in which pause does something else than the contract says."""


class Program:
    """A file of dist/ in the emulator."""

    def __init__(self, architecture, version, code):
        self.arch, self.version, self.code = ARCHITECTURES[architecture], version, code
        self.order = self.arch.word[0]
        self.sp = self.arch.stack + PAGE // 2  # at the start
        (self.entry,) = struct.unpack_from(self.arch.word, code, 24)  # e_entry
        self.run = set()  # the offsets of the bytes that were run
        self.cpu = unicorn.Uc(*self.arch.machine)
        # Unicorn runs nothing of s390x that is not writable too, so a write is seen by the hook.
        self.cpu.mem_map(self.arch.base, PAGE)
        text = self.arch.base, self.arch.base + PAGE
        self.cpu.hook_add(unicorn.UC_HOOK_MEM_WRITE, lambda *_: self.stop(0), None, *text)
        self.cpu.mem_write(self.arch.base, code)
        self.cpu.mem_map(self.arch.stack, PAGE, UC_PROT_READ | UC_PROT_WRITE)
        self.cpu.hook_add(unicorn.UC_HOOK_BLOCK, self.block)
        # A constant among the code counts as run when it is read.
        self.cpu.hook_add(unicorn.UC_HOOK_MEM_READ, lambda cpu, _, *where: self.block(cpu, *where), None, *text)
        if architecture == "amd64":
            self.cpu.hook_add(unicorn.UC_HOOK_INSN, lambda *_: self.stop(), None, 1, 0, x86_const.UC_X86_INS_SYSCALL)
        self.cpu.hook_add(unicorn.UC_HOOK_INTR, lambda _cpu, number, _data: self.stop(number))

    def block(self, _cpu, address, size, *_):
        self.run.update(range(address - self.arch.base, address - self.arch.base + size))

    def stop(self, interrupt=None):
        self.called = interrupt == self.arch.interrupt  # or else a trap
        self.cpu.emu_stop()

    def start(self, arguments):
        """What execve does: argc, argv, a variable `-v`, an empty auxiliary vector, and behind the
        strings the path and a null pointer. Returns the address to begin at."""
        words, strings = [len(arguments)], b""
        for word in (*arguments, None, b"-v", None, b"/pause"):
            words.append(0 if word is None else self.sp + 0x1000 + len(strings))
            strings += b"" if word is None else word + b"\0"
        words[-1:] = 0, 0
        self.cpu.mem_write(self.arch.stack, bytes([GARBAGE]) * PAGE)
        self.stack = struct.pack(f"{self.order}{len(words)}{self.arch.word[1]}", *words)
        self.stack = self.stack.ljust(0x1000, bytes([GARBAGE])) + strings + bytes(self.arch.size)
        self.cpu.mem_write(self.sp, self.stack)
        self.lose(self.arch.general)
        self.cpu.reg_write(self.arch.sp, self.sp)
        return self.arch.base + self.entry

    def system_call(self, pc):
        """Runs until a system call. Returns its name and arguments, and where to go on."""
        cpu, arch, self.called = self.cpu, self.arch, False
        try:
            cpu.emu_start(pc, 0, count=LONGEST)
        except unicorn.UcError as error:
            raise Departure(f"{error} at {cpu.reg_read(arch.pc) - self.arch.base:#x}") from error
        pc = cpu.reg_read(arch.pc)
        if arch.machine[0] in (unicorn.UC_ARCH_X86, unicorn.UC_ARCH_S390X) and self.is_call(pc):
            pc += len(arch.call)  # where Unicorn leaves it at the call
        if not self.called or not self.is_call(pc - len(arch.call)):
            raise Departure(f"no system call before {pc - self.arch.base:#x}")
        mask = 256**arch.size - 1
        name = arch.calls.get(cpu.reg_read(arch.number) & mask)
        arguments = [cpu.reg_read(register) & mask for register in arch.arguments]
        if name is None:
            raise Departure(f"an unknown system call, {cpu.reg_read(arch.number)}")
        if name == "ppoll" and not arguments[0] and "pause" not in arch.calls.values():
            name = "pause"  # rustix's, where there is no pause(2)
        return name, arguments, pc

    def is_call(self, address):
        return self.code.startswith(self.arch.call, address - self.arch.base)

    def memory(self, form, address):
        """What a system call reads."""
        try:
            return struct.unpack(self.order + form, self.cpu.mem_read(address, struct.calcsize(self.order + form)))
        except unicorn.UcError as error:
            raise Departure(f"nothing to read at {address:#x}") from error

    def result(self, address, content):
        """What a system call writes, if it is given an address for it."""
        try:
            if address:
                self.cpu.mem_write(address, content)
        except unicorn.UcError as error:
            raise Departure(f"nothing to write at {address:#x}") from error

    def decode(self, name, arguments, handlers):
        """The system call as the contract has it, with what it reads from memory. Raises Departure
        if an argument is not as it must be."""
        one, two, three, four, five, _ = arguments
        size = 8  # of a set of signals, whose words are as long as an address
        form, signals = ("Q", (1 << CHLD - 1,)) if self.arch.size == 8 else ("II", (1 << CHLD - 1, 0))
        call, good = (name,), True
        if name == "rt_sigaction":
            call += (one,)
            words = 2 if self.arch.restorer is None else 3  # handler, flags, restorer
            handler, flags, *restorer = self.memory(words * self.arch.word[1], two)
            mask = self.memory("8s", two + words * self.arch.size)
            good = (flags, mask, four) == (self.arch.restorer or 0, (b"\xff" * 8,), size) and not any(restorer)
            good &= handler == 1 if one == CHLD else handler > self.arch.base and handlers.get(INT, handler) == handler
            handlers[one] = handler
            self.result(three, bytes([GARBAGE]) * 4 * self.arch.size)  # the action before
        elif name == "rt_sigprocmask":
            good = one == 2 and self.memory(form, two) == signals and four == size
            self.result(three, bytes([GARBAGE]) * 8)  # the mask before
        elif name == "wait4":
            good = one in (256**self.arch.size - 1, 2**32 - 1) and three == 0x4000_0001 and not four
            self.result(two, bytes([GARBAGE]) * 4)  # the status
        elif name == "rt_sigtimedwait":
            good = self.memory(form, one) == signals and not two and not three and four == size
        elif name == "pause" and "pause" not in self.arch.calls.values():
            good = not (one or two or three or four)
        elif name == "ppoll":
            fd, events, revents = self.memory("ihh", one)
            good = (two, events, revents, five) == (1, contract.OUT, 0, size) and not four
            good &= self.memory(2 * self.arch.word[1], three) == (0, 0)
            call += (fd,)
        elif name == "write":
            call += (one, bytes(self.memory(f"{min(three, 100)}s", two)[0]))
        elif name == "exit_group":
            call += (one & 0xFF,)
        if not good:
            raise Departure(f"{name} with {[hex(argument) for argument in arguments]}")
        return call

    def lose(self, registers):
        for n, register in enumerate(registers):
            self.cpu.reg_write(register, int.from_bytes([GARBAGE ^ n] * self.arch.size, "big"))

    def answer(self, value):
        self.lose(self.arch.lost)
        # What is below the stack pointer a handler of a signal may have overwritten.
        self.result(self.cpu.reg_read(self.arch.sp) - 0x200, bytes([GARBAGE]) * 0x200)
        self.cpu.reg_write(self.arch.answer, value % 256**self.arch.size)

    def handle(self, handler, signal):
        """What the kernel does for a signal with a handler. Returns the address to go on at."""
        cpu, arch = self.cpu, self.arch
        sp = (cpu.reg_read(arch.sp) - 1024) // 16 * 16
        if arch.machine[0] == unicorn.UC_ARCH_X86:
            sp -= 8  # the return address
        elif arch.machine[0] == unicorn.UC_ARCH_S390X:
            sp -= 160  # where the handler saves registers
        self.lose(arch.general)
        cpu.reg_write(arch.sp, sp)
        cpu.reg_write(arch.arguments[0], signal)
        return handler

    def live(self, script):
        """Lives once. `script` has the number of each answer; where it ends the usual one, 0, is
        given. Returns how many answers there were to choose from at each call."""
        choices = [len(ARGUMENTS)]
        arguments = ARGUMENTS[script[0] if script else 0]
        model, handlers, handled = contract.contract(arguments, self.version), {}, False
        wanted, pc, ended, frames = next(model), self.start(arguments), False, set()
        while True:
            name, registers, pc = self.system_call(pc)
            call = self.decode(name, registers, handlers)
            if not handled and name not in ("ppoll", "write", "exit_group"):  # main makes this call
                frames.add(self.cpu.reg_read(self.arch.sp))
            if len(frames) > 1 or self.cpu.reg_read(self.arch.sp) % self.arch.size:
                raise Departure(f"{name} with a stack pointer that is not aligned, or not that of the call before")
            if call != wanted:
                raise Departure(f"{call}, not {wanted}")
            if ended:
                if self.cpu.mem_read(self.sp, len(self.stack)) != self.stack:
                    raise Departure("it has overwritten its arguments or environment")
                return choices
            # A signal comes only if it has a handler, and while a handler runs all are blocked.
            answers = [one for one in ANSWERS[name] if not one.signal or one.signal in handlers and not handled]
            chosen = script[len(choices)] if len(script) > len(choices) else 0
            choices.append(len(answers))
            answer = answers[chosen]
            if name == "ppoll":
                self.result(registers[0] + 6, struct.pack(self.order + "H", answer.revents))
            self.answer(answer.value)
            try:
                if answer.signal:
                    handled = True
                    pc = self.handle(handlers[answer.signal], answer.signal)
                    wanted = model.throw(contract.Signal(answer.signal))
                else:
                    wanted = model.send(answer.revents if name == "ppoll" else answer.value)
            except StopIteration as end:
                wanted, ended = ("exit_group", end.value), True
            if self.arch.machine[1] == unicorn.UC_MODE_THUMB:
                pc |= 1

    def lives(self, most):
        """All scripts of at most this many unusual answers, those with fewer first. Yields each with
        the departure, if it has one."""
        scripts = [()]
        for unusual in range(most + 1):
            longer = []
            for script in scripts:
                try:
                    choices = self.live(script)
                    yield script, None
                except Departure as departure:
                    yield script, departure
                    continue
                if unusual < most:
                    for at in range(len(script), len(choices)):
                        usual = (0,) * (at - len(script))
                        longer += [(*script, *usual, n) for n in range(1, choices[at])]
            scripts = longer

    def code_range(self):
        """Where the instructions are: between the headers and the first line."""
        lines = [b"pause %s\n" % self.version, contract.WARNING, contract.ERROR, *ENDINGS.values()]
        return self.entry & ~1, min(self.code.index(line) for line in lines)

    def left(self):
        """The offsets of the bytes that were never run and belong to no trap."""
        start, end = self.code_range()
        left, at = [], start
        while at < end:
            trap = next((trap for trap in self.arch.traps if self.code.startswith(trap, at)), b"")
            if at in self.run or not trap:
                left += [] if at in self.run else [at]
                at += 1
            else:
                at += len(trap)
        return left


def main():
    version, architecture, file = sys.argv[1:]
    with open(file, "rb") as opened:
        program = Program(architecture, version.encode(), opened.read())
    count = 0
    for script, departure in program.lives(UNUSUAL):
        count += 1
        if departure:
            sys.exit(f"{file}: with the answers {script}: {departure}")
    start, end = program.code_range()
    run = sum(at in program.run for at in range(start, end))
    print(f"{architecture}: {count} lives, none departs from the contract; {run} of {end - start} bytes of code run")
    if left := program.left():
        sys.exit(f"{file}: never run, and no trap: {', '.join(map(hex, left))}")


if __name__ == "__main__":
    main()
