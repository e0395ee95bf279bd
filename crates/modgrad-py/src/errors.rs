//! The one map from Rust errors to Python exceptions.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    modgrad,
    ModgradError,
    PyException,
    "Anything that modgrad refuses, in one line."
);
create_exception!(modgrad, ProgramError, ModgradError, "A program, or a run of it, is not right.");
create_exception!(modgrad, ShapeError, ProgramError, "Operands of an op do not fit together.");
create_exception!(modgrad, NonFiniteError, ProgramError, "A loss or gradient is NaN or infinite.");
create_exception!(
    modgrad,
    CheckpointError,
    ModgradError,
    "A checkpoint cannot be read or written."
);
create_exception!(
    modgrad,
    EvaluationError,
    ModgradError,
    "The evaluator refuses a model or its data."
);
create_exception!(modgrad, MazeError, ModgradError, "There are no mazes as asked for.");
create_exception!(modgrad, MachineError, ModgradError, "The machine has not what was asked for.");

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("ModgradError", py.get_type::<ModgradError>())?;
    module.add("ProgramError", py.get_type::<ProgramError>())?;
    module.add("ShapeError", py.get_type::<ShapeError>())?;
    module.add("NonFiniteError", py.get_type::<NonFiniteError>())?;
    module.add("CheckpointError", py.get_type::<CheckpointError>())?;
    module.add("EvaluationError", py.get_type::<EvaluationError>())?;
    module.add("MazeError", py.get_type::<MazeError>())?;
    module.add("MachineError", py.get_type::<MachineError>())
}

/// A program's or run's error as its exception.
pub(crate) fn graph(error: modgrad_graph::Error) -> PyErr {
    let message = error.to_string();
    match error {
        modgrad_graph::Error::Shape { .. } => ShapeError::new_err(message),
        modgrad_graph::Error::NonFinite { .. } => NonFiniteError::new_err(message),
        modgrad_graph::Error::Device { .. } => MachineError::new_err(message),
        modgrad_graph::Error::NotOnDevice { .. } => {
            MachineError::new_err(format!("{message}; hint: use --device cpu"))
        }
        _ => ProgramError::new_err(message),
    }
}
