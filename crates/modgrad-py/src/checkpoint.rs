//! Checkpoints in and out.

use modgrad_training::{Checkpoint, Limits};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::arrays;
use crate::errors::CheckpointError;
use crate::program::PyProgram;

/// Writes a checkpoint in one piece, or leaves the old one whole.
///
/// `meta` is a JSON object. Returns the SHA-256 of the file.
#[pyfunction]
fn save_checkpoint(
    py: Python<'_>,
    path: PathBuf,
    programs: BTreeMap<String, PyRef<'_, PyProgram>>,
    weights: &Bound<'_, PyDict>,
    state: &Bound<'_, PyDict>,
    meta: &str,
) -> PyResult<String> {
    let meta = serde_json::from_str(meta)
        .map_err(|error| CheckpointError::new_err(format!("meta data is not JSON: {error}")))?;
    let checkpoint = Checkpoint {
        programs: programs
            .into_iter()
            .map(|(name, program)| (name, program.program.clone()))
            .collect(),
        weights: arrays::tensors(weights)?.into_iter().collect(),
        state: arrays::tensors(state)?.into_iter().collect(),
        meta,
    };
    py.detach(|| checkpoint.save(&path))
        .map_err(|error| CheckpointError::new_err(error.to_string()))
}

/// (programs, weights, state, meta as JSON).
type Loaded<'py> = (BTreeMap<String, PyProgram>, Bound<'py, PyDict>, Bound<'py, PyDict>, String);

/// Reads and verifies a checkpoint: (programs, weights, state, meta as JSON).
#[pyfunction]
fn load_checkpoint<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Loaded<'py>> {
    let checkpoint = py
        .detach(|| Checkpoint::load(&path, &Limits::default()))
        .map_err(|error| CheckpointError::new_err(error.to_string()))?;
    let programs = checkpoint
        .programs
        .into_iter()
        .map(|(name, program)| (name, PyProgram { program }))
        .collect();
    let dict = |tensors: BTreeMap<String, modgrad_graph::Tensor>| {
        let dict = PyDict::new(py);
        for (name, tensor) in tensors {
            dict.set_item(name, arrays::array(py, tensor)?)?;
        }
        PyResult::Ok(dict)
    };
    let meta = serde_json::Value::Object(checkpoint.meta).to_string();
    Ok((programs, dict(checkpoint.weights)?, dict(checkpoint.state)?, meta))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(save_checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(load_checkpoint, module)?)
}
