"""The exceptions of modgrad: each says in one line what is wrong and what to do."""

from modgrad._core import (
    CheckpointError,
    EvaluationError,
    MachineError,
    MazeError,
    ModgradError,
    NonFiniteError,
    ProgramError,
    ShapeError,
)


class UsageError(ModgradError):
    """An argument that cannot be honoured; commands exit with code 2."""


class DataError(ModgradError):
    """A file of training or validation data that cannot be used."""


__all__ = [
    "CheckpointError",
    "DataError",
    "EvaluationError",
    "MachineError",
    "MazeError",
    "ModgradError",
    "NonFiniteError",
    "ProgramError",
    "ShapeError",
    "UsageError",
]
