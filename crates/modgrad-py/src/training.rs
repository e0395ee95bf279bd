//! Training a program.

use modgrad_device::Device;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::training::{Settings, Training};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::device;
use crate::errors::{ProgramError, graph};
use crate::program::PyProgram;
use crate::session::read_precision;

/// A training run: parameters, their gradients, optimisers and averages.
#[pyclass(name = "Training", module = "modgrad._core")]
pub(crate) struct PyTraining {
    training: AnyTraining,
}

/// One on each kind of device.
enum AnyTraining {
    Cpu(Box<Training<Cpu>>),
    Device(Box<Training<Device>>),
}

/// `$body` with `$training` as the training that there is.
macro_rules! on {
    ($any:expr, $training:ident => $body:expr) => {
        match $any {
            AnyTraining::Cpu($training) => $body,
            AnyTraining::Device($training) => $body,
        }
    };
}

#[pymethods]
impl PyTraining {
    /// `groups` is JSON: [{"rule": {"rule": "adam_w", …}, "parameters": […]}, …].
    #[new]
    #[pyo3(signature = (program, loss, groups, precision, threads, clip_norm, seed, watch, device="cpu"))]
    fn new(
        py: Python<'_>,
        program: &PyProgram,
        loss: &str,
        groups: &str,
        precision: &str,
        threads: usize,
        clip_norm: Option<f32>,
        seed: u64,
        watch: Vec<String>,
        device: &str,
    ) -> PyResult<Self> {
        let groups = serde_json::from_str(groups).map_err(|error| {
            ProgramError::new_err(format!("an optimiser is not right: {error}"))
        })?;
        let precision = read_precision(precision)?;
        let settings =
            Settings { loss: loss.to_owned(), watch, groups, precision, clip_norm, seed };
        let program = &program.program;
        let training = py.detach(|| {
            Ok(match device::open(device)? {
                None => {
                    let training = Training::new(Cpu::new(threads), program, settings)?;
                    AnyTraining::Cpu(Box::new(training))
                }
                Some(device) => {
                    device.set_threads(threads);
                    AnyTraining::Device(Box::new(Training::new(device, program, settings)?))
                }
            })
        });
        let training = training.map_err(graph)?;
        Ok(PyTraining { training })
    }

    /// Runs forward and backward, adds to the gradients, returns the loss.
    fn backward(&mut self, py: Python<'_>, inputs: &Bound<'_, PyDict>) -> PyResult<f32> {
        let inputs = arrays::tensors(inputs)?;
        let training = &mut self.training;
        py.detach(|| on!(training, training => training.backward(&arrays::views(&inputs))))
            .map_err(graph)
    }

    /// Updates all parameters.
    fn update(&mut self, py: Python<'_>, factor: f32) -> PyResult<()> {
        let training = &mut self.training;
        py.detach(|| on!(training, training => training.update(factor))).map_err(graph)
    }

    /// The norm of the last update's gradient, if it is clipped.
    fn gradient_norm(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let training = &self.training;
        py.detach(|| on!(training, training => training.gradient_norm())).map_err(graph)
    }

    /// Moves the running average of dense parameters towards their values.
    fn average(&mut self, py: Python<'_>, decay: f32) -> PyResult<()> {
        let training = &mut self.training;
        py.detach(|| on!(training, training => training.average(decay))).map_err(graph)
    }

    /// Sets parameters and buffers by name.
    fn set_parameters(&mut self, parameters: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, tensor) in arrays::tensors(parameters)? {
            on!(&mut self.training, training => {
                training.executor_mut().set_parameter(&name, (&tensor).into())
            })
            .map_err(graph)?;
        }
        Ok(())
    }

    /// A parameter or a buffer, not averaged.
    fn parameter<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let parameter = on!(&self.training, training => training.parameter(name));
        arrays::array(py, parameter.map_err(graph)?)
    }

    /// Parameters and buffers by name; dense ones averaged, if asked for.
    fn parameters<'py>(&self, py: Python<'py>, averaged: bool) -> PyResult<Bound<'py, PyDict>> {
        let results = PyDict::new(py);
        let parameters = on!(&self.training, training => training.parameters(averaged));
        for (name, tensor) in parameters.map_err(graph)? {
            results.set_item(name, arrays::array(py, tensor)?)?;
        }
        Ok(results)
    }

    /// What an exact resume needs beside the parameters, by name.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let results = PyDict::new(py);
        for (name, tensor) in on!(&self.training, training => training.state()).map_err(graph)? {
            results.set_item(name, arrays::array(py, tensor)?)?;
        }
        Ok(results)
    }

    /// Restores what `state` gave.
    fn set_state(&mut self, state: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, tensor) in arrays::tensors(state)? {
            on!(&mut self.training, training => training.set_state(&name, &tensor))
                .map_err(graph)?;
        }
        Ok(())
    }

    /// An output of the last backward pass.
    fn output<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let output = on!(&self.training, training => training.executor().output(name));
        arrays::array(py, output.map_err(graph)?)
    }

    /// Begins to measure where the time of backward passes goes, from zero.
    fn start_profile(&mut self) {
        on!(&mut self.training, training => training.executor_mut().start_profile());
    }

    /// (instruction, calls, seconds) since `start_profile`, the longest first.
    fn profile(&self) -> Vec<(String, u64, f64)> {
        let profile =
            on!(&self.training, training => training.executor().profile()).into_iter().flatten();
        let mut rows: Vec<_> = profile
            .map(|(label, (calls, time))| (label.clone(), *calls, time.as_secs_f64()))
            .collect();
        rows.sort_by(|a, b| b.2.total_cmp(&a.2));
        rows
    }

    /// Updates done so far.
    #[getter]
    fn step(&self) -> u64 {
        on!(&self.training, training => training.step())
    }

    #[setter]
    fn set_step(&mut self, step: u64) {
        on!(&mut self.training, training => training.set_step(step));
    }

    /// Floating-point operations of the matrix products of one backward pass.
    #[getter]
    fn flops(&self) -> u64 {
        on!(&self.training, training => training.executor().plan().product_flops)
    }

    /// Bytes of scratch, parameters and gradients.
    #[getter]
    fn bytes(&self) -> usize {
        on!(&self.training, training => training.executor().bytes())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTraining>()
}
