//! Muon's update of one weight matrix (Jordan et al., 2024).
//!
//! The momentum matrix is pushed towards its nearest semi-orthogonal matrix by
//! the quintic Newton–Schulz iteration X ← aX + (bA + cA²)X, A = XXᵀ.

use modgrad_compute::gemm::{Matrix, Output, Precision, gemm};
use modgrad_compute::{Pool, optimiser};

use super::HostMemory;
use crate::backend::{Muon, Update};

/// Coefficients of the iteration, from the reference implementation of Muon:
/// they trade exact convergence for a steep slope at zero.
const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;

pub(super) fn update(
    pool: &Pool,
    rule: Muon,
    rows: usize,
    columns: usize,
    update: Update<'_, HostMemory>,
    velocity: &mut HostMemory,
) {
    let at = update.stretch;
    let mut direction = vec![0.0f32; rows * columns];
    optimiser::muon_momentum(
        pool,
        rule.momentum,
        rule.nesterov,
        update.gradient.slice(at),
        rule.gradient_scale,
        velocity.slice_mut(at),
        &mut direction,
    );
    orthogonalise(pool, &mut direction, rows, columns, rule.steps);
    // Keller Jordan's scale: the update's size does not depend on the shape.
    let scale = (rows as f32 / columns as f32).max(1.0).sqrt();
    optimiser::muon_apply(
        pool,
        rule.learning_rate,
        rule.weight_decay,
        scale,
        &direction,
        update.parameter.slice_mut(at),
        update.shadow.map(|shadow| shadow.slice_mut(at)),
    );
}

fn orthogonalise(pool: &Pool, x: &mut Vec<f32>, rows: usize, columns: usize, steps: u32) {
    let norm = modgrad_compute::reduce::sum_of_squares(pool, x).sqrt() as f32;
    let scale = 1.0 / (norm + 1e-7);
    x.iter_mut().for_each(|value| *value *= scale);
    // The Gram matrix is taken on the shorter side.
    let wide = rows <= columns;
    let side = rows.min(columns);
    let mut gram = vec![0.0f32; side * side];
    let mut polynomial = vec![0.0f32; side * side];
    let mut next = vec![0.0f32; rows * columns];
    for _ in 0..steps {
        let matrix = Matrix::f32(x, rows, columns);
        let (left, right) =
            if wide { (matrix, matrix.transposed()) } else { (matrix.transposed(), matrix) };
        product(pool, left, right, &mut gram);
        let square = Matrix::f32(&gram, side, side);
        product(pool, square, square, &mut polynomial);
        for (index, (square, gram)) in polynomial.iter_mut().zip(&gram).enumerate() {
            let identity = if index % (side + 1) == 0 { A } else { 0.0 };
            *square = identity + B * gram + C * *square;
        }
        let factor = Matrix::f32(&polynomial, side, side);
        if wide {
            product(pool, factor, matrix, &mut next);
        } else {
            product(pool, matrix, factor, &mut next);
        }
        std::mem::swap(x, &mut next);
    }
}

fn product(pool: &Pool, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    gemm(pool, Precision::Bf16, a, b, Output::F32(out), false, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_come_close_to_one() {
        let pool = Pool::new(1);
        for (rows, columns) in [(1, 1), (5, 9), (16, 16), (33, 12)] {
            let mut x: Vec<f32> =
                (0..rows * columns).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect();
            orthogonalise(&pool, &mut x, rows, columns, 5);
            let side = rows.min(columns);
            // The trace of XXᵀ is the sum of squared singular values.
            let trace: f32 = x.iter().map(|value| value * value).sum();
            let mean = trace / side as f32;
            assert!((0.4..1.6).contains(&mean), "{rows}x{columns}: {mean}");
        }
    }
}
