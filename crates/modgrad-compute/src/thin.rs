//! Products of a few rows, for loops over time: one thread, weights that stay in
//! its cache.
//!
//! [`ROWS`] rows go through together, so that each weight is loaded once for
//! them. The sum that forms an element runs in the same order whatever stands
//! in the other rows.
//!
//! A "slab" is any number of rows: see [`slab_product`].
//! [`lanewise`] products are those of neurons with weights of their own: there the
//! last axis is a block of [`LANES`] neurons, and nothing is summed across it.
//! [`tokens`] is what attention of one query needs.

mod buffer;
pub mod lanewise;
pub mod tokens;

pub use buffer::Buffer;

use crate::Pool;
use crate::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2Vector, Avx512Vector};
use crate::vector::{PortableVector, Vector};

/// Rows of one call.
pub const ROWS: usize = 4;
/// Neurons of a block.
pub const LANES: usize = 16;
/// Columns of a panel, if there are as many.
const PANEL: usize = 4 * LANES;

/// Calls the function with the vector of the active instruction set.
macro_rules! on_active_vector {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            let isa = crate::Isa::active();
            if isa >= crate::Isa::Avx512 {
                return $function(Only::<Avx512Vector>::new(), $($argument),*);
            }
            if isa >= crate::Isa::Avx2 {
                return $function(Only::<Avx2Vector>::new(), $($argument),*);
            }
        }
        $function(Only::<PortableVector>::new(), $($argument),*)
    }};
}
pub(crate) use on_active_vector;

mod slab;

pub use slab::{slab_outer, slab_product};

/// Names a vector type without holding one.
struct Only<V>(std::marker::PhantomData<V>);

impl<V> Only<V> {
    fn new() -> Self {
        Only(std::marker::PhantomData)
    }
}

/// Weights [inner, width] in panels of columns, each read from front to back by a
/// product. The width is a multiple of [`LANES`].
pub struct Panels {
    inner: usize,
    width: usize,
    /// Panel p holds columns from `p * PANEL` on: [inner][its width].
    data: Buffer,
}

impl Panels {
    /// From rows [·, parts · part] whose parts are each brought to a multiple of
    /// [`LANES`] by zeros, and which are brought to `inner` rows by zeros.
    ///
    /// Panics when the rows are not whole, or more than `inner`.
    pub fn new(pool: &Pool, rows: &[f32], inner: usize, part: usize, parts: usize) -> Panels {
        let (given, padded) = (part * parts, part.next_multiple_of(LANES));
        let width = padded * parts;
        let count = rows.len().checked_div(given).unwrap_or(0);
        assert!(count * given == rows.len() && count <= inner, "`Panels`: rows");
        let whole = part == padded && count == inner;
        let size = inner * width;
        let mut data = if whole { Buffer::any(size) } else { Buffer::zeros(size) };
        // A thread a few panels, each a stretch of its own; the last may be narrower.
        let few = (1usize << 15).div_ceil((inner * PANEL).max(1));
        pool.for_rows(&mut data, inner * PANEL, few, |first, panels| {
            fill(first, panels, rows, [inner, count, part, padded, width]);
        });
        let whole = inner * PANEL * (width / PANEL);
        fill(width / PANEL, &mut data[whole..], rows, [inner, count, part, padded, width]);
        Panels { inner, width, data }
    }

