//! Neurons on a lattice, and walks on it.

mod backward;
mod forward;
mod lattice;

use modgrad_graph::{Op, Result};

use super::Call;
use crate::launch::{Place, index, rows};
use crate::source::WALK;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Walk { steps } => walk(&call, *steps),
        Op::SpatialThink { .. } => forward::run(&call),
        Op::SpatialThinkGradient { .. } => backward::run(&call),
        _ => Err(call.missing()),
    }
}

fn walk(call: &Call<'_, '_>, steps: usize) -> Result<()> {
    let (policy, start) = (&call.x[0], &call.x[1]);
    let [batch, height, width] = [0, 1, 2].map(|axis| policy.shape[axis]);
    let arguments = [
        policy.pointer(),
        start.pointer(),
        call.out[0].pointer(),
        index(height),
        index(width),
        index(steps),
    ];
    let blocks = if steps == 0 { 0 } else { batch };
    call.device.launch(&WALK, "walk", rows(blocks), &arguments)
}
