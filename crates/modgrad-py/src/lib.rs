//! `modgrad._core`: what Python sees of the Rust crates.
//!
//! This crate converts and documents, and computes nothing. Errors pass through
//! one map (`errors`), arrays through one door (`arrays`), and every call that
//! may be long runs without the interpreter lock.

mod arrays;
mod checkpoint;
mod device;
mod errors;
mod evaluation;
mod machine;
mod mazes;
mod memory;
mod program;
mod session;
mod training;
mod watch;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A wrong MODGRAD_ISA is refused here, before anything runs on another path.
    modgrad_compute::Isa::from_environment().map_err(errors::MachineError::new_err)?;
    errors::register(module)?;
    machine::register(module)?;
    device::register(module)?;
    program::register(module)?;
    session::register(module)?;
    training::register(module)?;
    checkpoint::register(module)?;
    evaluation::register(module)?;
    mazes::register(module)?;
    memory::register(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
