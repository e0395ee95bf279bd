//! Reductions whose result does not depend on the number of threads.
//!
//! Along a row, [`LANES`] running values are combined as a tree. Across rows,
//! the rows are cut into blocks whose number follows from the shape alone;
//! each block is summed by one thread and the blocks are added in order.

use crate::elementwise::{ELEMENTS_PER_THREAD, expect_length, rows_per_thread};
use crate::math;
use crate::pool::SharedMut;
use crate::{Element, Pool, multiversion};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// How an axis is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The sum; 0 for an empty axis.
    Sum,
    /// The sum over the length; NaN for an empty axis.
    Mean,
    /// The largest, NaN where one is; -infinity for an empty axis.
    Maximum,
}

/// Running values along a row: two registers of AVX-512, eight of SSE.
pub(crate) const LANES: usize = 32;
/// The parts that a long sum is cut into, at most.
const PARTS: usize = 64;
/// Columns that are reduced together: they stay in the first-level cache.
const STRIPE: usize = 256;

/// Folds slices of one length into [`LANES`] running values: element i goes to
/// lane i % LANES. `$value` sees the lane as `$lane` and the elements as f32.
macro_rules! fold_lanes {
    ($start:expr; $lane:ident, $($name:ident),+ => $value:expr) => {{
        const LANES: usize = $crate::reduce::LANES;
        let mut lanes = [$start; LANES];
        let whole = [$($name.len()),+].into_iter().fold(usize::MAX, usize::min) / LANES;
        {
            $(let $name = &$name.as_chunks::<LANES>().0[..whole];)+
            for chunk in 0..whole {
                $(let $name = &$name[chunk];)+
                for index in 0..LANES {
                    $(let $name = $crate::Element::to_f32($name[index]);)+
                    let $lane = lanes[index];
                    lanes[index] = $value;
                }
            }
        }
        $(let $name = &$name[whole * LANES..];)+
        let rest = [$($name.len()),+].into_iter().fold(LANES, usize::min);
        for index in 0..rest {
            $(let $name = $crate::Element::to_f32($name[index]);)+
            let $lane = lanes[index];
            lanes[index] = $value;
        }
        lanes
    }};
}
pub(crate) use fold_lanes;

