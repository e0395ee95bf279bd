//! Rows of products of matrices.

use modgrad_graph::Op;

use super::Table;

pub(super) fn add_to(table: &mut Table) {
    const SIZES: &[(usize, usize, usize)] =
        &[(1, 1, 1), (3, 4, 5), (2, 17, 33), (16, 16, 16), (0, 3, 2), (3, 0, 2), (3, 2, 0)];
    for &(m, k, n) in SIZES {
        for (transpose_a, transpose_b) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let op = Op::MatMul { transpose_a, transpose_b };
            for leading in [&[][..], &[2], &[2, 3], &[0]] {
                let a = table.random.floats(&matrix(leading, m, k, transpose_a));
                let b = table.random.floats(&matrix(leading, k, n, transpose_b));
                table.add(op.clone(), vec![a, b]);
            }
            if !transpose_a {
                let a = table.random.floats(&[2, 3, m, k]);
                let b = table.random.floats(&matrix(&[], k, n, transpose_b));
                table.add(op, vec![a, b]);
            }
        }
    }
    const LINEARS: &[(&[usize], usize)] = &[
        (&[1], 1),
        (&[5], 3),
        (&[2, 3, 17], 9),
        (&[33, 16], 32),
        (&[0, 4], 3),
        (&[3, 0], 2),
        (&[3, 2], 0),
    ];
    for &(shape, n) in LINEARS {
        let x = table.random.floats(shape);
        let weight = table.random.floats(&[n, shape[shape.len() - 1]]);
        let bias = table.random.floats(&[n]);
        table.add(Op::Linear, vec![x.clone(), weight.clone()]);
        table.add(Op::Linear, vec![x, weight, bias]);
    }
}

/// The stored shape of `rows` by `columns`.
fn matrix(leading: &[usize], rows: usize, columns: usize, transposed: bool) -> Vec<usize> {
    let sizes = if transposed { [columns, rows] } else { [rows, columns] };
    [leading, &sizes].concat()
}
