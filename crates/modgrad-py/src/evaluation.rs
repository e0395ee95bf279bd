//! The evaluator and the summary block.

use modgrad_training::autoresearch::{Summary, Task};
use modgrad_training::{Checkpoint, EvalOptions, Limits, eval_ffn};
use pyo3::prelude::*;
use std::path::PathBuf;

use crate::errors::{CheckpointError, EvaluationError, ModgradError};
use crate::watch::Watch;

/// Scores the checkpoint at `checkpoint` on `data` and returns the score as JSON.
///
/// `progress` is called with (batches done, batches in all).
#[pyfunction]
#[pyo3(signature = (checkpoint, data, *, threads, context=None, max_bytes=None,
                    expected_sha256=None, progress=None))]
fn evaluate_language(
    py: Python<'_>,
    checkpoint: PathBuf,
    data: &[u8],
    threads: usize,
    context: Option<usize>,
    max_bytes: Option<usize>,
    expected_sha256: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let watch = Watch::new(progress);
    let score = py.detach(|| {
        let checkpoint = Checkpoint::load(&checkpoint, &Limits::default())
            .map_err(|error| CheckpointError::new_err(error.to_string()))?;
        let options = EvalOptions {
            threads,
            context,
            max_bytes,
            expected_sha256: expected_sha256.as_deref(),
            progress: Some(&|done, total| watch.report(done, total)),
            cancelled: Some(&|| watch.cancelled()),
            ..EvalOptions::default()
        };
        eval_ffn(&checkpoint, data, &options)
            .map_err(|error| EvaluationError::new_err(error.to_string()))
    });
    watch.finish()?;
    serde_json::to_string(&score?).map_err(|error| ModgradError::new_err(error.to_string()))
}

/// The summary block that ends a run.
#[pyfunction]
#[pyo3(signature = (*, val_bpb, training_seconds, total_seconds, peak_vram_mb, mfu_percent,
                    total_tokens, num_steps, num_params, peak_rss_mb, device, threads, seed,
                    task, n_targets, context))]
fn render_summary(
    val_bpb: f64,
    training_seconds: f64,
    total_seconds: f64,
    peak_vram_mb: f64,
    mfu_percent: f64,
    total_tokens: u64,
    num_steps: u64,
    num_params: u64,
    peak_rss_mb: f64,
    device: String,
    threads: usize,
    seed: u64,
    task: &str,
    n_targets: u64,
    context: usize,
) -> PyResult<String> {
    let task = [Task::Language, Task::Mazes, Task::MazesBrain]
        .into_iter()
        .find(|known| known.to_string() == task)
        .ok_or_else(|| ModgradError::new_err(format!("`{task}` is not a task")))?;
    let summary = Summary {
        val_bpb,
        training_seconds,
        total_seconds,
        peak_vram_mb,
        mfu_percent,
        total_tokens,
        num_steps,
        num_params,
        peak_rss_mb,
        device,
        threads,
        seed,
        task,
        n_targets,
        context,
    };
    summary.render().map_err(|error| ModgradError::new_err(error.to_string()))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(evaluate_language, module)?)?;
    module.add_function(wrap_pyfunction!(render_summary, module)?)
}
