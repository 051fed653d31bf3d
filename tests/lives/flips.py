"""Flips single bits of the code of a file of dist/, and says how many of these programs depart from
the contract in their lives (lives.py): a measure of what the lives notice.

    flips.py VERSION ARCHITECTURE FILE COUNT SEED

COUNT bits are drawn by SEED, none twice, from what the lives of the unchanged program run: not from
traps and fillers. Prints the byte and the bit of each change that was not noticed. Most of these
change nothing that anybody could see, such as a bit that the processor ignores. Ends with 1 if
fewer than 85 in a hundred were noticed, of 100 or more.
"""

import random
import sys

from lives import Program

ENOUGH = 85  # in a hundred
UNUSUAL = 2  # answers in a life: with three no other bit was noticed, in ten times the time


def main():
    version, architecture, file, count, seed = sys.argv[1:]
    with open(file, "rb") as opened:
        code = opened.read()

    def departs(code):
        program = Program(architecture, version.encode(), code)
        return any(departure for _, departure in program.lives(UNUSUAL)), program

    departed, program = departs(code)
    if departed:
        sys.exit(f"{file} departs from the contract without any change")
    start, end = program.code_range()
    bits = [8 * at + bit for at in range(start, end) if at in program.run for bit in range(8)]
    sample = sorted(random.Random(int(seed)).sample(bits, min(int(count), len(bits))))
    unnoticed = []
    for bit in sample:
        flipped = bytearray(code)
        flipped[bit // 8] ^= 1 << bit % 8
        if not departs(bytes(flipped))[0]:
            unnoticed.append(f"{bit // 8:#x}.{bit % 8}")
    noticed = len(sample) - len(unnoticed)
    print(f"{architecture}: {noticed} of {len(sample)} flipped bits were noticed, seed {seed}")
    if unnoticed:
        print(f"{architecture}: not noticed: {' '.join(unnoticed)}")
    if len(sample) >= 100 and noticed * 100 < ENOUGH * len(sample):  # fewer fail by chance
        sys.exit(f"{architecture}: fewer than {ENOUGH} in a hundred")


if __name__ == "__main__":
    main()
