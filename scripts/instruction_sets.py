"""Prints the instruction sets below the machine's own, one a line."""

from modgrad import _core

SETS = ["portable", "avx2", "avx512", "avx512bf16", "amx"]

for name in SETS[: SETS.index(_core.detected_instruction_set())]:
    print(name)
