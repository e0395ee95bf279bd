//! Rows of thoughts on a lattice.

use modgrad_graph::{DType, Op};

use super::super::random::Operand;
use super::{Table, forward};

pub(super) fn add_to(table: &mut Table) {
    // [B, Y, X, C, M, R, ticks, kept]
    for sizes in [
        [1, 1, 1, 4, 1, 1, 1, 1],
        [2, 3, 2, 4, 2, 3, 5, 5],
        [1, 2, 4, 8, 3, 2, 2, 2],
        [0, 2, 2, 4, 2, 1, 2, 2],
        [2, 5, 6, 8, 1, 2, 4, 4],
    ] {
        think(table, sizes, true);
    }
    // The gradient is cut off, so that it is not that of differences.
    for sizes in [[2, 3, 3, 4, 2, 2, 9, 3], [1, 5, 5, 32, 4, 2, 12, 5], [3, 1, 2, 4, 1, 1, 6, 1]] {
        think(table, sizes, false);
    }
    for [batch, height, width, steps] in [[1, 1, 1, 1], [2, 3, 4, 9], [0, 2, 2, 2], [3, 2, 1, 0]] {
        let policy = table.random.distinct(&[batch, height, width, 5]);
        let start = table.random.distinct(&[batch, height, width]);
        table.add_fixed(Op::Walk { steps }, vec![policy, start]);
    }
}

fn think(table: &mut Table, sizes: [usize; 8], whole: bool) {
    let [batch, height, width, channels, memory, reads, ticks, kept] = sizes;
    let pairs = 2 * channels;
    let random = &mut table.random;
    let operands: Vec<Operand> = vec![
        random.small(&[batch, height, width, pairs]),
        random.small(&[memory, channels]),
        random.small(&[pairs, pairs]),
        random.small(&[memory, 2, channels]),
        random.small(&[2, channels]),
        random.positive(&[pairs]),
        random.indices(&[reads], ticks as u64 + 1, DType::I32),
    ];
    let op = Op::SpatialThink { ticks, kept };
    let results = forward(op.clone(), &operands);
    let dreadings = table.random.floats(&[batch, reads, height, width, pairs]);
    if whole {
        table.add(op, operands.clone());
    } else {
        table.add_fixed(op, operands.clone());
        table.add_fixed(Op::SpatialThink { ticks, kept: 0 }, operands.clone());
        table.add_fixed(Op::SpatialThink { ticks, kept: ticks }, operands[..6].to_vec());
    }
    let operands = [operands, results, vec![dreadings]].concat();
    table.add_fixed(Op::SpatialThinkGradient { ticks, kept }, operands);
}