    /// The rows of weights.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// The columns.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// Copies a few values: without a call where they are a whole block.
///
/// Panics when the lengths disagree.
#[inline(always)]
pub fn copy_lanes(from: &[f32], to: &mut [f32]) {
    match (<&[f32; LANES]>::try_from(from), <&mut [f32; LANES]>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Fills panels from the number `first` on.
fn fill(first: usize, panels: &mut [f32], rows: &[f32], sizes: [usize; 5]) {
    let [inner, count, part, padded, width] = sizes;
    if inner == 0 || panels.is_empty() {
        return;
    }
    for (offset, panel) in panels.chunks_mut(inner * PANEL).enumerate() {
        let start = (first + offset) * PANEL;
        let wide = PANEL.min(width - start);
        let (which, within) = (start / padded, start % padded);
        if within + PANEL <= part {
            // All of the panel in one part: a few lines in one go.
            let first = which * part + within;
            let rows = rows.get(first..).unwrap_or_default().chunks(width / padded * part);
            for (row, out) in rows.zip(panel.chunks_exact_mut(PANEL)).take(count) {
                out.copy_from_slice(&row[..PANEL]);
            }
            continue;
        }
        for block in (0..wide).step_by(LANES) {
            let (which, within) = ((start + block) / padded, (start + block) % padded);
            let lanes = LANES.min(part - within);
            for k in 0..count {
                let from = (k * (width / padded) + which) * part + within;
                copy_lanes(&rows[from..][..lanes], &mut panel[k * wide + block..][..lanes]);
            }
        }
    }
}

/// y[r, n] = bias[n] + Σ_k x[r, k]·w[k, n]: x is [ROWS][inner], y is [ROWS][width].
///
/// Panics when the lengths disagree.
pub fn product(x: &[f32], w: &Panels, bias: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), ROWS * w.inner, "`thin::product`: size of x");
    assert_eq!(y.len(), ROWS * w.width, "`thin::product`: size of y");
    assert_eq!(bias.len(), w.width, "`thin::product`: size of the bias");
    on_active_vector!(product_of(w.inner, w.width, x, &w.data, bias, y));
}

multiversion! {
    fn product_of[V: Vector](
        _vector: Only<V>, inner: usize, width: usize, x: &[f32], w: &[f32], bias: &[f32],
        y: &mut [f32],
    ) {
        for start in (0..width).step_by(PANEL) {
            let wide = PANEL.min(width - start);
            let panel = &w[inner * start..][..inner * wide];
            let mut column = 0;
            while V::LANES == LANES && column + 4 * V::LANES <= wide {
                product_tile::<V, 4>(inner, width, x, panel, wide, column, bias, start, y);
                column += 4 * V::LANES;
            }
            while column + 2 * V::LANES <= wide {
                product_tile::<V, 2>(inner, width, x, panel, wide, column, bias, start, y);
                column += 2 * V::LANES;
            }
            while column < wide {
                product_tile::<V, 1>(inner, width, x, panel, wide, column, bias, start, y);
                column += V::LANES;
            }
        }
    }
}

#[inline(always)]
fn product_tile<V: Vector, const N: usize>(
    inner: usize,
    width: usize,
    x: &[f32],
    panel: &[f32],
    wide: usize,
    column: usize,
    bias: &[f32],
    start: usize,
    y: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); N]; ROWS];
    for sums in &mut sums {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&bias[start + column + n * V::LANES..]);
        }
    }
    let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &x[r * inner..][..inner]);
    for k in 0..inner {
        let w = &panel[k * wide + column..][..N * V::LANES];
        let mut weights = [V::splat(0.0); N];
        for (n, weight) in weights.iter_mut().enumerate() {
            *weight = V::load(&w[n * V::LANES..]);
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let x = V::splat(row[k]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = sum.multiply_add(x, weight);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut y[r * width + start + column + n * V::LANES..]);
        }
    }
}

/// dx[r, k] = Σ_n dy[r, n]·w[k, n]: the adjoint of [`product`] to its x.
///
/// Panics when the lengths disagree.
pub fn product_adjoint(dy: &[f32], w: &Panels, dx: &mut [f32]) {
    assert_eq!(dx.len(), ROWS * w.inner, "`thin::product_adjoint`: size of dx");
    assert_eq!(dy.len(), ROWS * w.width, "`thin::product_adjoint`: size of dy");
    on_active_vector!(adjoint_of(w.inner, w.width, dy, &w.data, dx));
}

multiversion! {
    fn adjoint_of[V: Vector](
        _vector: Only<V>, inner: usize, width: usize, dy: &[f32], w: &[f32], dx: &mut [f32],
    ) {
        let mut k = 0;
        while V::LANES == LANES && k + 4 <= inner {
            adjoint_tile::<V, 4>(inner, width, k, dy, w, dx);
            k += 4;
        }
        while k + 2 <= inner {
            adjoint_tile::<V, 2>(inner, width, k, dy, w, dx);
            k += 2;
        }
        while k < inner {
            adjoint_tile::<V, 1>(inner, width, k, dy, w, dx);
            k += 1;
        }
    }
}

#[inline(always)]
fn adjoint_tile<V: Vector, const K: usize>(
    inner: usize,
    width: usize,
    k: usize,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); K]; ROWS];
    let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &dy[r * width..][..width]);
    for start in (0..width).step_by(PANEL) {
        let wide = PANEL.min(width - start);
        let panel = &w[inner * start + k * wide..][..K * wide];
        for column in (0..wide).step_by(V::LANES) {
            let mut weights = [V::splat(0.0); K];
            for (i, weight) in weights.iter_mut().enumerate() {
                *weight = V::load(&panel[i * wide + column..]);
            }
            for (sums, row) in sums.iter_mut().zip(rows) {
                let dy = V::load(&row[start + column..]);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.multiply_add(dy, weight);
                }
            }
        }
    }
    if K == 4 && V::LANES == LANES {
        let mut flat = [V::splat(0.0); 16];
        for (flat, sum) in flat.iter_mut().zip(sums.as_flattened()) {
            *flat = *sum;
        }
        let totals = V::sums_across(flat);
        for (r, totals) in totals.chunks_exact(4).enumerate() {
            dx[r * inner + k..][..4].copy_from_slice(totals);
        }
        return;
    }
    for (r, sums) in sums.iter().enumerate() {
        for (i, sum) in sums.iter().enumerate() {
            dx[r * inner + k + i] = sum.sum_across();
        }
    }
}

#[cfg(test)]
mod tests;
