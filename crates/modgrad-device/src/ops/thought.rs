//! Continuous Thought Machines: all ticks in one op, and their adjoint.

mod backward;
mod forward;
mod operands;
mod stages;
mod weights;
mod work;

use modgrad_graph::{Op, Result};

use super::{Call, synchronisation};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Synchronisation => synchronisation::forward(&call),
        Op::SynchronisationGradient => synchronisation::gradient(&call),
        Op::Think { .. } => forward::run(&call),
        Op::ThinkGradient { .. } => backward::run(&call),
        _ => Err(call.missing()),
    }
}
