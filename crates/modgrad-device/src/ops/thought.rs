//! Continuous Thought Machines.

use modgrad_graph::{Op, Result};

use super::{Call, synchronisation};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Synchronisation => synchronisation::forward(&call),
        Op::SynchronisationGradient => synchronisation::gradient(&call),
        _ => Err(call.missing()),
    }
}
