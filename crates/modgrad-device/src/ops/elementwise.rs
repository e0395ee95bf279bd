//! Elementwise ops.

use modgrad_compute::function::BinaryFunction;
use modgrad_graph::layout::broadcast_strides;
use modgrad_graph::reference::dropout_key;
use modgrad_graph::{Op, Result};

use super::indices::index_suffix;
use super::{Call, floats};
use crate::driver::Argument;
use crate::launch::{Axes, Place, index, over, suffix};
use crate::source::{DROPOUT, ELEMENTWISE};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Unary { function } => unary(&call, *function as i32),
        Op::UnaryGradient { function } => unary_gradient(&call, *function as i32),
        Op::Binary { function } => binary(&call, *function),
        Op::Affine { scale, offset } => affine(&call, *scale, *offset),
        Op::ToFloat => to_float(&call),
        Op::Dropout { probability, stream } => dropout(&call, *probability, *stream),
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

fn affine(call: &Call<'_, '_>, scale: f32, offset: f32) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    floats(call.op, &[x.storage])?;
    let kernel = format!("affine_{}", suffix(x.storage));
    let count = y.elements();
    let arguments =
        [x.pointer(), y.pointer(), Argument::Float(scale), Argument::Float(offset), index(count)];
    call.device.launch(&ELEMENTWISE, &kernel, over(count), &arguments)
}

fn to_float(call: &Call<'_, '_>) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    let kernel = format!("to_float_{}", index_suffix(call, x)?);
    let arguments = [x.pointer(), y.pointer(), index(y.elements())];
    call.device.launch(&ELEMENTWISE, &kernel, over(y.elements()), &arguments)
}

/// `modgrad_compute::elementwise::dropout`, with its rounding of the probability.
fn dropout(call: &Call<'_, '_>, probability: f32, stream: u64) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    floats(call.op, &[x.storage, y.storage])?;
    let keep = 1.0 - probability;
    let threshold = (f64::from(keep) * f64::from(1 << 24)).round() as i32;
    let kernel = format!("dropout_{}_{}", suffix(x.storage), suffix(y.storage));
    let count = y.elements();
    let arguments = [
        x.pointer(),
        y.pointer(),
        Argument::Word(dropout_key(call.key.seed, call.key.step, stream)),
        Argument::Int(threshold),
        Argument::Float(1.0 / keep),
        index(count),
    ];
    call.device.launch(&DROPOUT, &kernel, over(count), &arguments)
}
