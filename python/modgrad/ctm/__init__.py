"""Continuous Thought Machines: the module, its losses, and when it may stop."""

from modgrad.ctm.machine import ContinuousThoughtMachine

__all__ = ["ContinuousThoughtMachine"]
