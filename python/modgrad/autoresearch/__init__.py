"""The research loop: edits, trains, scores, keeps or rolls back, for ever.

Read `loop.py` first, then `experiment.py` (what one experiment is), `journal.py`
(the truth on disk) and one researcher. `python -m modgrad.autoresearch --help`.
"""
