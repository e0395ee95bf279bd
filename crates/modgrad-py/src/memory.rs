//! Counted memory: its tables, and what it learns beside them.

use std::time::Duration;

use modgrad_compute::Pool;
use modgrad_ffn::memory::{CountLimits, Learned, Memory, MemoryConfig};
use modgrad_graph::tensor::{Data, Tensor};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::errors::{ProgramError, graph};

/// The counts of a text and the weights that go with them, for the op `counted_rows`.
#[pyclass(name = "CountedMemory", module = "modgrad._core")]
pub(crate) struct PyCountedMemory {
    config: MemoryConfig,
    learned: Learned,
}

#[pymethods]
impl PyCountedMemory {
    /// `config` is JSON: see `modgrad.memory`.
    #[new]
    fn new(config: &str) -> PyResult<Self> {
        let config: MemoryConfig = serde_json::from_str(config)
            .map_err(|error| ProgramError::new_err(format!("a memory is not right: {error}")))?;
        config.validate().map_err(ProgramError::new_err)?;
        let learned = Learned::new(&config);
        Ok(PyCountedMemory { config, learned })
    }

    /// (tables u8[n], bytes of the text that were counted).
    fn count<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyAny>,
        memory_bytes: usize,
        seconds: f64,
        threads: usize,
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let text = arrays::tensor("text", text)?;
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| ProgramError::new_err(format!("`seconds`: {error}")))?;
        let count = || {
            let limits = CountLimits { memory: memory_bytes, time };
            let memory = Memory::count(&Pool::new(threads), &self.config, text.bytes(), limits)?;
            Ok((memory.to_bytes(), memory.counted()))
        };
        let (tables, counted) =
            py.detach(count).map_err(|error: String| ProgramError::new_err(error))?;
        let tables = Tensor::new([tables.len()], Data::U8(tables)).map_err(graph)?;
        Ok((arrays::array(py, tables)?, counted))
    }

    /// `back_off` f32[X] and `mixer` f32[Y], as the op takes them.
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let weights = self.learned.weights();
        dict(py, &[("back_off", weights.back_off), ("mixer", weights.mixer)])
    }

    /// Learns from the op's output `lessons` f32[B, L].
    fn learn(&mut self, lessons: &Bound<'_, PyAny>) -> PyResult<()> {
        let lessons = arrays::tensor("lessons", lessons)?;
        self.learned.learn(floats(&lessons)?);
        Ok(())
    }

    /// What an exact continuation needs.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let [logits, information] = self.learned.state();
        let mixer = self.learned.weights().mixer;
        dict(py, &[("logits", logits), ("information", information), ("mixer", mixer)])
    }

    /// Continues from what `state` gave.
    fn restore(
        &mut self,
        logits: &Bound<'_, PyAny>,
        information: &Bound<'_, PyAny>,
        mixer: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let read = |name, array| arrays::tensor(name, array);
        let (logits, information) = (read("logits", logits)?, read("information", information)?);
        let mixer = read("mixer", mixer)?;
        let state = [floats(&logits)?, floats(&information)?];
        self.learned.restore(state, floats(&mixer)?).map_err(ProgramError::new_err)
    }
}

fn floats(tensor: &Tensor) -> PyResult<&[f32]> {
    tensor.as_f32().ok_or_else(|| ProgramError::new_err("expected an array of float32"))
}

fn dict<'py>(py: Python<'py>, arrays: &[(&str, &[f32])]) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    for (name, values) in arrays {
        let tensor = Tensor::f32([values.len()], values.to_vec()).map_err(graph)?;
        result.set_item(name, arrays::array(py, tensor)?)?;
    }
    Ok(result)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCountedMemory>()
}
