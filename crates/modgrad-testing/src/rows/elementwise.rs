//! Rows of leaves, elementwise ops and reductions.

use modgrad_compute::function::{BinaryFunction, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_graph::{DType, Op};

use super::{Table, forward};

const SHAPES: &[&[usize]] = &[&[], &[0], &[1], &[7], &[33], &[2, 3, 5], &[0, 4], &[3, 67]];

pub(super) fn add_to(table: &mut Table) {
    for &shape in SHAPES {
        table.add(Op::Constant { shape: shape.to_vec(), value: -1.5 }, vec![]);
    }
    unary(table);
    binary(table);
    for &shape in SHAPES {
        let x = table.random.floats(shape);
        table.add(Op::Affine { scale: -0.75, offset: 0.5 }, vec![x]);
        for dtype in [DType::I32, DType::U8] {
            let x = table.random.indices(shape, 200, dtype);
            table.add_fixed(Op::ToFloat, vec![x]);
        }
        for (probability, stream) in [(0.0, 0), (0.25, 1), (0.9, u64::MAX)] {
            let x = table.random.floats(shape);
            table.add(Op::Dropout { probability, stream }, vec![x]);
        }
    }
    reductions(table);
}

fn unary(table: &mut Table) {
    for &function in UnaryFunction::ALL {
        let shapes = if function == UnaryFunction::Silu { SHAPES } else { &SHAPES[4..6] };
        for &shape in shapes {
            let positive_only = matches!(
                function,
                UnaryFunction::Log | UnaryFunction::Sqrt | UnaryFunction::Reciprocal
            );
            let x = if positive_only {
                table.random.positive(shape)
            } else {
                table.random.floats(shape)
            };
            let dy = table.random.floats(shape);
            table.add(Op::Unary { function }, vec![x.clone()]);
            table.add_fixed(Op::UnaryGradient { function }, vec![x, dy]);
        }
    }
}

fn binary(table: &mut Table) {
    const PAIRS: &[(&[usize], &[usize])] = &[
        (&[], &[]),
        (&[0], &[0]),
        (&[0], &[1]),
        (&[17], &[17]),
        (&[2, 3, 5], &[5]),
        (&[3, 1], &[2, 1, 7]),
        (&[1, 4], &[3, 1]),
        (&[4, 33], &[]),
        (&[1, 1], &[]),
        (&[2, 0, 3], &[1, 3]),
    ];
    for &function in BinaryFunction::ALL {
        for &(x, y) in PAIRS {
            let (x, y) = match function {
                BinaryFunction::Divide => (table.random.floats(x), table.random.away_from_zero(y)),
                // Never equal: at a tie the maximum has no derivative.
                _ => (table.random.of_parity(x, false), table.random.of_parity(y, true)),
            };
            table.add(Op::Binary { function }, vec![x, y]);
        }
    }
}

fn reductions(table: &mut Table) {
    const CASES: &[(&[usize], usize)] = &[
        (&[1], 0),
        (&[7], 0),
        (&[3, 33], 0),
        (&[3, 33], 1),
        (&[2, 3, 5], 1),
        (&[2, 1, 5], 1),
        (&[0, 3], 1),
        (&[4, 0], 0),
    ];
    for kind in [Reduction::Sum, Reduction::Mean, Reduction::Maximum] {
        for &(shape, axis) in CASES {
            let x = table.random.distinct(shape);
            table.add(Op::Reduce { kind, axis }, vec![x]);
        }
    }
    let x = table.random.floats(&[3, 0, 2]);
    table.add(Op::Reduce { kind: Reduction::Sum, axis: 1 }, vec![x]);
    for &(shape, axis) in CASES {
        maximum_gradient(table, shape, axis, false);
        maximum_gradient(table, shape, axis, true);
        let mut x = table.random.floats(shape);
        table.add_fixed(Op::OneHotMax { axis }, vec![x.clone()]);
        x.array = x.array.map(f64::trunc);
        table.add_fixed(Op::OneHotMax { axis }, vec![x]);
    }
}

/// With `ties`, all elements are among a few values.
fn maximum_gradient(table: &mut Table, shape: &[usize], axis: usize, ties: bool) {
    let mut x = table.random.distinct(shape);
    if ties {
        x.array = x.array.map(f64::trunc);
    }
    let y = forward(Op::Reduce { kind: Reduction::Maximum, axis }, std::slice::from_ref(&x));
    let dy = table.random.floats(&y[0].array.shape);
    table.add_fixed(Op::MaximumGradient { axis }, vec![x, y[0].clone(), dy]);
}
