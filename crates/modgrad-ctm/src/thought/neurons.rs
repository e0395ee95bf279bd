//! The neuron-level models of a block of neurons at one tick, and their adjoint.
//!
//! Everything is in slots of [ROWS][LANES] (see [`lanewise`]).

use modgrad_compute::thin::lanewise::{self, SLOT};
use modgrad_compute::thin::{Buffer, LANES};
use modgrad_compute::{math, multiversion};

use super::packed::Packed;
use super::{ROWS, Shape};

/// What a block is worked out in.
pub(super) struct Scratch {
    /// [O] slots: values, then gates.
    h: Buffer,
    /// [H] slots.
    g: Buffer,
    /// Two slots.
    y: Buffer,
    /// [H] slots: σ of the gates.
    open: Buffer,
    /// [H] slots.
    dg: Buffer,
    /// Two slots.
    dy: Buffer,
}

impl Scratch {
    pub(super) fn new(shape: Shape) -> Scratch {
        let slots = |count: usize| Buffer::zeros(count * SLOT);
        Scratch {
            h: slots(shape.outputs()),
            g: slots(shape.hidden),
            y: slots(2),
            open: slots(shape.hidden),
            dg: slots(shape.hidden),
            dy: slots(2),
        }
    }
}

/// Part `block` of weights [blocks][..].
fn of(weights: &[f32], block: usize, shape: Shape) -> &[f32] {
    let size = weights.len() / shape.blocks();
    &weights[block * size..][..size]
}

/// z, one slot, from the last M slots of the traces.
pub(super) fn forward(
    shape: Shape,
    packed: &Packed<'_>,
    block: usize,
    traces: &[f32],
    scratch: &mut Scratch,
    z: &mut [f32],
) {
    let Scratch { h, g, y, .. } = scratch;
    let (first, bias) = (of(&packed.level1, block, shape), of(&packed.level1_bias, block, shape));
    lanewise::product(shape.memory, shape.outputs(), traces, first, bias, h);
    let (values, gates) = h.split_at(h.len() / 2);
    if shape.hidden == 0 {
        return gate(values, gates, z);
    }
    gate(values, gates, g);
    let (second, bias) = (of(&packed.level2, block, shape), of(&packed.level2_bias, block, shape));
    lanewise::product(shape.hidden, 2, g, second, bias, y);
    gate(&y[..SLOT], &y[SLOT..], z);
}

/// Gradients of a block's second layer, added to.
pub(super) struct Second<'a> {
    /// [H][2][LANES].
    pub(super) weight: &'a mut [f32],
    /// [2][LANES].
    pub(super) bias: &'a mut [f32],
}

/// From dz, one slot: dtraces (added to) of the last M slots, and dh [O slots].
pub(super) fn adjoint(
    shape: Shape,
    packed: &Packed<'_>,
    block: usize,
    traces: &[f32],
    dz: &[f32],
    scratch: &mut Scratch,
    second: Second<'_>,
    dh: &mut [f32],
    dtraces: &mut [f32],
) {
    let Scratch { h, g, y, open, dg, dy } = scratch;
    let (memory, outputs, hidden) = (shape.memory, shape.outputs(), shape.hidden);
    let (level1, bias) = (of(&packed.level1, block, shape), of(&packed.level1_bias, block, shape));
    lanewise::product(memory, outputs, traces, level1, bias, h);
    let (values, gates) = h.split_at(h.len() / 2);
    let (dvalues, dgates) = dh.split_at_mut(h.len() / 2);
    if hidden == 0 {
        gate_adjoint(values, gates, dz, dvalues, dgates);
    } else {
        let level2 = of(&packed.level2, block, shape);
        open_gate(values, gates, g, open);
        lanewise::product(hidden, 2, g, level2, of(&packed.level2_bias, block, shape), y);
        let (dvalue, dgate) = dy.split_at_mut(SLOT);
        gate_adjoint(&y[..SLOT], &y[SLOT..], dz, dvalue, dgate);
        lanewise::outer(1, hidden, 2, g, dy, second.weight);
        add_rows(dy, second.bias);
        dg.fill(0.0);
        lanewise::adjoint(hidden, 2, dy, level2, dg);
        opened_adjoint(values, open, dg, dvalues, dgates);
    }
    lanewise::adjoint(memory, outputs, dh, level1, dtraces);
}

multiversion! {
    /// sums [slots][LANES] += the rows of each slot.
    pub(super) fn add_rows(slots: &[f32], sums: &mut [f32]) {
        for (slot, sums) in slots.chunks_exact(SLOT).zip(sums.chunks_exact_mut(LANES)) {
            for r in 0..ROWS {
                let row = &slot[r * LANES..][..LANES];
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        }
    }
}

multiversion! {
    /// values × σ(gates), for as many as `out` has.
    fn gate(values: &[f32], gates: &[f32], out: &mut [f32]) {
        for ((out, value), gate) in out.iter_mut().zip(values).zip(gates) {
            *out = value * math::sigmoid(*gate);
        }
    }
}

multiversion! {
    /// As `gate`, and σ(gates).
    fn open_gate(values: &[f32], gates: &[f32], out: &mut [f32], open: &mut [f32]) {
        let count = out.len();
        let (values, gates, open) = (&values[..count], &gates[..count], &mut open[..count]);
        for n in 0..count {
            open[n] = math::sigmoid(gates[n]);
            out[n] = values[n] * open[n];
        }
    }
}

multiversion! {
    /// (dvalue, dgate) of value × σ(gate).
    fn gate_adjoint(
        values: &[f32], gates: &[f32], dout: &[f32], dvalue: &mut [f32], dgate: &mut [f32],
    ) {
        let count = dout.len();
        let (values, gates) = (&values[..count], &gates[..count]);
        let (dvalue, dgate) = (&mut dvalue[..count], &mut dgate[..count]);
        for n in 0..count {
            let open = math::sigmoid(gates[n]);
            dvalue[n] = dout[n] * open;
            dgate[n] = dout[n] * values[n] * open * (1.0 - open);
        }
    }
}

multiversion! {
    /// As `gate_adjoint`, from σ(gate).
    fn opened_adjoint(
        values: &[f32], open: &[f32], dout: &[f32], dvalue: &mut [f32], dgate: &mut [f32],
    ) {
        let count = dout.len();
        let (values, open) = (&values[..count], &open[..count]);
        let (dvalue, dgate) = (&mut dvalue[..count], &mut dgate[..count]);
        for n in 0..count {
            dvalue[n] = dout[n] * open[n];
            dgate[n] = dout[n] * values[n] * open[n] * (1.0 - open[n]);
        }
    }
}
