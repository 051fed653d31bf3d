"""Proves files against contract.py: docs/proof.md says how, and what is taken for granted.

angr executes the machine code with symbols in place of each answer of the kernel, each byte of the arguments, and each
register and byte of the stack of which nothing is known. At a system call the state is generalised by the states of
earlier visits until nothing new comes: then the states are an invariant, and hold for executions of any length.
"""

import argparse, io, itertools, logging, os, random, struct, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

logging.disable(logging.ERROR)  # what angr says while it is imported
import angr, archinfo, claripy
import contract

SIZE = 0x4000  # of the stack: half of it is below the place where the process starts
ARGUMENTS = 8  # argc is at most this
NAMES = "rt_sigaction rt_sigprocmask rt_sigtimedwait getpid wait4 pause ppoll write exit_group".split()
GENERIC = (134, 135, 137, 172, 260, None, 73, 64, 94)  # arm64 and riscv64 have no pause


class Arch:
    """The registers for the number, the answer and the arguments of a system call; the numbers of NAMES; what bytes are
    that are never run; SA_RESTORER; registers that VEX counts among no others; what a frame begins below its caller."""

    def __init__(self, arch, registers, numbers, idle, word=8, order="<", restorer=0x0400_0000, more="", gap=0):
        self.arch, self.word, self.order, self.restorer, self.gap, self.more = arch, word, order, restorer, gap, more.split()
        self.number, self.answer, *self.arguments = registers.split()
        self.calls = {number: name for number, name in zip(numbers, NAMES, strict=True) if number}
        self.idle = {bytes.fromhex(code): reason for reason, codes in idle.items() for code in codes.split()}
        self.base, self.stack = (0x5500_0000_0000, 0x5600_0000_0000) if word == 8 else (0x5500_0000, 0x5600_0000)
        self.start = self.stack + SIZE // 2


POWER = {"trap": "0800e07f", "filler": "00000000", "entry by a pointer that nobody has": "00004c3c787e4238"}
ARCHES = {
    "amd64": Arch(archinfo.ArchAMD64(), "rax rax rdi rsi rdx r10 r8 r9", (13, 14, 128, 39, 61, 34, 271, 1, 231),
                  {"trap": "0f0b"}, gap=8),
    "arm64": Arch(archinfo.ArchAArch64(), "x8 x0 x0 x1 x2 x3 x4 x5", GENERIC, {"trap": "200020d4"}),
    "arm": Arch(archinfo.ArchARM(), "r7 r0 r0 r1 r2 r3 r4 r5", (174, 175, 177, 20, 114, 29, 336, 4, 248),
                {"trap": "10de fede", "filler": "d4d4 00bf"}, word=4),
    "riscv64": Arch(archinfo.ArchRISCV64(), "a7 a0 a0 a1 a2 a3 a4 a5", GENERIC, {"trap": "0000"}, restorer=None),
    "ppc64le": Arch(archinfo.ArchPPC64(archinfo.Endness.LE), "r0 r3 r3 r4 r5 r6 r7 r8",
                    (173, 174, 176, 20, 114, 29, 281, 4, 234), POWER, more="cr0_0 cr0_321 lr ctr xer_ca xer_so xer_ov", gap=160),
    "s390x": Arch(archinfo.ArchS390X(), "r1 r2 r2 r3 r4 r5 r6 r7", (174, 175, 177, 20, 114, 29, 302, 4, 248),
                  {"trap": "a7f40001"}, order=">", gap=160),
}


class Departs(Exception):
    """The file does something that the contract does not say."""


