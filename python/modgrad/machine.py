"""What this machine has, and what a request for it resolves to."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from modgrad import _core
from modgrad.errors import MachineError, UsageError

DEVICES = ("auto", "cpu", "cuda", "hip")
# Runs the kernels of GPUs on the processor, thousands of times slower: a checking tool.
EMULATED = "emulated"
PRECISIONS = ("auto", "f32", "bf16")

# Below these, bf16 products are emulated and slower than f32 ones.
_BF16_SETS = ("avx512bf16", "amx")


def resolve_threads(threads: int | None) -> int:
    """The number of threads to use: as asked, else the cores this process may use."""
    if threads is None:
        return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if not 1 <= threads <= 1024:
        raise UsageError(f"--threads {threads} is not between 1 and 1024")
    return threads


def resolve_precision(precision: str, device: str = "cpu") -> str:
    """ "f32" or "bf16"; "auto" is bf16 where the processor or card multiplies it."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device != "cpu":
        return "f32" if device == EMULATED else "bf16"
    return "bf16" if _core.instruction_set() in _BF16_SETS else "f32"


def resolve_device(device: str) -> str:
    """The device to use, opened; one that is not there, or whose libraries are not, is
    refused in one line that names what is missing.

    "auto" is the CPU: a GPU is used where it is asked for (docs/gpu.md says why).
    """
    if device not in (*DEVICES, EMULATED):
        raise UsageError(f"--device {device} is not one of {', '.join(DEVICES)}")
    if device in ("auto", "cpu"):
        return "cpu"
    find_libraries()
    try:
        _core.open_device(device)
    except MachineError as error:
        raise UsageError(str(error)) from None
    return device


def find_libraries() -> None:
    """Tells the core where NVIDIA's packages for Python have their libraries."""
    found = importlib.util.find_spec("nvidia")
    folders = found.submodule_search_locations if found is not None else None
    _core.set_library_folders([Path(folder) for folder in folders or []])


def card_lines(device: str) -> list[str]:
    """What there is to say of "cuda" or "hip": a line for each card, the libraries that the
    first is used with and what comes of its self-test, or what is missing."""
    find_libraries()
    try:
        cards = [] if device == EMULATED else _core.cards(device)
        if not cards and device != EMULATED:
            return ["no card"]
        lines = [
            f"{card['name']}, {card['architecture']}, {card['total_bytes'] >> 20} MiB "
            f"({card['free_bytes'] >> 20} free)"
            for card in cards
        ]
        opened = _core.open_device(device)
        versions = ", ".join(f"{name} {version}" for name, version in opened["versions"])
        return [*lines, versions, *self_test_lines(device)]
    except MachineError as error:
        return [str(error).removeprefix(f"--device {device}: ")]


def self_test_lines(device: str, shown: int = 3) -> list[str]:
    """What comes of running every op on the device against the reference."""
    rows, failures, seconds = _core.self_test(device)
    if not failures:
        return [f"self-test: {2 * rows} rows of ops in f32 and bf16 pass ({seconds:.1f} s)"]
    first = [failure[:200] for failure in failures[:shown]]
    return [f"self-test: {len(failures)} of {2 * rows} rows of ops FAIL, the first:", *first]


def processor_name() -> str:
    """The processor as the system names it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return os.uname().machine if hasattr(os, "uname") else "unknown"
