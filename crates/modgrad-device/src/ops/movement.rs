//! Ops that move elements.

use modgrad_graph::layout::{around, broadcast_strides, contiguous_strides};
use modgrad_graph::storage::Storage;
use modgrad_graph::{Error, Op, Result};

use super::Call;
use super::indices::{index_suffix, look, sum_by_index};
use crate::launch::{Axes, Place, index, over, suffix};
use crate::source::MOVEMENT;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Transpose { permutation } => {
            let strides = contiguous_strides(call.x[0].shape);
            let strides: Vec<usize> = permutation.iter().map(|&axis| strides[axis]).collect();
            copy(&call, &strides, 0)
        }
        Op::BroadcastTo { .. } => {
            let strides = broadcast_strides(call.x[0].shape, call.out[0].shape);
            copy(&call, &strides, 0)
        }
        Op::Slice { axis, start, step, .. } => {
            let mut strides = contiguous_strides(call.x[0].shape);
            let offset = start * strides[*axis];
            // A step past the end is taken zero times.
            strides[*axis] = strides[*axis].wrapping_mul(*step);
            copy(&call, &strides, offset)
        }
        Op::SliceGradient { axis, start, step, size } => {
            slice_gradient(&call, *axis, *start, *step, *size)
        }
        Op::Concat { axis } => concat(&call, *axis),
        Op::Gather { axis } => gather(&call, *axis),
        Op::GatherGradient { axis, size } => {
            let (outer, _, inner) = around(call.out[0].shape, *axis);
            sum_by_index(&call, outer, *size, inner, 1)
        }
        Op::Shift { amount } => shift(&call, *amount),
        _ => Err(call.missing()),
    }
}

/// Which kernel moves elements of `from` to `to`: floats may change their storage.
fn kernel(call: &Call<'_, '_>, name: &str, from: Storage, to: Storage) -> Result<String> {
    let float = |storage| matches!(storage, Storage::F32 | Storage::Bf16);
    if from != to && !(float(from) && float(to)) {
        let reason = format!("`{}` from {from:?} to {to:?}", call.op.name());
        return Err(Error::Malformed { reason });
    }
    Ok(format!("{name}_{}_{}", suffix(from), suffix(to)))
}

fn copy(call: &Call<'_, '_>, strides: &[usize], offset: usize) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    let kernel = kernel(call, "copy_strided", x.storage, y.storage)?;
    let (size, strides) = joined(y.shape, strides);
    let axes = Axes::new(call.op.name(), &size, &strides, &[])?;
    let count = y.elements();
    let arguments = [x.pointer(), y.pointer(), axes.argument(), index(offset), index(count)];
    call.device.launch(&MOVEMENT, &kernel, over(count), &arguments)
}

/// The same walk with fewer axes: those of one element left out, and those that are one
/// stretch taken together.
fn joined(shape: &[usize], strides: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (mut sizes, mut steps): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (&size, &stride) in shape.iter().zip(strides).filter(|(size, _)| **size != 1) {
        match (sizes.last_mut(), steps.last_mut()) {
            (Some(outer), Some(step)) if *step == stride.wrapping_mul(size) => {
                *outer *= size;
                *step = stride;
            }
            _ => {
                sizes.push(size);
                steps.push(stride);
            }
        }
    }
    (sizes, steps)
}

fn slice_gradient(
    call: &Call<'_, '_>,
    axis: usize,
    start: usize,
    step: usize,
    size: usize,
) -> Result<()> {
    let (dy, dx) = (&call.x[0], &call.out[0]);
    let (_, taken, inner) = around(dy.shape, axis);
    let count = dx.elements();
    let arguments = [
        dy.pointer(),
        dx.pointer(),
        index(size),
        index(taken),
        index(start),
        index(step.min(size.max(1))),
        index(inner),
        index(count),
    ];
    call.device.launch(&MOVEMENT, "slice_gradient", over(count), &arguments)
}

fn concat(call: &Call<'_, '_>, axis: usize) -> Result<()> {
    let out = &call.out[0];
    let (_, size, inner) = around(out.shape, axis);
    let mut start = 0;
    for part in call.x {
        let width = part.shape[axis] * inner;
        let kernel = kernel(call, "place_columns", part.storage, out.storage)?;
        let count = part.elements();
        let arguments = [
            part.pointer(),
            out.pointer(),
            index(width),
            index(size * inner),
            index(start),
            index(count),
        ];
        call.device.launch(&MOVEMENT, &kernel, over(count), &arguments)?;
        start += width;
    }
    Ok(())
}

fn gather(call: &Call<'_, '_>, axis: usize) -> Result<()> {
    let (x, indices, y) = (&call.x[0], &call.x[1], &call.out[0]);
    let (_, size, inner) = around(x.shape, axis);
    let count = y.elements();
    if count == 0 {
        return look(call, indices, size);
    }
    let mut arguments = vec![
        x.pointer(),
        indices.pointer(),
        y.pointer(),
        index(size),
        index(indices.elements()),
        index(inner),
        index(count),
    ];
    arguments.extend(call.device.index_check(call.op.name(), size));
    let kernel = format!("gather_{}", index_suffix(call, indices)?);
    call.device.launch(&MOVEMENT, &kernel, over(count), &arguments)
}

fn shift(call: &Call<'_, '_>, amount: isize) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    let (time, inner) = (x.shape[1], x.shape[2..].iter().product());
    let far = time as i64;
    let arguments = [
        x.pointer(),
        y.pointer(),
        crate::driver::Argument::Index((amount as i64).clamp(-far, far)),
        index(time),
        index(inner),
        index(y.elements()),
    ];
    call.device.launch(&MOVEMENT, "shift", over(y.elements()), &arguments)
}