class Proof:
    """The proof of one file."""

    def __init__(self, name: str, code: bytes, version: str):
        self.name, self.a, self.code, self.version = name, ARCHES[name], code, version
        a, self.word = self.a, "Q" if self.a.word == 8 else "I"
        header = struct.unpack_from(a.order + "HHI" + 3 * self.word + "IHHH", code, 16)
        entry, headers, size, count = header[3], header[4], header[8], header[9]
        kinds = [struct.unpack_from(a.order + "I", code, headers + i * size)[0] for i in range(count)]
        if code[:4] != b"\x7fELF" or kinds.count(1) != 1:
            raise Departs(f"it has {kinds.count(1)} segments to load, and not one")
        self.file, self.entry = range(a.base, a.base + len(code)), self.offset(a.base + entry)
        texts = [contract.WARNING, contract.ERROR, *contract.SHUTDOWN.values(), b"pause "]
        self.end = min((code.find(text) for text in texts if text in code), default=len(code))
        options = {"backend": "blob", "arch": a.arch, "base_addr": a.base, "entry_point": entry}
        self.angr = angr.Project(io.BytesIO(code), main_opts=options, auto_load_libs=False, engine=None)
        other = [a.arch.register_names[offset] for offset in (a.arch.ip_offset, a.arch.sp_offset)]
        names = [register.name for register in a.arch.register_list if register.general_purpose]
        self.registers = [register for register in names if register not in other] + a.more
        self.handler, self.symbols, self.blocks, self.joins = None, 0, 0, 0
        self.run_bytes, self.compared, self.strings = set(), set(), []
        self.invariant = {}  # for a place, a stack pointer and a state: registers and stack by byte, None for anything

    def offset(self, address: int) -> int:
        """The offset in the file of an instruction. In Thumb the lowest bit of an address is no part of it."""
        return (address & ~1 if self.name == "arm" else address) - self.a.base

    def fresh(self, bits: int):
        self.symbols += 1
        return claripy.BVS(f"x{self.symbols}", bits, explicit_name=True)

    def value(self, state, expression, what: str) -> int:
        values = state.solver.eval_upto(expression, 2)
        if len(values) != 1:
            raise Departs(f"at {self.offset(state.addr):#x}: {what} is not one value: {', '.join(map(hex, values))}")
        return values[0]

    def touched(self, state, write: bool):
        """A read is of the file, the stack, or an argument up to its NUL; a write is of the stack below its start."""
        a, now = self.a, state.inspect
        at, size = (now.mem_write_address, now.mem_write_length) if write else (now.mem_read_address, now.mem_read_length)
        what = f"at {self.offset(state.addr):#x}: a {'write' if write else 'read'}"
        if not isinstance(at, int):
            if state.solver.symbolic(at):
                raise Departs(f"{what} at an address that is not known")
            at = state.solver.eval(at)
        end = at + (1 if size is None else size if isinstance(size, int) else state.solver.eval(size))
        inside = a.stack <= at and end <= (a.start if write else a.start + 0x1000)
        if not write and at in self.file and end <= self.file.stop:
            self.run_bytes.update(range(at - a.base, end - a.base))
            inside = True
        happens = True if write or now.mem_read_condition is None else now.mem_read_condition
        for string, letters in [] if write or inside else self.strings:
            if string <= at and end <= string + len(letters):
                ended = claripy.Or(claripy.false(), *[letter == 0 for letter in letters[: at - string]])
                inside = not state.solver.satisfiable([claripy.And(ended, happens)])
        if not inside:
            raise Departs(f"{what} of {end - at} bytes at {at:#x}")

    def state(self, at: int, registers, sp: int, memory=()):
        """A state in which nothing is known but what is given."""
        o, a = angr.options, self.a
        add = {o.SYMBOL_FILL_UNCONSTRAINED_MEMORY, o.SYMBOL_FILL_UNCONSTRAINED_REGISTERS, o.NO_SYMBOLIC_JUMP_RESOLUTION,
               o.CONSERVATIVE_READ_STRATEGY, o.CONSERVATIVE_WRITE_STRATEGY}
        state = self.angr.factory.blank_state(addr=at, add_options=add, remove_options={o.SIMPLIFY_MEMORY_WRITES})
        values = {name: self.fresh(getattr(state.regs, name).length) for name in self.registers}
        for name, value in [*values.items(), *registers.items()]:  # a name that is given may be another one of these
            setattr(state.regs, name, value)
        state.regs.sp = sp
        if self.name == "riscv64":
            state.registers.store("zero", claripy.BVV(0, 64))
        for address, content in [(a.base, self.code), (a.stack, self.fresh(8 * SIZE)), *memory]:
            state.memory.store(address, content)
        for event, write in (("mem_read", False), ("mem_write", True)):
            state.inspect.b(event, when=angr.BP_BEFORE, action=lambda state, write=write: self.touched(state, write))
        return state

    def run(self, state):
        """All states at the next system call. At a jump back, a state that differs from an earlier one in symbols alone
        is not run again: its symbols become anything, but for what was known at first."""
        todo, ends, seen, known, most = [state], [], set(), list(state.solver.constraints), self.blocks + 2000
        while todo:
            state = todo.pop()
            self.blocks += 1
            after = self.angr.factory.successors(state)
            if after.unconstrained_successors or self.blocks > most:
                raise Departs(f"at {self.offset(state.addr):#x}: a jump to anywhere, or a loop without a system call")
            block = after.artifacts["irsb"]
            self.run_bytes.update(range(self.offset(block.addr), self.offset(block.addr) + block.size))
            for one in after.flat_successors:
                if one.history.jumpkind.startswith("Ijk_Sys"):
                    ends.append(one)
                elif one.history.jumpkind not in ("Ijk_Boring", "Ijk_Call", "Ijk_Ret"):
                    raise Departs(f"at {self.offset(one.addr):#x}: a trap or a fault")
                elif one.addr > state.addr:
                    todo.append(one)
                else:
                    values = {name: getattr(one.regs, name).chop(8) for name in self.registers}
                    concrete = (byte.concrete_value if byte.concrete else None for all in values.values() for byte in all)
                    place = (one.addr, *concrete)
                    if place not in seen:
                        seen.add(place)
                        one.solver.reload_solver(known)
                        for name, all in values.items():
                            new = [byte if byte.concrete else self.fresh(8) for byte in all]
                            setattr(one.regs, name, claripy.Concat(*new) if len(new) > 1 else new[0])
                        todo.append(one)
        return ends

    def call(self, state):
        """The system call of a state, in the terms of contract.py."""
        a = self.a
        number = self.value(state, getattr(state.regs, a.number)[31:0], "the number of a system call")
        name = a.calls.get(number, f"system call {number}")
        arg = lambda i, bits=8 * a.word: self.value(
            state, getattr(state.regs, a.arguments[i])[bits - 1 : 0], f"argument {i} of {name}")
        text = lambda at, size: self.value(state, state.memory.load(at, size), f"memory of {name}").to_bytes(size, "big")

        def words(at, form):
            form = a.order + form.replace("W", self.word)
            return struct.unpack(form, text(at, struct.calcsize(form)))

        def mask(at, skipped):
            return int.from_bytes(text(at + skipped * a.word, 8), "big" if a.order == ">" else "little")

        if name == "ppoll" and "pause" not in a.calls.values() and not any(arg(i) for i in range(4)):
            name = "pause"
        call = contract.check(name, arg, words, mask, text, self.file, a.restorer)
        if name == "write":
            self.compared.update(range(arg(1) - a.base, arg(1) - a.base + len(call[2])))
        if name == "rt_sigaction" and call and call[1] != contract.CHLD:
            handler, _ = words(arg(1), "WW")
            call = call if self.handler in (None, handler) else False  # the same for both signals
            self.handler = handler
        return call or (name, "with other arguments or memory", *(hex(arg(i)) for i in range(4)))

    def generalise(self, state, kind):
        """A state with what is known of all visits of this place, or None if this visit shows nothing new."""
        sp = self.value(state, state.regs.sp, "the stack pointer")
        now = [byte for name in self.registers for byte in getattr(state.regs, name).chop(8)]
        now += [state.memory.load(at, 1) for at in range(sp, self.a.start)]
        old = self.invariant.get((state.addr, sp, kind), now)
        new = [o if o is not None and (o is n or (o == n).is_true()) else None for o, n in zip(old, now)]
        if old is not now and [byte is None for byte in old] == [byte is None for byte in new]:
            self.joins += 1
            return None
        self.invariant[state.addr, sp, kind] = new
        content = iter([self.fresh(8) if byte is None else byte for byte in new])
        sizes = [(name, getattr(state.regs, name).length // 8) for name in self.registers]
        registers = {name: claripy.Concat(*[next(content) for _ in range(size)]) for name, size in sizes}
        return self.state(state.addr, registers, sp, list(zip(range(sp, self.a.start), content)))

    def answer(self, state, was, kind):
        """Gives a state any answer of the kernel, with what the kernel writes. Returns the answer, and revents."""
        a, r, revents = self.a, self.fresh(8 * self.a.word), None
        state.solver.add(contract.step(kind).may(r))
        pointer = lambda i: self.value(was, getattr(was.regs, a.arguments[i]), "an address")
        if kind[0] == "poll":
            revents = claripy.If(r.SLT(0), claripy.BVV(0, 16), self.fresh(16))
            state.memory.store(pointer(0) + 6, revents, endness=a.arch.memory_endness, inspect=False)
        # The old handler, the old mask, and the status of a child.
        i, size = {"handler": (2, 3 * a.word + 8), "mask": (2, 8), "wait": (1, 4)}.get(kind[0], (0, 0))
        if size and pointer(i):
            state.memory.store(pointer(i), self.fresh(8 * size), inspect=False)
        shown = r
        if self.name == "ppc64le":  # it tells an error by the summary overflow bit, and a positive number
            state.regs.cr0_0 = claripy.If(r.SLT(0), claripy.BVV(1, 8), claripy.BVV(0, 8)) | (self.fresh(8) & 0xFE)
            shown = claripy.If(r.SLT(0), -r, r)
        if self.name == "amd64":
            state.regs.rcx, state.regs.r11 = self.fresh(64), self.fresh(64)
        setattr(state.regs, a.answer, shown)
        return r, revents

    def explore(self, start, kind):
        """Every execution from a state, until exit_group."""
        traps = [code for code, reason in self.a.idle.items() if reason == "trap"]
        work = [(state, kind) for state in self.run(start)]
        while work:
            state, kind = work.pop()
            step, got, at = contract.step(kind), self.call(state), self.offset(state.addr)
            if got != step.call:
                raise Departs(f"at {at:#x}: {show(got)}, and not {show(step.call)}")
            if got[0] == "exit_group":
                if not self.code.startswith(tuple(traps), at):
                    raise Departs(f"at {at:#x}: no trap behind exit_group")
            elif general := self.generalise(state, kind):
                r, revents = self.answer(general, state, kind)
                for answers, following in step.then:
                    one = general.copy()
                    one.solver.add(answers(r, revents))
                    if one.solver.satisfiable():
                        work += [(state, following) for state in self.run(one)]

    def begin(self, count: int, match: int):
        """The start of the process with `count` arguments, of which the last that is -v or -V is number `match`, or
        none if that is 0. Those before it may be anything."""
        a = self.a
        self.strings = [(a.start + 0x1000 + 16 * i, self.fresh(24).chop(8)) for i in range(count)]
        environment = a.start + 0x1800  # where a `-v` is no argument
        words = [count, *(at for at, _ in self.strings), 0, environment, 0]
        memory = [(a.start + a.word * i, struct.pack(a.order + self.word, word)) for i, word in enumerate(words)]
        memory += [(at, claripy.Concat(*letters)) for at, letters in self.strings] + [(environment, b"-v\0")]
        at = a.base + self.entry
        state = self.state(at | (self.name == "arm"), {"r12": at} if self.name == "ppc64le" else {}, a.start, memory)
        for i, (_, one) in enumerate(self.strings[match:], match):
            matches = claripy.And(one[0] == ord("-"), claripy.Or(one[1] == ord("v"), one[1] == ord("V")), one[2] == 0)
            if i > 0:
                state.solver.add(matches if i == match else claripy.Not(matches))
        return state

    def prove(self, progress) -> str:
        """Raises Departs, or returns what was proven."""
        began = time.time()
        self.explore(self.begin(0, 0), contract.START)
        for signal in contract.SHUTDOWN:  # at any instruction: nothing is known but the signal
            known = {self.a.arguments[0]: claripy.BVV(signal, 8 * self.a.word)}
            known |= {"r12": claripy.BVV(self.handler, 64)} if self.name == "ppc64le" else {}
            self.explore(self.state(self.handler, known, self.a.start - 0x800 - self.a.gap), contract.stopped(signal))
        for count in range(1, ARGUMENTS + 1):
            for match in range(count):
                self.explore(self.begin(count, match), contract.version(self.version) if match else contract.START)
            progress(f"{self.name}: argc {count} of {ARGUMENTS}, {self.blocks} blocks")
        idle, at = [], self.entry
        while at < self.end:
            known = next((code for code in self.a.idle if self.code.startswith(code, at)), None)
            if at not in self.run_bytes:
                if not known:
                    raise Departs(f"the byte at {at:#x} is neither run nor a trap, a constant or filler")
                idle.append(f"{at:#x} {self.a.idle[known]}")
            at += 1 if at in self.run_bytes else len(known)
        for at in range(self.end, len(self.code)):
            if at not in self.compared and self.code[at]:
                raise Departs(f"the byte at {at:#x} is in no line that is written")
        run = len(self.run_bytes & set(range(self.entry, self.end)))
        return (f"proven in {time.time() - began:.0f} s: {len(self.invariant)} states at system calls, {self.joins} visits "
                f"that showed nothing new, {self.blocks} blocks; {run} of {self.end - self.entry} bytes of code are run or "
                f"read, and {len(self.compared)} of {len(self.code) - self.end} of lines compared; never run: {', '.join(idle)}")

    def states(self):
        """The invariant: for each system call and state of the contract what is known, and ?? for any byte."""
        for (address, sp, kind), content in self.invariant.items():
            yield f"  {show(contract.step(kind).call)} at {self.offset(address):#x}"
            shown = ["??" if byte is None else f"{byte.concrete_value:02x}" if byte.concrete else "an argument" for byte in content]
            for name in self.registers:
                size = self.a.arch.registers[name][1]
                yield f"    {name}: {' '.join(shown[:size])}"
                shown = shown[size:]
            yield f"    {self.a.start - sp} bytes of the stack: {' '.join(shown)}"


def show(call) -> str:
    return f"{call[0]}({', '.join(map(str, call[1:]))})"


def prove(name: str, code: bytes, version: str, states=False, progress=lambda line: None):
    """Whether a file is proven, and what says it."""
    try:
        proof = Proof(name, code, version)
        report = proof.prove(progress)
        return True, "\n".join([report, *proof.states()] if states else [report])
    except (Departs, angr.errors.AngrError, struct.error) as error:
        return False, f"not proven: {error}"


def flip(name: str, code: bytes, version: str, at: int, bit: int) -> str:
    """What becomes of the proof if one bit of the file is another."""
    changed = code[:at] + bytes([code[at] ^ 1 << bit]) + code[at + 1 :]
    proven, line = prove(name, changed, version)
    if not proven:
        return line
    entry = Proof(name, code, version).entry
    both = [next(one for one in ARCHES[name].arch.capstone.disasm(all[entry:], entry) if at < one.address + one.size)
            for all in (code, changed)]
    return " and ".join(f"{one.mnemonic} {one.op_str}" for one in both) + ": the same"


def record(folder: Path):
    """Writes each question that Z3 is asked, and its answer, as SMT-LIB."""
    import z3

    check, count = z3.Solver.check, itertools.count()

    def recorded(solver, *assumptions):
        answer, copy = check(solver, *assumptions), z3.Solver(ctx=solver.ctx)
        copy.add(*solver.assertions(), *assumptions)
        (folder / f"{next(count):06}-{answer}.smt2").write_text(copy.to_smt2())
        return answer

    z3.Solver.check = recorded


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("version")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--states", action="store_true")
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--flips", type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--letters", action="store_true")
    options, failed = parser.parse_args(), 0
    files = [(name, Path(path).read_bytes()) for name, path in (one.split("=", 1) for one in options.files)]
    if options.queries:
        options.queries.mkdir(parents=True, exist_ok=True)
        record(options.queries)
    with ProcessPoolExecutor(1 if options.queries else os.cpu_count()) as pool:
        for name, code in files if options.flips or options.letters else []:
            chance, proof = random.Random(options.seed), Proof(name, code, options.version)
            places = [(chance.randrange(proof.entry, proof.end), chance.randrange(8)) for _ in range(options.flips or 0)]
            places = [(at, 0) for at in range(proof.end, len(code))] if options.letters else places
            print(f"{name}: seed {options.seed}, {len(places)} bits", flush=True)
            for (at, bit), result in [(one, pool.submit(flip, name, code, options.version, *one)) for one in places]:
                print(f"{name}: {at:#x} bit {bit}: {result.result()}", flush=True)
                failed += not result.result().startswith("not proven") and options.letters
        if options.flips or options.letters:
            return int(failed > 0)
        results = [(name, pool.submit(prove, name, code, options.version, options.states, say)) for name, code in files]
        for name, result in results:
            proven, line = result.result()
            print(f"{name}: {line}", flush=True)
            failed += not proven
    return int(failed > 0)


def say(line: str):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
