//! Running a program forward.

use modgrad_device::Device;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::Executor;
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::device;
use crate::errors::graph;
use crate::machine::unknown_precision;
use crate::program::PyProgram;

/// A program prepared to compute some of its outputs.
#[pyclass(module = "modgrad._core")]
pub(crate) struct Session {
    executor: AnyExecutor,
    outputs: Vec<String>,
}

/// One on each kind of device.
enum AnyExecutor {
    Cpu(Box<Executor<Cpu>>),
    Device(Box<Executor<Device>>),
}

/// `$body` with `$executor` as the executor that there is.
macro_rules! on {
    ($any:expr, $executor:ident => $body:expr) => {
        match $any {
            AnyExecutor::Cpu($executor) => $body,
            AnyExecutor::Device($executor) => $body,
        }
    };
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (program, outputs, precision, threads, device="cpu"))]
    fn new(
        py: Python<'_>,
        program: &PyProgram,
        outputs: Vec<String>,
        precision: &str,
        threads: usize,
        device: &str,
    ) -> PyResult<Self> {
        let precision = read_precision(precision)?;
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let program = &program.program;
        let executor = py.detach(|| {
            Ok(match device::open(device)? {
                None => {
                    let executor = Executor::new(Cpu::new(threads), program, &names, precision)?;
                    AnyExecutor::Cpu(Box::new(executor))
                }
                Some(device) => {
                    device.set_threads(threads);
                    let executor = Executor::new(device, program, &names, precision)?;
                    AnyExecutor::Device(Box::new(executor))
                }
            })
        });
        let executor = executor.map_err(graph)?;
        Ok(Session { executor, outputs })
    }

    /// Sets parameters and buffers by name.
    fn set_parameters(&mut self, parameters: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, tensor) in arrays::tensors(parameters)? {
            on!(&mut self.executor, executor => executor.set_parameter(&name, (&tensor).into()))
                .map_err(graph)?;
        }
        Ok(())
    }

    /// Runs the program and returns its outputs by name.
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        inputs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let inputs = arrays::tensors(inputs)?;
        let executor = &mut self.executor;
        let key = RunKey { seed: 0, step: 0 };
        py.detach(|| on!(executor, executor => executor.run(&arrays::views(&inputs), key)))
            .map_err(graph)?;
        let results = PyDict::new(py);
        for name in &self.outputs {
            let output = on!(&*executor, executor => executor.output(name)).map_err(graph)?;
            results.set_item(name, arrays::array(py, output)?)?;
        }
        Ok(results)
    }

    /// Bytes of memory that it holds.
    #[getter]
    fn bytes(&self) -> usize {
        on!(&self.executor, executor => executor.bytes())
    }
}

pub(crate) fn read_precision(name: &str) -> PyResult<Precision> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err(unknown_precision(name)),
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Session>()
}
