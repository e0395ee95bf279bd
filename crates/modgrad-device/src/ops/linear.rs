//! Matrix products, by the vendor's library.

use modgrad_graph::storage::{Precision, Storage};
use modgrad_graph::{Op, Result};

use super::{Call, Input, floats};
use crate::device::Scratch;
use crate::driver::{Address, Float, Product};
use crate::launch::{Place, index, over, suffix};
use crate::source::BASICS;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::MatMul { transpose_a, transpose_b } => mat_mul(&call, *transpose_a, *transpose_b),
        Op::Linear => linear(&call),
        _ => Err(call.missing()),
    }
}

fn mat_mul(call: &Call<'_, '_>, transpose_a: bool, transpose_b: bool) -> Result<()> {
    let (a, b, c) = (&call.x[0], &call.x[1], &call.out[0]);
    let sides = |shape: &[usize]| (shape[shape.len() - 2], shape[shape.len() - 1]);
    let ((mut rows, columns), (rows_b, columns_b)) = (sides(a.shape), sides(b.shape));
    let mut batch: usize = a.shape[..a.shape.len() - 2].iter().product();
    let shared = b.shape.len() == 2;
    if shared && !transpose_a {
        rows *= batch;
        batch = 1;
    }
    let (m, k) = if transpose_a { (columns, rows) } else { (rows, columns) };
    let n = if transpose_b { rows_b } else { columns_b };
    let (a, b, factors) = factors(call, a, b)?;
    call.device.product(&Product {
        m,
        n,
        k,
        batch,
        a,
        b,
        c: c.address(),
        stride_a: rows * columns,
        stride_b: if shared { 0 } else { rows_b * columns_b },
        stride_c: m * n,
        transpose_a,
        transpose_b,
        factors,
        result: float(c.storage),
        add: call.add,
    })
}

fn linear(call: &Call<'_, '_>) -> Result<()> {
    let (x, weight, y) = (&call.x[0], &call.x[1], &call.out[0]);
    let (n, k) = (weight.shape[0], weight.shape[1]);
    let m = y.elements().checked_div(n).unwrap_or(0);
    let (a, b, factors) = factors(call, x, weight)?;
    call.device.product(&Product {
        m,
        n,
        k,
        batch: 1,
        a,
        b,
        c: y.address(),
        stride_a: m * k,
        stride_b: n * k,
        stride_c: m * n,
        transpose_a: false,
        transpose_b: true,
        factors,
        result: float(y.storage),
        add: call.add,
    })?;
    let Some(bias) = call.x.get(2) else { return Ok(()) };
    let kernel = format!("add_bias_{}", suffix(y.storage));
    let arguments = [y.pointer(), bias.pointer(), index(n), index(m * n)];
    call.device.launch(&BASICS, &kernel, over(m * n), &arguments)
}

/// Both factors in the type that the precision asks for.
fn factors(call: &Call<'_, '_>, a: &Input<'_>, b: &Input<'_>) -> Result<(Address, Address, Float)> {
    floats(call.op, &[a.storage, b.storage, call.out[0].storage])?;
    if call.precision == Precision::F32 {
        return Ok((a.address(), b.address(), Float::F32));
    }
    let narrow = |x: &Input<'_>, which| match x.storage {
        Storage::F32 => call.device.narrowed(which, x.address(), x.elements()),
        _ => Ok(x.address()),
    };
    let (a, b) = (narrow(a, Scratch::Products)?, narrow(b, Scratch::ProductsToo)?);
    Ok((a, b, Float::Bf16))
}

fn float(storage: Storage) -> Float {
    if storage == Storage::Bf16 { Float::Bf16 } else { Float::F32 }
}
