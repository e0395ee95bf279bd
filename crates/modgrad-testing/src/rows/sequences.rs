//! Rows of attention, rotary embedding, convolution and recurrence.

use modgrad_graph::Op;

use super::{Table, forward};

/// [B, T, C]
const SEQUENCES: &[[usize; 3]] =
    &[[1, 1, 1], [2, 7, 3], [1, 5, 33], [3, 70, 2], [0, 2, 2], [2, 0, 2], [2, 2, 0]];

pub(super) fn add_to(table: &mut Table) {
    // [B, T, H, D]
    const ATTENTION: &[[usize; 4]] = &[
        [1, 1, 1, 1],
        [2, 5, 3, 4],
        [1, 33, 2, 16],
        [1, 70, 1, 8],
        [0, 3, 1, 2],
        [1, 0, 2, 4],
        [2, 3, 0, 4],
    ];
    for shape in ATTENTION {
        for window in [None, Some(1), Some(3), Some(1000), Some(usize::MAX)] {
            attention(table, shape, window);
        }
        for rotated in [0, 2, 4, 16].into_iter().filter(|&rotated| rotated <= shape[3]) {
            for inverse in [false, true] {
                let x = table.random.floats(shape);
                table.add(Op::Rope { base: 10_000.0, rotated, inverse }, vec![x]);
            }
        }
    }
    for shape in SEQUENCES {
        for taps in [1, 4, 9] {
            convolution(table, shape, taps);
        }
        scan(table, shape);
    }
}

pub(super) fn add_recurrences(table: &mut Table) {
    for shape in SEQUENCES {
        recurrence(table, shape);
    }
}

/// Heads wider than the channels that a block of a GPU sums at once.
pub(super) fn add_wide_heads(table: &mut Table) {
    for window in [None, Some(3)] {
        attention(table, &[1, 19, 1, 133], window);
    }
}

fn attention(table: &mut Table, shape: &[usize], window: Option<usize>) {
    let qkv: Vec<_> = (0..3).map(|_| table.random.floats(shape)).collect();
    let outputs = forward(Op::CausalAttention { window }, &qkv);
    let dout = table.random.floats(shape);
    table.add(Op::CausalAttention { window }, qkv.clone());
    let operands = [qkv, outputs, vec![dout]].concat();
    table.add_fixed(Op::CausalAttentionGradient { window }, operands);
}

fn convolution(table: &mut Table, shape: &[usize], taps: usize) {
    let x = table.random.floats(shape);
    let weight = table.random.floats(&[taps, shape[2]]);
    let dy = table.random.floats(shape);
    table.add(Op::CausalConvolution, vec![x.clone(), weight.clone()]);
    table.add_fixed(Op::CausalConvolutionGradient, vec![x, weight, dy]);
}

fn scan(table: &mut Table, shape: &[usize]) {
    let (a, b) = (table.random.small(shape), table.random.floats(shape));
    let h = forward(Op::LinearScan, &[a.clone(), b.clone()]).remove(0);
    let dh = table.random.floats(shape);
    table.add(Op::LinearScan, vec![a.clone(), b]);
    table.add_fixed(Op::LinearScanGradient, vec![a, h, dh]);
}

fn recurrence(table: &mut Table, shape: &[usize; 3]) {
    let x = table.random.floats(&[shape[0], shape[1], 3 * shape[2]]);
    let retention = table.random.floats(&shape[2..]);
    let dy = table.random.floats(shape);
    table.add(Op::GatedRecurrence, vec![x.clone(), retention.clone()]);
    table.add_fixed(Op::GatedRecurrenceGradient, vec![x, retention, dy]);
}
