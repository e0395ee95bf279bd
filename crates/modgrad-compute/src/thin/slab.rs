//! Products of a slab of rows, any number of them and any width, on one thread
//! and without packing: for loops over time whose operands stay in its cache.
//!
//! The sum that forms an element runs in the same order whatever stands in the
//! other rows.

use super::Only;
use crate::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2Vector, Avx512Vector};
use crate::vector::{PortableVector, Vector};

/// Sizes of a product.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inner: usize,
    width: usize,
}

/// y[r, n] += Σ_k x[r, k]·w[k, n]: x is [rows][k], w is [k][n], y is [rows][n].
///
/// Panics when the lengths disagree.
pub fn slab_product(inner: usize, width: usize, x: &[f32], w: &[f32], y: &mut [f32]) {
    let rows = y.len() / width.max(1);
    assert_eq!(x.len(), rows * inner, "`slab_product`: size of x");
    assert_eq!(w.len(), inner * width, "`slab_product`: size of w");
    assert_eq!(y.len(), rows * width, "`slab_product`: size of y");
    on_active_vector!(product_of(Sizes { rows, inner, width }, x, w, y));
}

/// dw[k, n] += Σ_r x[r, k]·dy[r, n]: the adjoint of [`slab_product`] to its w.
///
/// Panics when the lengths disagree.
pub fn slab_outer(inner: usize, width: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let rows = dy.len() / width.max(1);
    assert_eq!(x.len(), rows * inner, "`slab_outer`: size of x");
    assert_eq!(dy.len(), rows * width, "`slab_outer`: size of dy");
    assert_eq!(dw.len(), inner * width, "`slab_outer`: size of dw");
    on_active_vector!(outer_of(Sizes { rows, inner, width }, x, dy, dw));
}

multiversion! {
    fn product_of[V: Vector](_vector: Only<V>, sizes: Sizes, x: &[f32], w: &[f32], y: &mut [f32]) {
        let Sizes { rows, inner, width } = sizes;
        let mut row = 0;
        while row + 6 <= rows {
            row_tiles::<V, 6>(sizes, row, x, w, y);
            row += 6;
        }
        while row + 2 <= rows {
            row_tiles::<V, 2>(sizes, row, x, w, y);
            row += 2;
        }
        if row < rows {
            row_tiles::<V, 1>(sizes, row, x, w, y);
        }
        for row in 0..rows {
            for column in width / V::LANES * V::LANES..width {
                for k in 0..inner {
                    y[row * width + column] += x[row * inner + k] * w[k * width + column];
                }
            }
        }
    }
}

/// R rows of a product, as far as whole vectors reach.
#[inline(always)]
fn row_tiles<V: Vector, const R: usize>(
    sizes: Sizes,
    row: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) {
    let mut column = 0;
    // Six rows of four vectors and their weights fill the 32 registers of AVX-512,
    // six of two the 16 of AVX2.
    while V::LANES == 16 && column + 4 * V::LANES <= sizes.width {
        product_tile::<V, R, 4>(sizes, row, column, x, w, y);
        column += 4 * V::LANES;
    }
    while column + 2 * V::LANES <= sizes.width {
        product_tile::<V, R, 2>(sizes, row, column, x, w, y);
        column += 2 * V::LANES;
    }
    if column + V::LANES <= sizes.width {
        product_tile::<V, R, 1>(sizes, row, column, x, w, y);
    }
}

#[inline(always)]
fn product_tile<V: Vector, const R: usize, const N: usize>(
    Sizes { inner, width, .. }: Sizes,
    row: usize,
    column: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) {
    let x: [&[f32]; R] = std::array::from_fn(|r| &x[(row + r) * inner..][..inner]);
    let mut sums = [[V::splat(0.0); N]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&y[(row + r) * width + column + n * V::LANES..]);
        }
    }
    for k in 0..inner {
        let w = &w[k * width + column..][..N * V::LANES];
        let w: [V; N] = std::array::from_fn(|n| V::load(&w[n * V::LANES..]));
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = V::splat(x[k]);
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = sum.multiply_add(x, w);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut y[(row + r) * width + column + n * V::LANES..]);
        }
    }
}

multiversion! {
    fn outer_of[V: Vector](_vector: Only<V>, sizes: Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let Sizes { rows, inner, width } = sizes;
        let mut k = 0;
        while k + 6 <= inner {
            outer_tiles::<V, 6>(sizes, k, x, dy, dw);
            k += 6;
        }
        while k + 2 <= inner {
            outer_tiles::<V, 2>(sizes, k, x, dy, dw);
            k += 2;
        }
        if k < inner {
            outer_tiles::<V, 1>(sizes, k, x, dy, dw);
        }
        for row in 0..rows {
            for k in 0..inner {
                for column in width / V::LANES * V::LANES..width {
                    dw[k * width + column] += x[row * inner + k] * dy[row * width + column];
                }
            }
        }
    }
}

#[inline(always)]
fn outer_tiles<V: Vector, const K: usize>(
    sizes: Sizes,
    k: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let mut column = 0;
    while V::LANES == 16 && column + 4 * V::LANES <= sizes.width {
        outer_tile::<V, K, 4>(sizes, k, column, x, dy, dw);
        column += 4 * V::LANES;
    }
    while column + 2 * V::LANES <= sizes.width {
        outer_tile::<V, K, 2>(sizes, k, column, x, dy, dw);
        column += 2 * V::LANES;
    }
    if column + V::LANES <= sizes.width {
        outer_tile::<V, K, 1>(sizes, k, column, x, dy, dw);
    }
}

#[inline(always)]
fn outer_tile<V: Vector, const K: usize, const N: usize>(
    Sizes { rows, inner, width }: Sizes,
    k: usize,
    column: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); N]; K];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&dw[(k + i) * width + column + n * V::LANES..]);
        }
    }
    for row in 0..rows {
        let dy = &dy[row * width + column..][..N * V::LANES];
        let dy: [V; N] = std::array::from_fn(|n| V::load(&dy[n * V::LANES..]));
        let x = &x[row * inner + k..][..K];
        for (sums, &x) in sums.iter_mut().zip(x) {
            let x = V::splat(x);
            for (sum, dy) in sums.iter_mut().zip(dy) {
                *sum = sum.multiply_add(x, dy);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut dw[(k + i) * width + column + n * V::LANES..]);
        }
    }
}
