"""Continuous Thought Machines: the module, its losses, and when it may stop."""

from modgrad.ctm.exits import STRATEGIES, MostCertain, at_tick, make_exit, mean_ticks
from modgrad.ctm.losses import certainty, correct_prefix, maze_losses, tick_losses, two_tick_loss
from modgrad.ctm.machine import ContinuousThoughtMachine

__all__ = [
    "STRATEGIES",
    "ContinuousThoughtMachine",
    "MostCertain",
    "at_tick",
    "certainty",
    "correct_prefix",
    "make_exit",
    "maze_losses",
    "mean_ticks",
    "tick_losses",
    "two_tick_loss",
]
