"""modgrad: small models, traced into programs that compiled code trains and scores."""

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
