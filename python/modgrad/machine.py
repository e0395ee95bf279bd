"""What this machine has, and what a request for it resolves to."""

from __future__ import annotations

import os
from pathlib import Path

from modgrad import _core
from modgrad.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "hip")
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


def resolve_precision(precision: str) -> str:
    """ "f32" or "bf16"; "auto" is bf16 where the processor multiplies it."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bf16" if _core.instruction_set() in _BF16_SETS else "f32"


def resolve_device(device: str) -> str:
    """ "cpu"; asking for a device that this build cannot drive is refused."""
    if device not in DEVICES:
        raise UsageError(f"--device {device} is not one of {', '.join(DEVICES)}")
    if device in ("cuda", "hip"):
        raise UsageError(
            f"--device {device}: this version of modgrad runs on the CPU only; use --device cpu"
        )
    return "cpu"


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
