//! Products of a few rows, for loops over time: one thread, no packing, weights
//! that stay in its cache.
//!
//! [`ROWS`] rows go through together, so that each weight is loaded once for
//! them. The sum that forms an element runs in the same order whatever stands
//! in the other rows.
//!
//! "Lanewise" products are those of neurons with weights of their own: there the
//! last axis is a block of [`LANES`] neurons, and nothing is summed across it.

use crate::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2Vector, Avx512Vector};
use crate::vector::{PortableVector, Vector};

/// Rows of one call.
pub const ROWS: usize = 4;
/// Neurons of a block.
pub const LANES: usize = 16;

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

/// Names a vector type without holding one.
struct Only<V>(std::marker::PhantomData<V>);

impl<V> Only<V> {
    fn new() -> Self {
        Only(std::marker::PhantomData)
    }
}

/// y[r, n] += Σ_k x[r, k]·w[k, n]: x is [ROWS][k], w is [k][n], y is [ROWS][n], and
/// n is a multiple of [`LANES`].
///
/// Panics when the lengths disagree.
pub fn product(x: &[f32], w: &[f32], y: &mut [f32]) {
    let (inner, width) = (x.len() / ROWS, y.len() / ROWS);
    assert_eq!(x.len(), ROWS * inner, "`thin::product`: rows of x");
    assert_eq!(w.len(), inner * width, "`thin::product`: size of w");
    assert_eq!(y.len() % (ROWS * LANES), 0, "`thin::product`: width of y");
    on_active_vector!(product_of(inner, width, x, w, y));
}

multiversion! {
    fn product_of[V: Vector](
        _vector: Only<V>, inner: usize, width: usize, x: &[f32], w: &[f32], y: &mut [f32],
    ) {
        let mut column = 0;
        while column + 2 * V::LANES <= width {
            let mut sums = [[V::splat(0.0); 2]; ROWS];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(&y[r * width + column + v * V::LANES..]);
                }
            }
            for k in 0..inner {
                let w = &w[k * width + column..][..2 * V::LANES];
                let (first, second) = (V::load(w), V::load(&w[V::LANES..]));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(x[r * inner + k]);
                    sums[0] = sums[0].multiply_add(x, first);
                    sums[1] = sums[1].multiply_add(x, second);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(&mut y[r * width + column + v * V::LANES..]);
                }
            }
            column += 2 * V::LANES;
        }
        while column < width {
            let mut sums = [V::splat(0.0); ROWS];
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(&y[r * width + column..]);
            }
            for k in 0..inner {
                let w = V::load(&w[k * width + column..]);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.multiply_add(V::splat(x[r * inner + k]), w);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                sum.store(&mut y[r * width + column..]);
            }
            column += V::LANES;
        }
    }
}

/// dx[r, k] += Σ_n dy[r, n]·w[k, n]: the adjoint of [`product`] to its x.
///
/// Panics when the lengths disagree.
pub fn product_adjoint(dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (inner, width) = (dx.len() / ROWS, dy.len() / ROWS);
    assert_eq!(dx.len(), ROWS * inner, "`thin::product_adjoint`: rows of dx");
    assert_eq!(w.len(), inner * width, "`thin::product_adjoint`: size of w");
    assert_eq!(dy.len() % (ROWS * LANES), 0, "`thin::product_adjoint`: width of dy");
    on_active_vector!(adjoint_of(inner, width, dy, w, dx));
}

multiversion! {
    fn adjoint_of[V: Vector](
        _vector: Only<V>, inner: usize, width: usize, dy: &[f32], w: &[f32], dx: &mut [f32],
    ) {
        let mut k = 0;
        while k + 2 <= inner {
            let mut sums = [[V::splat(0.0); 2]; ROWS];
            for column in (0..width).step_by(V::LANES) {
                let first = V::load(&w[k * width + column..]);
                let second = V::load(&w[(k + 1) * width + column..]);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let dy = V::load(&dy[r * width + column..]);
                    sums[0] = sums[0].multiply_add(dy, first);
                    sums[1] = sums[1].multiply_add(dy, second);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                dx[r * inner + k] += across(sums[0]);
                dx[r * inner + k + 1] += across(sums[1]);
            }
            k += 2;
        }
        if k < inner {
            for r in 0..ROWS {
                let mut sum = V::splat(0.0);
                for column in (0..width).step_by(V::LANES) {
                    let dy = V::load(&dy[r * width + column..]);
                    sum = sum.multiply_add(dy, V::load(&w[k * width + column..]));
                }
                dx[r * inner + k] += across(sum);
            }
        }
    }
}

/// The sum of a vector's lanes, in halves.
#[inline(always)]
fn across<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0f32; LANES];
    vector.store(&mut lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Where rows and slots of a lanewise operand stand: element (r, m, lane) is
/// `r * row + m * slot + lane`.
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    /// From a row to the next.
    pub row: usize,
    /// From a slot to the next.
    pub slot: usize,
}

