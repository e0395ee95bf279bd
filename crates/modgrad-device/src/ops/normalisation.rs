//! Normalisation of rows.

use modgrad_graph::{Op, Result};

use super::{Call, floats, row_chunks};
use crate::device::Scratch;
use crate::driver::Argument;
use crate::launch::{BLOCK, Place, grid, index, rows, suffix};
use crate::source::{LAYER_NORM, NORMALISATION};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::RmsNorm { epsilon } => rms_norm(&call, *epsilon),
        Op::RmsNormGradient => rms_norm_gradient(&call),
        Op::LayerNorm { epsilon } => layer_norm(&call, *epsilon),
        Op::LayerNormGradient => layer_norm_gradient(&call),
        _ => Err(call.missing()),
    }
}

fn rms_norm(call: &Call<'_, '_>, epsilon: f32) -> Result<()> {
    let ([x, weight, ..], [y, rstd, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    floats(call.op, &[x.storage, y.storage])?;
    let kernel = format!("rms_norm_{}_{}", suffix(x.storage), suffix(y.storage));
    let arguments = [
        x.pointer(),
        weight.pointer(),
        y.pointer(),
        rstd.pointer(),
        index(weight.elements()),
        Argument::Float(epsilon),
    ];
    call.device.launch(&NORMALISATION, &kernel, rows(rstd.elements()), &arguments)
}

fn rms_norm_gradient(call: &Call<'_, '_>) -> Result<()> {
    let ([x, weight, rstd, dy, ..], [dx, dweight, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    let storages = [x.storage, dy.storage, dx.storage];
    floats(call.op, &storages)?;
    let (height, width) = (rstd.elements(), weight.elements());
    let kernel = format!("rms_norm_gradient_{}", storages.map(suffix).join("_"));
    let arguments =
        [x.pointer(), weight.pointer(), rstd.pointer(), dy.pointer(), dx.pointer(), index(width)];
    call.device.launch(&NORMALISATION, &kernel, rows(height), &arguments)?;

    let (chunk, chunks) = row_chunks(height);
    let parts = call.device.scratch(Scratch::First, chunks * width * 4)?;
    let kernel = format!("rms_norm_weight_{}_{}", suffix(x.storage), suffix(dy.storage));
    let arguments = [
        x.pointer(),
        rstd.pointer(),
        dy.pointer(),
        Argument::Pointer(parts),
        index(height),
        index(width),
        index(chunk),
    ];
    let shape = grid(width.div_ceil(BLOCK), chunks);
    call.device.launch(&NORMALISATION, &kernel, shape, &arguments)?;
    call.device.sum_rows(parts, dweight.address(), chunks, width)
}

fn layer_norm(call: &Call<'_, '_>, epsilon: f32) -> Result<()> {
    let ([x, weight, bias, ..], [y, mean, rstd, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    floats(call.op, &[x.storage, y.storage])?;
    let kernel = format!("layer_norm_{}_{}", suffix(x.storage), suffix(y.storage));
    let arguments = [
        x.pointer(),
        weight.pointer(),
        bias.pointer(),
        y.pointer(),
        mean.pointer(),
        rstd.pointer(),
        index(weight.elements()),
        Argument::Float(epsilon),
    ];
    call.device.launch(&LAYER_NORM, &kernel, rows(rstd.elements()), &arguments)
}

fn layer_norm_gradient(call: &Call<'_, '_>) -> Result<()> {
    let ([x, weight, mean, rstd, dy, ..], [dx, dweight, dbias, ..]) = (call.x, &*call.out) else {
        return Err(call.missing());
    };
    let storages = [x.storage, dy.storage, dx.storage];
    floats(call.op, &storages)?;
    let (height, width) = (rstd.elements(), weight.elements());
    let kernel = format!("layer_norm_gradient_{}", storages.map(suffix).join("_"));
    let arguments = [
        x.pointer(),
        weight.pointer(),
        mean.pointer(),
        rstd.pointer(),
        dy.pointer(),
        dx.pointer(),
        index(width),
    ];
    call.device.launch(&LAYER_NORM, &kernel, rows(height), &arguments)?;

    let (chunk, chunks) = row_chunks(height);
    let weights = call.device.scratch(Scratch::First, chunks * width * 4)?;
    let biases = call.device.scratch(Scratch::Second, chunks * width * 4)?;
    let kernel = format!("layer_norm_weights_{}_{}", suffix(x.storage), suffix(dy.storage));
    let arguments = [
        x.pointer(),
        mean.pointer(),
        rstd.pointer(),
        dy.pointer(),
        Argument::Pointer(weights),
        Argument::Pointer(biases),
        index(height),
        index(width),
        index(chunk),
    ];
    let shape = grid(width.div_ceil(BLOCK), chunks);
    call.device.launch(&LAYER_NORM, &kernel, shape, &arguments)?;
    call.device.sum_rows(weights, dweight.address(), chunks, width)?;
    call.device.sum_rows(biases, dbias.address(), chunks, width)
}