/// The lanes as one value, combined as a tree.
#[inline(always)]
pub(crate) fn combine_lanes<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for index in 0..width {
            lanes[index] = combine(lanes[index], lanes[index + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of the lanes.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    combine_lanes(lanes, |x, y| x + y)
}

/// Reduces the middle axis of `x`, which is [outer, axis, inner].
pub fn reduce<X: Element>(
    pool: &Pool,
    kind: Reduction,
    x: &[X],
    outer: usize,
    axis: usize,
    inner: usize,
    out: &mut [f32],
) {
    expect_length("reduce", "x", x.len(), outer * axis * inner);
    expect_length("reduce", "out", out.len(), outer * inner);
    if inner == 1 && axis >= 2 * PARTS * ELEMENTS_PER_THREAD {
        for (x, out) in x.chunks_exact(axis).zip(out) {
            *out = reduce_long_row(pool, kind, x);
        }
    } else if inner == 1 {
        pool.for_rows(out, 1, rows_per_thread(axis), |first, out| {
            reduce_rows(kind, &x[first * axis..(first + out.len()) * axis], axis, out);
        });
    } else if inner > 0 {
        let stripes = inner.div_ceil(STRIPE);
        let out = SharedMut::new(out);
        pool.for_ranges(outer * stripes, rows_per_thread(axis * inner.min(STRIPE)), |range| {
            for unit in range {
                let (position, start) = (unit / stripes, unit % stripes * STRIPE);
                let columns = start..inner.min(start + STRIPE);
                let x = &x[position * axis * inner..(position + 1) * axis * inner];
                // SAFETY: each stripe of each outer position is visited once.
                let out = unsafe {
                    out.slice(position * inner + columns.start..position * inner + columns.end)
                };
                reduce_stripe(kind, x, inner, columns, out);
            }
        });
    }
}

/// One row that is worth several threads: [`PARTS`] parts, each reduced alone.
fn reduce_long_row<X: Element>(pool: &Pool, kind: Reduction, x: &[X]) -> f32 {
    let part = x.len().div_ceil(PARTS);
    let mut parts = [0.0f32; PARTS];
    let kind_of_part = if kind == Reduction::Mean { Reduction::Sum } else { kind };
    pool.for_rows(&mut parts, 1, 1, |first, parts| {
        for (index, out) in parts.iter_mut().enumerate() {
            let start = ((first + index) * part).min(x.len());
            let x = &x[start..(start + part).min(x.len())];
            reduce_rows(kind_of_part, x, x.len(), std::slice::from_mut(out));
        }
    });
    match kind {
        Reduction::Sum => parts.iter().sum(),
        Reduction::Mean => parts.iter().sum::<f32>() / x.len() as f32,
        Reduction::Maximum => parts.into_iter().fold(f32::NEG_INFINITY, math::maximum),
    }
}

multiversion! {
    fn reduce_rows[X: Element](kind: Reduction, x: &[X], axis: usize, out: &mut [f32]) {
        for (row, out) in out.iter_mut().enumerate() {
            let x = &x[row * axis..(row + 1) * axis];
            *out = match kind {
                Reduction::Sum => sum_lanes(fold_lanes!(0.0f32; lane, x => lane + x)),
                Reduction::Mean => {
                    sum_lanes(fold_lanes!(0.0f32; lane, x => lane + x)) / axis as f32
                }
                Reduction::Maximum => {
                    let lanes = fold_lanes!(f32::NEG_INFINITY; lane, x => math::maximum(lane, x));
                    combine_lanes(lanes, math::maximum)
                }
            };
        }
    }
}

multiversion! {
    fn reduce_stripe[X: Element](
        kind: Reduction,
        x: &[X],
        inner: usize,
        columns: Range<usize>,
        out: &mut [f32],
    ) {
        let rows = x.chunks_exact(inner);
        if kind == Reduction::Maximum {
            out.fill(f32::NEG_INFINITY);
            for row in rows {
                for (out, x) in out.iter_mut().zip(&row[columns.clone()]) {
                    *out = math::maximum(*out, x.to_f32());
                }
            }
            return;
        }
        out.fill(0.0);
        let count = rows.len();
        for row in rows {
            for (out, x) in out.iter_mut().zip(&row[columns.clone()]) {
                *out += x.to_f32();
            }
        }
        if kind == Reduction::Mean {
            out.iter_mut().for_each(|out| *out /= count as f32);
        }
    }
}

/// The gradient of [`Reduction::Maximum`]: `dy` shared equally among the
/// elements of `x` that equal `y`.
pub fn maximum_gradient<X: Element, G: Element>(
    pool: &Pool,
    x: &[X],
    y: &[f32],
    dy: &[f32],
    outer: usize,
    axis: usize,
    inner: usize,
    dx: &mut [G],
) {
    expect_length("maximum_gradient", "x", x.len(), outer * axis * inner);
    expect_length("maximum_gradient", "y", y.len(), outer * inner);
    expect_length("maximum_gradient", "dy", dy.len(), outer * inner);
    expect_length("maximum_gradient", "dx", dx.len(), outer * axis * inner);
    let length = axis * inner;
    pool.for_rows(dx, length, rows_per_thread(length), |first, dx| {
        let rows = first..first + dx.len() / length;
        let x = &x[rows.start * length..rows.end * length];
        let columns = rows.start * inner..rows.end * inner;
        maximum_gradient_rows(x, &y[columns.clone()], &dy[columns], axis, inner, dx);
    });
}

multiversion! {
    fn maximum_gradient_rows[X: Element, G: Element](
        x: &[X],
        y: &[f32],
        dy: &[f32],
        axis: usize,
        inner: usize,
        dx: &mut [G],
    ) {
        let length = axis * inner;
        let operands = x.chunks_exact(length).zip(dx.chunks_exact_mut(length));
        for ((x, dx), (y, dy)) in operands.zip(y.chunks_exact(inner).zip(dy.chunks_exact(inner))) {
            if inner == 1 {
                let (y, dy) = (y[0], dy[0]);
                let ties = fold_lanes!(0.0f32; lane, x => lane + if x == y { 1.0 } else { 0.0 });
                let part = dy / sum_lanes(ties);
                for (dx, x) in dx.iter_mut().zip(x) {
                    *dx = G::from_f32(if x.to_f32() == y { part } else { 0.0 });
                }
                continue;
            }
            let mut parts = [0.0f32; STRIPE];
            for start in (0..inner).step_by(STRIPE) {
                let columns = start..inner.min(start + STRIPE);
                let (y, parts) = (&y[columns.clone()], &mut parts[..columns.len()]);
                parts.fill(0.0);
                for x in x.chunks_exact(inner) {
                    for ((ties, x), y) in parts.iter_mut().zip(&x[columns.clone()]).zip(y) {
                        *ties += if x.to_f32() == *y { 1.0 } else { 0.0 };
                    }
                }
                for (part, dy) in parts.iter_mut().zip(&dy[columns.clone()]) {
                    *part = dy / *part;
                }
                for (x, dx) in x.chunks_exact(inner).zip(dx.chunks_exact_mut(inner)) {
                    let (x, dx) = (&x[columns.clone()], &mut dx[columns.clone()]);
                    for (((dx, x), y), part) in dx.iter_mut().zip(x).zip(y).zip(&*parts) {
                        *dx = G::from_f32(if x.to_f32() == *y { *part } else { 0.0 });
                    }
                }
            }
        }
    }
}

/// out[column] = the sum of `x[.., column]`, or that added to `out`.
pub fn column_sums<X: Element>(
    pool: &Pool,
    x: &[X],
    rows: usize,
    columns: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    expect_length("column_sums", "x", x.len(), rows * columns);
    expect_length("column_sums", "out", out.len(), columns);
    if !accumulate {
        out.fill(0.0);
    }
    sum_row_blocks(pool, rows, &mut [out], |rows, partial| {
        column_sums_rows(&x[rows.start * columns..rows.end * columns], partial);
    });
}

multiversion! {
    fn column_sums_rows[X: Element](x: &[X], sums: &mut [f32]) {
        /// Narrow rows are summed several at a time, to fill the registers.
        const WIDE: usize = 64;
        let columns = sums.len();
        if columns >= WIDE {
            for row in x.chunks_exact(columns) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += x.to_f32();
                }
            }
            return;
        }
        let mut wide = [0.0f32; 2 * WIDE];
        let wide = &mut wide[..columns * WIDE.div_ceil(columns)];
        for rows in x.chunks(wide.len()) {
            for (sum, x) in wide.iter_mut().zip(rows) {
                *sum += x.to_f32();
            }
        }
        for row in wide.chunks_exact(columns) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// Adds to `totals` what `job(rows, partial)` adds to its zeroed `partial` for
/// each block of rows. `partial` holds one stretch for each of the totals, all
/// of one length; the blocks depend on the shape alone.
pub(crate) fn sum_row_blocks(
    pool: &Pool,
    rows: usize,
    totals: &mut [&mut [f32]],
    job: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    /// Bounds the partial sums to 512 KiB, or to 16 blocks of wide rows.
    const PARTIAL_ELEMENTS: usize = 1 << 17;
    const MINIMUM_ROWS: usize = 16;
    let columns = totals.first().map_or(0, |total| total.len());
    let width = columns * totals.len();
    if width == 0 || rows == 0 {
        return;
    }
    let most = (PARTIAL_ELEMENTS / width).clamp(16, PARTS);
    let block = rows.div_ceil(most).max(MINIMUM_ROWS);
    let blocks = rows.div_ceil(block);
    with_scratch(blocks * width, |partials| {
        let blocks_per_thread = rows_per_thread(block * width);
        pool.for_rows(partials, width, blocks_per_thread, |first, partials| {
            for (index, partial) in partials.chunks_exact_mut(width).enumerate() {
                let start = (first + index) * block;
                partial.fill(0.0);
                job(start..rows.min(start + block), partial);
            }
        });
        for (position, total) in totals.iter_mut().enumerate() {
            let partials = &*partials;
            pool.for_rows(total, 1, rows_per_thread(blocks), |first, total| {
                let offset = position * columns + first;
                add_partials(&partials[offset..], width, total);
            });
        }
    });
}

multiversion! {
    fn add_partials(partials: &[f32], width: usize, total: &mut [f32]) {
        for partial in partials.chunks(width) {
            for (total, partial) in total.iter_mut().zip(partial) {
                *total += partial;
            }
        }
    }
}

/// Lends the calling thread's scratch memory, of unspecified content.
fn with_scratch(length: usize, job: impl FnOnce(&mut [f32])) {
    thread_local! {
        static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.take();
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    job(&mut scratch[..length]);
    SCRATCH.set(scratch);
}

/// The sum of the squares, in f64.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let part = x.len().div_ceil(PARTS).max(ELEMENTS_PER_THREAD);
    let mut parts = [0.0f64; PARTS];
    pool.for_rows(&mut parts[..x.len().div_ceil(part)], 1, 1, |first, parts| {
        for (index, sum) in parts.iter_mut().enumerate() {
            let start = (first + index) * part;
            *sum = sum_of_squares_part(&x[start..x.len().min(start + part)]);
        }
    });
    parts.iter().sum()
}

multiversion! {
    pub(crate) fn sum_of_squares_part(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for index in 0..LANES {
                lanes[index] += chunk[index] as f64 * chunk[index] as f64;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += *x as f64 * *x as f64;
        }
        combine_lanes(lanes, |x, y| x + y)
    }
}

/// Whether no element is infinite or NaN.
pub fn all_finite(pool: &Pool, x: &[f32]) -> bool {
    let finite = AtomicBool::new(true);
    pool.for_ranges(x.len(), ELEMENTS_PER_THREAD, |range| {
        for part in x[range].chunks(ELEMENTS_PER_THREAD) {
            if !finite.load(Ordering::Relaxed) {
                return;
            }
            if !all_finite_part(part) {
                finite.store(false, Ordering::Relaxed);
            }
        }
    });
    finite.into_inner()
}

multiversion! {
    fn all_finite_part(x: &[f32]) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        let mut infinite = 0u32;
        for x in x {
            infinite |= (x.to_bits() & EXPONENT == EXPONENT) as u32;
        }
        infinite == 0
    }
}

#[cfg(test)]
mod tests;
