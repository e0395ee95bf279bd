//! Elementwise ops.

use modgrad_compute::function::BinaryFunction;
use modgrad_graph::{Op, Result};

use super::{Call, broadcast_strides, floats};
use crate::driver::Argument;
use crate::launch::{Axes, Place, index, over, suffix};
use crate::source::ELEMENTWISE;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Unary { function } => unary(&call, *function as i32),
        Op::UnaryGradient { function } => unary_gradient(&call, *function as i32),
        Op::Binary { function } => binary(&call, *function),
        _ => Err(call.missing()),
    }
}

fn unary(call: &Call<'_, '_>, function: i32) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    floats(call.op, &[x.storage, y.storage])?;
    let kernel = format!("unary_{}_{}", suffix(x.storage), suffix(y.storage));
    let count = y.elements();
    let arguments = [Argument::Int(function), x.pointer(), y.pointer(), index(count)];
    call.device.launch(&ELEMENTWISE, &kernel, over(count), &arguments)
}

fn unary_gradient(call: &Call<'_, '_>, function: i32) -> Result<()> {
    let (x, dy, dx) = (&call.x[0], &call.x[1], &call.out[0]);
    let storages = [x.storage, dy.storage, dx.storage];
    floats(call.op, &storages)?;
    let kernel = format!("unary_gradient_{}", storages.map(suffix).join("_"));
    let count = dx.elements();
    let arguments =
        [Argument::Int(function), x.pointer(), dy.pointer(), dx.pointer(), index(count)];
    call.device.launch(&ELEMENTWISE, &kernel, over(count), &arguments)
}

fn binary(call: &Call<'_, '_>, function: BinaryFunction) -> Result<()> {
    let (x, y, out) = (&call.x[0], &call.x[1], &call.out[0]);
    floats(call.op, &[x.storage, y.storage])?;
    let count = out.elements();
    let function = Argument::Int(function as i32);
    if x.shape == y.shape {
        let kernel = format!("binary_{}_{}", suffix(x.storage), suffix(y.storage));
        let arguments = [function, x.pointer(), y.pointer(), out.pointer(), index(count)];
        return call.device.launch(&ELEMENTWISE, &kernel, over(count), &arguments);
    }
    // Operands that are broadcast are stored as f32.
    let (first, second) =
        (broadcast_strides(x.shape, out.shape), broadcast_strides(y.shape, out.shape));
    let axes = Axes::new(call.op.name(), out.shape, &first, &second)?;
    let arguments =
        [function, x.pointer(), y.pointer(), out.pointer(), axes.argument(), index(count)];
    call.device.launch(&ELEMENTWISE, "binary_broadcast", over(count), &arguments)
}
