//! Updates by a gradient that is a product of two thin matrices.
//!
//! A weight's gradient is dyᵀ·x. Where few positions were trained on, the two
//! factors are far smaller than the product: it is formed block by block in
//! cache, right where it is used, and never written to memory.

use super::{AdamW, AdamWRates, Shadow, adamw_range};
use crate::elementwise::{ELEMENTS_PER_THREAD, expect_length};
use crate::gemm::{Matrix, Output, Precision, gemm};
use crate::pool::SharedMut;
use crate::{Pool, bf16};
use std::cell::Cell;

/// Elements of the gradient that are formed at a time, 512 KiB: they stay in the
/// second-level cache, and the factors are seldom packed again. 32 and 128 KiB
/// were slower.
const BLOCK_ELEMENTS: usize = 1 << 17;
/// Blocks begin at multiples of this many rows, which all kernels like.
const ROW_MULTIPLE: usize = 16;

thread_local! {
    /// A block of the gradient, kept from one update to the next.
    static BLOCK: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// One step of AdamW by the gradient `left`·`right`: bit for bit what
/// [`super::adamw`] makes of the product that [`gemm`] writes.
#[allow(clippy::too_many_arguments)]
pub fn adamw_of_product(
    pool: &Pool,
    settings: AdamW,
    precision: Precision,
    left: Matrix,
    right: Matrix,
    parameter: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    shadow: Option<&mut [bf16]>,
) {
    assert!(settings.step > 0, "`adamw_of_product`: steps count from 1");
    let columns = right.columns;
    expect_length("adamw_of_product", "parameter", parameter.len(), left.rows * columns);
    expect_length("adamw_of_product", "first", first.len(), parameter.len());
    expect_length("adamw_of_product", "second", second.len(), parameter.len());
    let shadow = Shadow::new("adamw_of_product", shadow, parameter.len());
    let rates = AdamWRates::new(settings);
    let (first, second) = (SharedMut::new(first), SharedMut::new(second));
    let alone = Pool::new(1);
    let block = (BLOCK_ELEMENTS / columns.max(1)).max(1).next_multiple_of(ROW_MULTIPLE);
    let least = ELEMENTS_PER_THREAD.div_ceil(columns.max(1)).next_multiple_of(ROW_MULTIPLE);
    pool.for_rows(parameter, columns, least, |row, parameters| {
        let mut gradient = BLOCK.take();
        gradient.resize((block * columns).max(gradient.len()), 0.0);
        for (index, parameter) in parameters.chunks_mut(block * columns).enumerate() {
            let row = row + index * block;
            let gradient = &mut gradient[..parameter.len()];
            let rows = left.rows_from(row, parameter.len() / columns);
            gemm(&alone, precision, rows, right, Output::F32(gradient), false, None);
            let range = row * columns..row * columns + parameter.len();
            // SAFETY: the ranges of one region are disjoint.
            let (first, second) =
                unsafe { (first.slice(range.clone()), second.slice(range.clone())) };
            // SAFETY: as above.
            let shadow = unsafe { shadow.part(range) };
            adamw_range(rates, parameter, gradient, first, second, shadow);
        }
        BLOCK.set(gradient);
    });
}

/// Σ x² over the elements of each `left`·`right`, all added: by
/// ‖A·B‖² = Σ (AᵀA) ∘ (BBᵀ) (Goodfellow, arXiv 1510.01799), without the products.
pub fn sum_of_squares_of_products(
    pool: &Pool,
    precision: Precision,
    products: &[(Matrix, Matrix)],
) -> f64 {
    let mut sums = vec![0.0f64; products.len()];
    let alone = Pool::new(1);
    pool.for_rows(&mut sums, 1, 1, |start, sums| {
        for (sum, &(left, right)) in sums.iter_mut().zip(&products[start..]) {
            let inner = left.columns;
            let (mut of_left, mut of_right) = (vec![0.0; inner * inner], vec![0.0; inner * inner]);
            let out = Output::F32(&mut of_left);
            gemm(&alone, precision, left.transposed(), left, out, false, None);
            let out = Output::F32(&mut of_right);
            gemm(&alone, precision, right, right.transposed(), out, false, None);
            let both = of_left.iter().zip(&of_right);
            *sum = both.map(|(&left, &right)| f64::from(left) * f64::from(right)).sum();
            // Rounding may leave a trace below zero; NaN stays.
            if *sum < 0.0 {
                *sum = 0.0;
            }
        }
    });
    sums.iter().sum()
}
