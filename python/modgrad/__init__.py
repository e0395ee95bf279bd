"""modgrad: small models, traced into programs that compiled code trains and scores.

Names are loaded when they are first used: importing the package alone costs
almost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modgrad import functional, nn, optim
    from modgrad._core import __version__
    from modgrad.errors import ModgradError
    from modgrad.program import Program, Spec, Tensor, checkgrad, spec, trace
    from modgrad.training import Training

__all__ = [
    "ModgradError",
    "Program",
    "Spec",
    "Tensor",
    "Training",
    "__version__",
    "checkgrad",
    "functional",
    "nn",
    "optim",
    "spec",
    "trace",
]

_HOMES = {
    "ModgradError": "modgrad.errors",
    "Training": "modgrad.training",
    "__version__": "modgrad._core",
    **dict.fromkeys(["Program", "Spec", "Tensor", "checkgrad", "spec", "trace"], "modgrad.program"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"modgrad.{name}")
    raise AttributeError(f"module 'modgrad' has no attribute {name!r}")
