//! Programs: a model as data.
//!
//! A [`Program`] is a static graph of named ops over shaped tensors. This crate
//! verifies it, differentiates it ([`gradient`]), plans its buffers
//! ([`planner`]) and runs it on a [`backend::Backend`]. [`reference`] defines in
//! plain f64 what each op means; the fast kernels are tested against it.
//!
//! Reading order: `op`, `shape`, `program`, `gradient`, `planner`, `factored`,
//! `executor`, `training`.

pub mod backend;
pub mod cpu;
pub mod error;
pub mod executor;
pub mod factored;
pub mod gradient;
pub mod layout;
pub mod op;
pub mod planner;
pub mod program;
pub mod reference;
mod shape;
pub mod storage;
pub mod tensor;
pub mod training;

pub use error::{Error, Result};
pub use op::Op;
pub use program::{Program, ValueId};
pub use tensor::{DType, Tensor, TensorSpec};
