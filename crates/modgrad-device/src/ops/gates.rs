//! Gates, softmax and cross-entropy.

use modgrad_graph::{Op, Result};

use super::indices::{index_suffix, look};
use super::{Call, floats, last};
use crate::driver::Argument;
use crate::launch::{Place, index, over, rows, suffix};
use crate::source::{GATES, SOFTMAX};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::GatedLinearUnit { activation } => gated_linear_unit(&call, *activation as i32),
        Op::GatedLinearUnitGradient { activation } => {
            gated_linear_unit_gradient(&call, *activation as i32)
        }
        Op::Softmax => softmax(&call, "softmax"),
        Op::SoftmaxGradient => softmax(&call, "softmax_gradient"),
        Op::CrossEntropy => cross_entropy(&call),
        Op::CrossEntropyGradient => cross_entropy_gradient(&call),
        _ => Err(call.missing()),
    }
}

fn gated_linear_unit(call: &Call<'_, '_>, activation: i32) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    floats(call.op, &[x.storage, y.storage])?;
    let kernel = format!("gated_linear_unit_{}_{}", suffix(x.storage), suffix(y.storage));
    let count = y.elements();
    let arguments =
        [Argument::Int(activation), x.pointer(), y.pointer(), index(last(y.shape)), index(count)];
    call.device.launch(&GATES, &kernel, over(count), &arguments)
}

fn gated_linear_unit_gradient(call: &Call<'_, '_>, activation: i32) -> Result<()> {
    let (x, dy, dx) = (&call.x[0], &call.x[1], &call.out[0]);
    let storages = [x.storage, dy.storage, dx.storage];
    floats(call.op, &storages)?;
    let kernel = format!("gated_linear_unit_gradient_{}", storages.map(suffix).join("_"));
    let count = dy.elements();
    let arguments = [
        Argument::Int(activation),
        x.pointer(),
        dy.pointer(),
        dx.pointer(),
        index(last(dy.shape)),
        index(count),
    ];
    call.device.launch(&GATES, &kernel, over(count), &arguments)
}

/// One block a row: the operands, the result, and how wide a row is.
fn softmax(call: &Call<'_, '_>, kernel: &str) -> Result<()> {
    let classes = last(call.x[0].shape);
    let height = call.x[0].elements().checked_div(classes).unwrap_or(0);
    let mut arguments: Vec<Argument> = call.x.iter().map(Place::pointer).collect();
    arguments.extend([call.out[0].pointer(), index(classes)]);
    call.device.launch(&SOFTMAX, kernel, rows(height), &arguments)
}

fn cross_entropy(call: &Call<'_, '_>) -> Result<()> {
    let ([x, targets, ..], [loss, logsumexp, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    let classes = last(x.shape);
    let mut arguments =
        vec![x.pointer(), targets.pointer(), loss.pointer(), logsumexp.pointer(), index(classes)];
    arguments.extend(call.device.index_check(call.op.name(), classes));
    let kernel = format!("cross_entropy_{}", index_suffix(call, targets)?);
    call.device.launch(&SOFTMAX, &kernel, rows(loss.elements()), &arguments)
}

fn cross_entropy_gradient(call: &Call<'_, '_>) -> Result<()> {
    let ([x, targets, logsumexp, dloss, ..], [dx, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    floats(call.op, &[dx.storage])?;
    let (classes, count) = (last(x.shape), dx.elements());
    if count == 0 {
        return look(call, targets, classes);
    }
    let mut arguments = vec![
        x.pointer(),
        targets.pointer(),
        logsumexp.pointer(),
        dloss.pointer(),
        dx.pointer(),
        index(classes),
        index(count),
    ];
    arguments.extend(call.device.index_check(call.op.name(), classes));
    let storages = (index_suffix(call, targets)?, suffix(dx.storage));
    let kernel = format!("cross_entropy_gradient_{}_{}", storages.0, storages.1);
    call.device.launch(&SOFTMAX, &kernel, over(count), &arguments)
}
