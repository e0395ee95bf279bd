"""Who proposes experiments: one small interface, one file for each researcher."""

from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal, Researcher

__all__ = ["Briefing", "Failure", "Proposal", "Researcher"]
