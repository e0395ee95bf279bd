//! Muon's update of one weight matrix: `modgrad_graph::cpu::muon` on the device.
//!
//! The iterate stays on the device, its norm too; products are of bf16 factors.

use modgrad_graph::Result;
use modgrad_graph::backend::{Muon, Update};

use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument, Float, Product};
use crate::launch::{BLOCK, grid, index, over};
use crate::memory::Memory;
use crate::optimisers::{at, factor_of, shadow_at};
use crate::source::{OPTIMISERS, REDUCTIONS};

/// The coefficients of the iteration.
const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;
/// Terms of the squared norm, at most.
const TERMS: usize = 256;

pub(crate) fn update(
    device: &Device,
    rule: Muon,
    rows: usize,
    columns: usize,
    update: Update<'_, Memory>,
    velocity: &mut Memory,
) -> Result<()> {
    let (stretch, count) = (update.stretch, rows * columns);
    if count == 0 {
        return Ok(());
    }
    let direction = device.scratch(Scratch::First, count * 4)?;
    let arguments = [
        at(update.gradient, stretch),
        at(velocity, stretch),
        Argument::Pointer(direction),
        factor_of(update.clip),
        Argument::Float(rule.momentum),
        Argument::Float(rule.gradient_scale),
        Argument::Int(i32::from(rule.nesterov)),
        index(count),
    ];
    device.launch(&OPTIMISERS, "muon_momentum", over(count), &arguments)?;
    orthogonalise(device, direction, rows, columns, rule.steps)?;
    let scale = (rows as f32 / columns as f32).max(1.0).sqrt();
    let arguments = [
        Argument::Pointer(direction),
        at(update.parameter, stretch),
        shadow_at(update.shadow, stretch),
        factor_of(update.clip),
        Argument::Float(1.0 - rule.learning_rate * rule.weight_decay),
        Argument::Float(rule.learning_rate * scale),
        index(count),
    ];
    device.launch(&OPTIMISERS, "muon_apply", over(count), &arguments)
}

/// `x`, f32 in scratch First, becomes its nearest semi-orthogonal matrix, nearly.
fn orthogonalise(
    device: &Device,
    x: Address,
    rows: usize,
    columns: usize,
    steps: u32,
) -> Result<()> {
    let (count, side, wide) = (rows * columns, rows.min(columns), rows <= columns);
    let short = device.scratch(Scratch::Second, count * 2)?;
    normalise(device, x, short, count)?;
    let gram = device.scratch(Scratch::Third, side * side * 4)?;
    let factor = device.scratch(Scratch::Fourth, side * side * 2)?;
    let square = device.scratch(Scratch::Fifth, side * side * 4)?;
    let product = |a, b, c, (m, n, k), (transpose_a, transpose_b)| {
        device.product(&Product {
            m,
            n,
            k,
            batch: 1,
            a,
            b,
            c,
            stride_a: m * k,
            stride_b: k * n,
            stride_c: m * n,
            transpose_a,
            transpose_b,
            factors: Float::Bf16,
            result: Float::F32,
            add: false,
        })
    };
    for step in 0..steps {
        if step > 0 {
            device.narrow_into(x, short, count)?;
        }
        // The Gram matrix is taken on the shorter side.
        product(short, short, gram, (side, side, count / side), (!wide, wide))?;
        device.narrow_into(gram, factor, side * side)?;
        product(factor, factor, square, (side, side, side), (false, false))?;
        let arguments = [
            Argument::Pointer(gram),
            Argument::Pointer(square),
            Argument::Pointer(factor),
            index(side),
            Argument::Float(A),
            Argument::Float(B),
            Argument::Float(C),
            index(side * side),
        ];
        device.launch(&OPTIMISERS, "muon_polynomial", over(side * side), &arguments)?;
        if wide {
            product(factor, short, x, (rows, columns, rows), (false, false))?;
        } else {
            product(short, factor, x, (rows, columns, columns), (false, false))?;
        }
    }
    Ok(())
}

/// x over its norm, in place and as bf16.
fn normalise(device: &Device, x: Address, short: Address, count: usize) -> Result<()> {
    let terms = count.div_ceil(BLOCK).min(TERMS);
    let squares = device.scratch(Scratch::Sums, terms * 8)?;
    let arguments = [Argument::Pointer(x), Argument::Pointer(squares), index(count)];
    device.launch(&REDUCTIONS, "sum_of_squares", grid(terms, 1), &arguments)?;
    let arguments = [
        Argument::Pointer(x),
        Argument::Pointer(short),
        Argument::Pointer(squares),
        index(terms),
        index(count),
    ];
    device.launch(&OPTIMISERS, "muon_normalise", over(count), &arguments)
}
