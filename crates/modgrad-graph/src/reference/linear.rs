//! Products of matrices.

use super::Array;

/// out[..., i, j] = Σ_p a[..., i, p] · b[..., p, j]; a flag says that its
/// operand's last two axes are stored the other way round.
pub(super) fn mat_mul(transpose_a: bool, transpose_b: bool, a: &Array, b: &Array) -> Array {
    let (rank_a, rank_b) = (a.shape.len(), b.shape.len());
    let (m, k) = sizes(&a.shape, transpose_a);
    let (_, n) = sizes(&b.shape, transpose_b);
    let leading = &a.shape[..rank_a - 2];
    Array::from_fn(&[leading, &[m, n]].concat(), |index| {
        let (batch, i, j) = (&index[..rank_a - 2], index[rank_a - 2], index[rank_a - 1]);
        let batch_of_b = if rank_b == 2 { &[][..] } else { batch };
        (0..k)
            .map(|p| {
                element(a, batch, transpose_a, i, p) * element(b, batch_of_b, transpose_b, p, j)
            })
            .sum()
    })
}

/// Rows and columns as the product sees them.
fn sizes(shape: &[usize], transposed: bool) -> (usize, usize) {
    let (first, second) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    if transposed { (second, first) } else { (first, second) }
}

fn element(x: &Array, batch: &[usize], transposed: bool, row: usize, column: usize) -> f64 {
    let place = if transposed { [column, row] } else { [row, column] };
    x.at(&[batch, &place].concat())
}

/// y[..., j] = Σ_p x[..., p] · weight[j, p] + bias[j].
pub(super) fn linear(x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let width = weight.shape[0];
    let mut y = Array::zeros(&[x.leading(), &[width]].concat());
    for row in 0..x.rows() {
        for j in 0..width {
            let product: f64 = x.row(row).iter().zip(weight.row(j)).map(|(x, w)| x * w).sum();
            y.row_mut(row)[j] = product + bias.map_or(0.0, |bias| bias.data[j]);
        }
    }
    y
}
