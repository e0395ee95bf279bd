//! What the machine is and can do.

use modgrad_compute::gemm::{self, Precision};
use modgrad_compute::{Isa, Pool};
use modgrad_training::autoresearch;
use pyo3::prelude::*;

use crate::errors::ProgramError;

/// The instruction set that the kernels use, by name.
#[pyfunction]
fn instruction_set() -> &'static str {
    Isa::active().name()
}

/// The highest instruction set that the machine has, by name.
#[pyfunction]
fn detected_instruction_set() -> &'static str {
    Isa::detect().name()
}

/// The rate of the fastest matrix product on this machine, in FLOP/s.
///
/// Measures for up to 0.3 seconds.
#[pyfunction]
fn measured_peak(py: Python<'_>, threads: usize, precision: &str) -> PyResult<f64> {
    let precision = match precision {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        _ => return Err(unknown_precision(precision)),
    };
    Ok(py.detach(|| gemm::measured_peak(&Pool::new(threads), precision)))
}

/// The largest resident memory of this process so far, in MB; 0 where unknown.
#[pyfunction]
fn peak_rss_mb() -> f64 {
    autoresearch::peak_rss_mb()
}

pub(crate) fn unknown_precision(name: &str) -> PyErr {
    ProgramError::new_err(format!("precision `{name}` is not one of f32, bf16"))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(instruction_set, module)?)?;
    module.add_function(wrap_pyfunction!(detected_instruction_set, module)?)?;
    module.add_function(wrap_pyfunction!(measured_peak, module)?)?;
    module.add_function(wrap_pyfunction!(peak_rss_mb, module)?)
}
