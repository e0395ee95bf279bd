//! Rows of norms, gates, softmax and cross-entropy.

use modgrad_compute::function::GateActivation;
use modgrad_graph::{DType, Op};

use super::{Table, forward};

const SHAPES: &[&[usize]] = &[&[7], &[3, 2], &[2, 3, 17], &[5, 64], &[0, 4], &[2, 1]];

pub(super) fn add_to(table: &mut Table) {
    for &shape in SHAPES {
        norms(table, shape);
        softmax(table, shape);
        cross_entropy(table, shape);
    }
    for activation in GateActivation::ALL {
        for shape in [&[2][..], &[3, 10], &[2, 3, 34], &[0, 4], &[3, 0]] {
            gate(table, *activation, shape);
        }
    }
}

fn norms(table: &mut Table, shape: &[usize]) {
    let width = &shape[shape.len() - 1..];
    // Not far from 0: in a row of one channel x/√(x² + ε) is nearly flat.
    let x = table.random.small(shape);
    let (weight, bias) = (table.random.floats(width), table.random.floats(width));
    let dy = table.random.floats(shape);
    for epsilon in [0.01, 1.0] {
        let op = Op::RmsNorm { epsilon };
        let operands = vec![x.clone(), weight.clone()];
        let inverse_rms = forward(op.clone(), &operands).remove(1);
        table.add(op, operands);
        table.add_fixed(
            Op::RmsNormGradient,
            vec![x.clone(), weight.clone(), inverse_rms, dy.clone()],
        );

        let op = Op::LayerNorm { epsilon };
        let operands = vec![x.clone(), weight.clone(), bias.clone()];
        let [_, mean, inverse_deviation] = forward(op.clone(), &operands).try_into().unwrap();
        table.add(op, operands);
        table.add_fixed(
            Op::LayerNormGradient,
            vec![x.clone(), weight.clone(), mean, inverse_deviation, dy.clone()],
        );
    }
}

fn softmax(table: &mut Table, shape: &[usize]) {
    let x = table.random.floats(shape);
    let y = forward(Op::Softmax, std::slice::from_ref(&x)).remove(0);
    let dy = table.random.floats(shape);
    table.add(Op::Softmax, vec![x]);
    table.add_fixed(Op::SoftmaxGradient, vec![y, dy]);
}

fn cross_entropy(table: &mut Table, shape: &[usize]) {
    let (&classes, rows) = shape.split_last().unwrap();
    for dtype in [DType::I32, DType::U8] {
        let logits = table.random.floats(shape);
        let targets = table.random.indices(rows, classes as u64, dtype);
        let operands = vec![logits, targets];
        let logsumexp = forward(Op::CrossEntropy, &operands).remove(1);
        let dloss = table.random.floats(rows);
        table.add_with(Op::CrossEntropy, operands.clone(), &[0]);
        table.add_with(Op::CrossEntropy, operands.clone(), &[0, 1]);
        table.add_with(Op::CrossEntropy, operands.clone(), &[1]);
        table.add_fixed(Op::CrossEntropyGradient, [operands, vec![logsumexp, dloss]].concat());
    }
}

fn gate(table: &mut Table, activation: GateActivation, shape: &[usize]) {
    let (&width, leading) = shape.split_last().unwrap();
    let x = table.random.floats(shape);
    let dy = table.random.floats(&[leading, &[width / 2]].concat());
    table.add(Op::GatedLinearUnit { activation }, vec![x.clone()]);
    table.add_fixed(Op::GatedLinearUnitGradient { activation }, vec![x, dy]);
}