/// y[r, o] += Σ_m x[r, m]·w[m, o], lane by lane: w is [m][o][LANES], x and y lie as
/// their strides say.
///
/// Panics when an operand is too short.
pub fn lanewise_product(
    inputs: usize,
    outputs: usize,
    x: &[f32],
    x_at: Strides,
    w: &[f32],
    y: &mut [f32],
    y_at: Strides,
) {
    assert_eq!(w.len(), inputs * outputs * LANES, "`lanewise_product`: size of w");
    on_active_vector!(lanewise_of(inputs, outputs, x, x_at, w, [outputs, 1], y, y_at));
}

/// dx[r, m] += Σ_o dy[r, o]·w[m, o], lane by lane: the adjoint to x.
///
/// Panics when an operand is too short.
pub fn lanewise_adjoint(
    inputs: usize,
    outputs: usize,
    dy: &[f32],
    dy_at: Strides,
    w: &[f32],
    dx: &mut [f32],
    dx_at: Strides,
) {
    assert_eq!(w.len(), inputs * outputs * LANES, "`lanewise_adjoint`: size of w");
    on_active_vector!(lanewise_of(outputs, inputs, dy, dy_at, w, [1, outputs], dx, dx_at));
}

multiversion! {
    /// y[r, o] += Σ_m x[r, m]·w[m, o]; (m, o) of w is block m·steps[0] + o·steps[1].
    fn lanewise_of[V: Vector](
        _vector: Only<V>, inputs: usize, outputs: usize, x: &[f32], x_at: Strides, w: &[f32],
        steps: [usize; 2], y: &mut [f32], y_at: Strides,
    ) {
        for lane in (0..LANES).step_by(V::LANES) {
            let mut o = 0;
            while o + 4 <= outputs {
                lanewise_tile::<V, 4>(inputs, o, lane, x, x_at, w, steps, y, y_at);
                o += 4;
            }
            while o < outputs {
                lanewise_tile::<V, 1>(inputs, o, lane, x, x_at, w, steps, y, y_at);
                o += 1;
            }
        }
    }
}

#[inline(always)]
fn lanewise_tile<V: Vector, const N: usize>(
    inputs: usize,
    o: usize,
    lane: usize,
    x: &[f32],
    x_at: Strides,
    w: &[f32],
    steps: [usize; 2],
    y: &mut [f32],
    y_at: Strides,
) {
    let mut sums = [[V::splat(0.0); N]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&y[r * y_at.row + (o + n) * y_at.slot + lane..]);
        }
    }
    for m in 0..inputs {
        let mut weights = [V::splat(0.0); N];
        for (n, weight) in weights.iter_mut().enumerate() {
            *weight = V::load(&w[(m * steps[0] + (o + n) * steps[1]) * LANES + lane..]);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = V::load(&x[r * x_at.row + m * x_at.slot + lane..]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = sum.multiply_add(x, weight);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut y[r * y_at.row + (o + n) * y_at.slot + lane..]);
        }
    }
}

/// dw[m, o] += Σ_r x[r, m]·dy[r, o], lane by lane, over `rows` rows in order.
///
/// Panics when an operand is too short.
pub fn lanewise_outer(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    x_at: Strides,
    dy: &[f32],
    dy_at: Strides,
    dw: &mut [f32],
) {
    assert_eq!(dw.len(), inputs * outputs * LANES, "`lanewise_outer`: size of dw");
    on_active_vector!(outer_of(rows, inputs, outputs, x, x_at, dy, dy_at, dw));
}

multiversion! {
    fn outer_of[V: Vector](
        _vector: Only<V>, rows: usize, inputs: usize, outputs: usize, x: &[f32], x_at: Strides,
        dy: &[f32], dy_at: Strides, dw: &mut [f32],
    ) {
        for lane in (0..LANES).step_by(V::LANES) {
            for m in (0..inputs).step_by(4) {
                for o in (0..outputs).step_by(4) {
                    let (m_left, o_left) = ((inputs - m).min(4), (outputs - o).min(4));
                    if m_left == 4 && o_left == 4 {
                        outer_tile::<V, 4, 4>(rows, m, o, outputs, lane, x, x_at, dy, dy_at, dw);
                        continue;
                    }
                    for m in m..m + m_left {
                        for o in o..o + o_left {
                            outer_tile::<V, 1, 1>(rows, m, o, outputs, lane, x, x_at, dy, dy_at, dw);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn outer_tile<V: Vector, const M: usize, const N: usize>(
    rows: usize,
    m: usize,
    o: usize,
    outputs: usize,
    lane: usize,
    x: &[f32],
    x_at: Strides,
    dy: &[f32],
    dy_at: Strides,
    dw: &mut [f32],
) {
    let at = |i: usize, j: usize| ((m + i) * outputs + o + j) * LANES + lane;
    let mut sums = [[V::splat(0.0); N]; M];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&dw[at(i, j)..]);
        }
    }
    for r in 0..rows {
        let mut right = [V::splat(0.0); N];
        for (j, right) in right.iter_mut().enumerate() {
            *right = V::load(&dy[r * dy_at.row + (o + j) * dy_at.slot + lane..]);
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let left = V::load(&x[r * x_at.row + (m + i) * x_at.slot + lane..]);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = sum.multiply_add(left, right);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            sum.store(&mut dw[at(i, j)..]);
        }
    }
}

#[cfg(test)]
mod tests;
