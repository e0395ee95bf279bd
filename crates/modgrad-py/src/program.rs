//! Programs as Python builds them: one op at a time, shapes checked at once.

use modgrad_graph::program::read_op;
use modgrad_graph::reference::{self, Array, RunKey};
use modgrad_graph::tensor::{Data, Tensor};
use modgrad_graph::{Op, Program};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::BTreeMap;

use crate::arrays;
use crate::errors::{ProgramError, graph};

/// A static graph of ops over shaped tensors, under construction or read.
#[pyclass(name = "Program", module = "modgrad._core")]
pub(crate) struct PyProgram {
    pub(crate) program: Program,
}

#[pymethods]
impl PyProgram {
    #[new]
    fn new() -> Self {
        PyProgram { program: Program::new() }
    }

    /// Reads a program from JSON text and verifies it.
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        Ok(PyProgram { program: Program::from_json(text).map_err(graph)? })
    }

    /// The program as JSON text.
    fn to_json(&self) -> String {
        self.program.to_json()
    }

    /// Appends an op, given as JSON, and returns the ids of its outputs.
    fn push(&mut self, op: &str, inputs: Vec<usize>) -> PyResult<Vec<usize>> {
        let value = serde_json::from_str(op)
            .map_err(|error| ProgramError::new_err(format!("an op is not JSON: {error}")))?;
        let op = read_op(value).map_err(graph)?;
        self.program.push(op, &inputs).map_err(graph)
    }

    /// A value's shape and dtype name.
    fn spec<'py>(
        &self,
        py: Python<'py>,
        value: usize,
    ) -> PyResult<(Bound<'py, PyTuple>, &'static str)> {
        if value >= self.program.values() {
            return Err(ProgramError::new_err(format!("value {value} does not exist")));
        }
        let spec = self.program.spec(value);
        Ok((PyTuple::new(py, &spec.shape)?, spec.dtype.name()))
    }

    /// Names a value as an output.
    fn set_output(&mut self, name: &str, value: usize) -> PyResult<()> {
        self.program.set_output(name, value).map_err(graph)
    }

    /// Output names with their value ids.
    #[getter]
    fn outputs(&self) -> BTreeMap<String, usize> {
        self.program.outputs().clone()
    }

    /// Input names with their value ids.
    #[getter]
    fn inputs(&self) -> BTreeMap<String, usize> {
        self.program.inputs().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// (name, shape, dtype, trainable, sparse) of every parameter and buffer.
    fn parameters(&self) -> Vec<(String, Vec<usize>, &'static str, bool, bool)> {
        let rows = self.program.nodes().iter().filter_map(|node| match &node.op {
            Op::Parameter { name, shape, dtype, trainable, sparse } => {
                Some((name.clone(), shape.clone(), dtype.name(), *trainable, *sparse))
            }
            _ => None,
        });
        rows.collect()
    }

    /// The number of nodes.
    fn __len__(&self) -> usize {
        self.program.nodes().len()
    }

    /// Compares the gradients of the scalar output `loss` with central
    /// differences in f64, on the slow reference backend.
    ///
    /// Returns (name, elements checked, worst relative error) for every f32
    /// input and trainable parameter.
    #[pyo3(signature = (loss, inputs, parameters, epsilon=1e-5, most_elements=64, seed=0))]
    fn check_gradients(
        &self,
        py: Python<'_>,
        loss: &str,
        inputs: &Bound<'_, PyDict>,
        parameters: &Bound<'_, PyDict>,
        epsilon: f64,
        most_elements: usize,
        seed: u64,
    ) -> PyResult<Vec<(String, usize, f64)>> {
        let inputs = reference_arrays(inputs)?;
        let parameters = reference_arrays(parameters)?;
        let key = RunKey { seed, step: 0 };
        let checks = py
            .detach(|| {
                reference::check_gradients(
                    &self.program,
                    loss,
                    &inputs,
                    &parameters,
                    key,
                    epsilon,
                    most_elements,
                )
            })
            .map_err(graph)?;
        let rows = checks.into_iter();
        Ok(rows.map(|check| (check.name, check.checked, check.worst_relative_error)).collect())
    }
}

fn reference_arrays(arrays: &Bound<'_, PyDict>) -> PyResult<BTreeMap<String, Array>> {
    let named = arrays::tensors(arrays)?;
    Ok(named.into_iter().map(|(name, tensor)| (name, reference_array(&tensor))).collect())
}

fn reference_array(tensor: &Tensor) -> Array {
    let data = match tensor.data() {
        Data::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
        Data::I32(values) => values.iter().map(|&value| f64::from(value)).collect(),
        Data::U8(values) => values.iter().map(|&value| f64::from(value)).collect(),
    };
    Array { shape: tensor.shape().to_vec(), data }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyProgram>()
}
