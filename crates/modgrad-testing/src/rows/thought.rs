//! Rows of Continuous Thought Machines.

use modgrad_graph::{DType, Op};

use super::super::random::Operand;
use super::{Table, forward};

pub(super) fn add_to(table: &mut Table) {
    // [B, T, N, S]
    for [batch, ticks, neurons, pairs] in
        [[1, 1, 1, 1], [2, 5, 4, 3], [1, 9, 17, 20], [0, 2, 3, 2], [2, 0, 3, 2], [2, 3, 3, 0]]
    {
        synchronisation(table, batch, ticks, neurons, pairs);
    }
    // [B, T, N, C, L, heads, M, hidden, S]
    for sizes in [
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
        [2, 4, 8, 4, 3, 2, 2, 2, 3],
        [5, 3, 6, 4, 2, 1, 4, 0, 4],
        [3, 2, 17, 6, 5, 3, 3, 3, 9],
        [1, 5, 7, 2, 4, 2, 2, 1, 0],
        [2, 3, 4, 2, 1, 1, 5, 2, 3],
        [0, 2, 2, 2, 2, 1, 2, 2, 2],
    ] {
        think(table, sizes, &[], false);
    }
    // More ticks than memory and fewer, deep neuron models and shallow, a deep synapse.
    for (sizes, below) in [
        ([2, 5, 6, 4, 4, 2, 3, 2, 5], &[5][..]),
        ([1, 2, 6, 4, 4, 1, 3, 0, 5], &[5, 4]),
        ([1, 5, 18, 4, 1, 1, 2, 1, 0], &[17]),
    ] {
        think(table, sizes, below, false);
        think(table, sizes, below, true);
    }
    for sizes in [[5, 3, 6, 4, 2, 1, 4, 0, 4], [3, 2, 17, 6, 5, 3, 3, 3, 9]] {
        think(table, sizes, &[], true);
    }
}

fn synchronisation(table: &mut Table, batch: usize, ticks: usize, neurons: usize, pairs: usize) {
    let random = &mut table.random;
    let operands = vec![
        random.floats(&[batch, neurons]),
        random.floats(&[batch, ticks, neurons]),
        random.indices(&[pairs], neurons as u64, DType::I32),
        random.indices(&[pairs], neurons as u64, DType::I32),
        random.positive(&[pairs]),
    ];
    let dout = random.floats(&[batch, ticks + 1, pairs]);
    table.add(Op::Synchronisation, operands.clone());
    table.add_fixed(Op::SynchronisationGradient, [operands, vec![dout]].concat());
}

/// `below`: the widths of the synapse under the first; none, a layer with a gate.
fn think(table: &mut Table, sizes: [usize; 9], below: &[usize], projected: bool) {
    let [batch, ticks, neurons, width, tokens, heads, memory, hidden, pairs] = sizes;
    let outputs = if hidden == 0 { 2 } else { 2 * hidden };
    let random = &mut table.random;
    let mut operands: Vec<Operand> = vec![
        random.small(&[batch, tokens, width]),
        random.small(&[batch, tokens, width]),
        random.small(&[batch, neurons]),
        random.small(&[batch, neurons, memory]),
        random.indices(&[pairs], neurons as u64, DType::I32),
        random.indices(&[pairs], neurons as u64, DType::I32),
        random.positive(&[pairs]),
        random.small(&[width, pairs]),
        random.small(&[width]),
    ];
    let mut inner = width + neurons;
    let down = [&[neurons], below].concat();
    let up = down[..below.len()].iter().rev();
    for (layer, &wide) in down.iter().chain(up).enumerate() {
        let columns = if below.is_empty() { 2 * wide } else { wide };
        operands.push(random.small(&[inner, columns]));
        operands.push(random.small(&[columns]));
        for _ in 0..if layer > below.len() { 2 } else { 1 } {
            operands.push(random.positive(&[wide]));
            operands.push(random.small(&[wide]));
        }
        inner = wide;
    }
    operands.push(random.small(&[memory, outputs, neurons]));
    operands.push(random.small(&[outputs, neurons]));
    if hidden > 0 {
        operands.push(random.small(&[hidden, 2, neurons]));
        operands.push(random.small(&[2, neurons]));
    }
    if projected {
        for _ in 0..2 {
            operands.push(random.small(&[width, width]));
            operands.push(random.small(&[width]));
        }
        operands.push(random.positive(&[if hidden == 0 { 1 } else { 2 }]));
    }
    let depth = below.len() + 1;
    let op = Op::Think { ticks, heads, hidden, depth, projected };
    let results = forward(op.clone(), &operands);
    let dstates = table.random.floats(&[batch, ticks, neurons]);
    let dtrace = table.random.floats(&[batch, neurons, memory]);
    table.add_with(op, operands.clone(), &[0, 1]);
    let operands = [operands, results, vec![dstates, dtrace]].concat();
    let op = Op::ThinkGradient { ticks, heads, hidden, depth, projected };
    table.add_fixed(op, operands);
}
