//! Reductions of one axis.

use modgrad_compute::reduce::Reduction;
use modgrad_graph::layout::around;
use modgrad_graph::{Op, Result};

use super::{Call, floats};
use crate::device::Scratch;
use crate::driver::Argument;
use crate::launch::{Place, grid, index, over, rows, suffix};
use crate::source::{REDUCTIONS, SELECTION};

/// An axis that fewer than [`PARALLEL`] threads would walk is cut into chunks of this many.
const CHUNK: usize = 128;
const PARALLEL: usize = 1 << 15;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Reduce { kind, axis } => reduce(&call, *kind, *axis),
        Op::MaximumGradient { axis } => select(&call, "maximum_gradient", *axis),
        Op::OneHotMax { axis } => select(&call, "one_hot_max", *axis),
        _ => Err(call.missing()),
    }
}

fn reduce(call: &Call<'_, '_>, kind: Reduction, axis: usize) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    floats(call.op, &[x.storage])?;
    let (outer, size, inner) = around(x.shape, axis);
    let fold = if kind == Reduction::Maximum { "maximum" } else { "sum" };
    let scale = if kind == Reduction::Mean { 1.0 / size as f32 } else { 1.0 };
    let device = call.device;
    let storage = suffix(x.storage);
    if inner == 1 && size >= 32 {
        let arguments = [x.pointer(), y.pointer(), index(size), Argument::Float(scale)];
        return device.launch(
            &REDUCTIONS,
            &format!("{fold}_rows_{storage}"),
            rows(outer),
            &arguments,
        );
    }
    let columns = |storage: &str, from: Argument, to, size, chunk, scale| {
        let chunks = usize::div_ceil(size, chunk).max(1);
        let shape = grid(over(outer * inner).grid[0] as usize, chunks);
        let arguments = [
            from,
            to,
            index(outer),
            index(size),
            index(inner),
            index(chunk),
            Argument::Float(scale),
        ];
        device.launch(&REDUCTIONS, &format!("{fold}_columns_{storage}"), shape, &arguments)
    };
    if size <= 2 * CHUNK || outer * inner >= PARALLEL {
        return columns(storage, x.pointer(), y.pointer(), size, size.max(1), scale);
    }
    // The grid's second axis ends at 65,535 blocks.
    let chunk = CHUNK.max(size.div_ceil(1024));
    let chunks = size.div_ceil(chunk);
    let parts = Argument::Pointer(device.scratch(Scratch::Sums, outer * chunks * inner * 4)?);
    columns(storage, x.pointer(), parts.clone(), size, chunk, 1.0)?;
    columns("f32", parts, y.pointer(), chunks, chunks, scale)
}

/// Kernels that go along an axis of the first operand and write as many elements.
fn select(call: &Call<'_, '_>, kernel: &str, axis: usize) -> Result<()> {
    let (outer, size, inner) = around(call.x[0].shape, axis);
    let mut arguments: Vec<Argument> = call.x.iter().map(Place::pointer).collect();
    arguments.extend([call.out[0].pointer(), index(size)]);
    if inner == 1 && size >= 32 {
        let kernel = format!("{kernel}_rows");
        return call.device.launch(&SELECTION, &kernel, rows(outer), &arguments);
    }
    let count = if size == 0 { 0 } else { outer * inner };
    arguments.extend([index(inner), index(count)]);
    call.device.launch(&SELECTION, kernel, over(count), &arguments)
}
