//! Rows of ops that move elements.

use modgrad_graph::{DType, Op};

use super::Table;

pub(super) fn add_to(table: &mut Table) {
    reshapes(table);
    slices(table);
    gathers(table);
    for shape in [&[2, 5, 3][..], &[1, 1], &[3, 4], &[0, 3, 2], &[2, 0], &[1, 33, 2, 3]] {
        for amount in [0, 1, -1, 2, -4, 40, isize::MIN + 1, isize::MAX] {
            let x = table.random.floats(shape);
            table.add(Op::Shift { amount }, vec![x]);
        }
    }
}

fn reshapes(table: &mut Table) {
    const RESHAPES: &[(&[usize], &[usize])] =
        &[(&[], &[1, 1]), (&[1], &[]), (&[6], &[2, 3]), (&[2, 3, 5], &[5, 6]), (&[0, 3], &[7, 0])];
    for &(from, to) in RESHAPES {
        let x = table.random.floats(from);
        table.add(Op::Reshape { shape: to.to_vec() }, vec![x]);
    }
    let indices = table.random.indices(&[2, 3], 9, DType::I32);
    table.add_fixed(Op::Reshape { shape: vec![3, 2] }, vec![indices]);

    const TRANSPOSES: &[(&[usize], &[usize])] = &[
        (&[], &[]),
        (&[5], &[0]),
        (&[3, 17], &[1, 0]),
        (&[2, 3, 5], &[2, 0, 1]),
        (&[2, 1, 4, 3], &[0, 2, 1, 3]),
        (&[3, 0, 2], &[1, 2, 0]),
    ];
    for &(shape, permutation) in TRANSPOSES {
        let x = table.random.floats(shape);
        table.add(Op::Transpose { permutation: permutation.to_vec() }, vec![x]);
    }

    const BROADCASTS: &[(&[usize], &[usize])] = &[
        (&[], &[]),
        (&[], &[3, 2]),
        (&[1], &[0]),
        (&[5], &[3, 5]),
        (&[2, 1, 3], &[2, 4, 3]),
        (&[1, 17], &[2, 3, 17]),
        (&[4, 1], &[4, 0]),
    ];
    for &(from, to) in BROADCASTS {
        let x = table.random.floats(from);
        table.add(Op::BroadcastTo { shape: to.to_vec() }, vec![x]);
        let indices = table.random.indices(from, 9, DType::U8);
        table.add_fixed(Op::BroadcastTo { shape: to.to_vec() }, vec![indices]);
    }
}

fn slices(table: &mut Table) {
    const SLICES: &[(&[usize], usize, usize, usize, usize)] = &[
        (&[7], 0, 0, 7, 1),
        (&[7], 0, 2, 3, 1),
        (&[7], 0, 3, 3, 1),
        (&[17], 0, 1, 16, 3),
        (&[3, 5, 2], 1, 1, 5, 2),
        (&[3, 5, 2], 2, 1, 2, 9),
        (&[3, 33], 1, 16, 33, 1),
        (&[0, 4], 1, 1, 3, 1),
        (&[0], 0, 0, 0, 1),
        (&[5], 0, 4, 5, usize::MAX),
    ];
    for &(shape, axis, start, end, step) in SLICES {
        let x = table.random.floats(shape);
        table.add(Op::Slice { axis, start, end, step }, vec![x]);
        let mut taken = shape.to_vec();
        taken[axis] = (end - start).div_ceil(step);
        let dy = table.random.floats(&taken);
        let size = shape[axis];
        table.add_fixed(Op::SliceGradient { axis, start, step, size }, vec![dy]);
    }
    let tokens = table.random.text(&[2, 9]);
    table.add_fixed(Op::Slice { axis: 1, start: 1, end: 9, step: 1 }, vec![tokens]);

    const CONCATS: &[(&[&[usize]], usize)] = &[
        (&[&[3]], 0),
        (&[&[3], &[1], &[17]], 0),
        (&[&[2, 3, 2], &[2, 1, 2]], 1),
        (&[&[2, 3], &[2, 0], &[2, 2]], 1),
        (&[&[0, 3], &[0, 1]], 1),
    ];
    for &(shapes, axis) in CONCATS {
        let operands = shapes.iter().map(|shape| table.random.floats(shape)).collect();
        table.add(Op::Concat { axis }, operands);
    }
    let halves = [[2, 3, 1], [2, 3, 2]].map(|shape| table.random.indices(&shape, 50, DType::I32));
    table.add_fixed(Op::Concat { axis: 2 }, halves.to_vec());
}

fn gathers(table: &mut Table) {
    const GATHERS: &[(&[usize], usize, &[usize])] = &[
        (&[5], 0, &[]),
        (&[5], 0, &[9]),
        (&[1], 0, &[3]),
        (&[4, 3], 0, &[2, 5]),
        (&[4, 3], 1, &[7]),
        (&[2, 5, 17], 1, &[3, 1]),
        (&[3, 0], 0, &[2]),
        (&[3, 2], 1, &[0]),
        (&[0, 2], 0, &[0]),
    ];
    for &(shape, axis, indices_shape) in GATHERS {
        for dtype in [DType::I32, DType::U8] {
            let size = shape[axis].max(1) as u64;
            let x = table.random.floats(shape);
            let indices = table.random.indices(indices_shape, size, dtype);
            let taken = [&shape[..axis], indices_shape, &shape[axis + 1..]].concat();
            let dy = table.random.floats(&taken);
            table.add(Op::Gather { axis }, vec![x, indices.clone()]);
            table.add_fixed(Op::GatherGradient { axis, size: shape[axis] }, vec![indices, dy]);
        }
    }
}
