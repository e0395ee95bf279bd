"""What stops a command of the loop: one line each, and an exit code."""

from __future__ import annotations

from modgrad.errors import ModgradError, UsageError


class JournalError(ModgradError):
    """The journal cannot be trusted or written; nothing is decided from it."""


class RepositoryError(ModgradError):
    """git refused, or the repository is not as the loop left it."""


class EnvironmentFault(ModgradError):
    """The machine failed, not the candidate: no experiment is counted."""


class EvaluatorKilled(EnvironmentFault):
    """The evaluator was killed, by the machine or by what it scored."""


class PaidInVain(OSError):
    """What a researcher made could not be written; it is paid all the same."""

    def __init__(self, error: OSError, cost: float) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.cost = cost


class ResearcherError(ModgradError):
    """The researcher gave no proposal this time; ask again after a pause."""


class ResearcherGone(ModgradError):
    """The researcher will not answer again: its program is missing, say."""


__all__ = [
    "EnvironmentFault",
    "EvaluatorKilled",
    "JournalError",
    "ModgradError",
    "PaidInVain",
    "RepositoryError",
    "ResearcherError",
    "ResearcherGone",
    "UsageError",
]
