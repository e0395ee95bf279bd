"""The summary block that ends a run: what scripts grep for."""

from __future__ import annotations

import time

from modgrad import _core
from modgrad.run import Run
from modgrad.training import Training


def summary(
    run: Run,
    training: Training,
    *,
    val_bpb: float,
    n_targets: int,
    context: int,
    seed: int,
    started: float,
) -> str:
    """The block of a finished run and its score; `started` is the process's beginning by
    the monotonic clock. Raises where a figure is not finite."""
    vram = _core.peak_vram_mb()  # before products are measured, which takes memory, too
    if training.device == "cpu":
        peak = _core.measured_peak(training.threads, training.precision)
    else:
        peak = _core.device_peak(training.device, training.precision)
    rate = training.core.flops * training.steps / max(run.trained_seconds, 1e-9)
    return _core.render_summary(
        val_bpb=val_bpb,
        training_seconds=run.trained_seconds,
        total_seconds=time.monotonic() - started,
        peak_vram_mb=vram,
        mfu_percent=100.0 * rate / peak,
        total_tokens=run.tokens,
        num_steps=training.steps,
        num_params=training.parameters_count,
        peak_rss_mb=_core.peak_rss_mb(),
        device=training.device,
        threads=training.threads,
        seed=seed,
        task=run.task,
        n_targets=n_targets,
        context=context,
    )
