//! Movement that a strided copy cannot express: joining, scattering, picking.

use crate::element::Element;
use crate::pool::{Pool, SharedMut};

/// Rows of at least this many elements in all are worth a second thread.
const PARALLEL_ELEMENTS: usize = 1 << 14;

fn minimum_rows(row_length: usize) -> usize {
    (PARALLEL_ELEMENTS / row_length.max(1)).max(1)
}

/// Writes `x`, rows of `width`, into columns `start..start + width` of `out`,
/// rows of `out_width`.
pub fn place_columns<X: Element, O: Element>(
    pool: &Pool,
    x: &[X],
    width: usize,
    out: &mut [O],
    out_width: usize,
    start: usize,
) {
    assert!(start + width <= out_width, "columns outside the row");
    if width == 0 {
        return;
    }
    assert_eq!(x.len() / width * out_width, out.len(), "as many rows on both sides");
    pool.for_rows(out, out_width, minimum_rows(out_width), |first, rows| {
        place_stretch(&x[first * width..], width, rows, out_width, start);
    });
}

crate::multiversion! {
    fn place_stretch[X: Element, O: Element](
        x: &[X], width: usize, rows: &mut [O], out_width: usize, start: usize,
    ) {
        for (row, x) in rows.chunks_exact_mut(out_width).zip(x.chunks_exact(width)) {
            for (out, value) in row[start..start + width].iter_mut().zip(x) {
                *out = O::from_f32(value.to_f32());
            }
        }
    }
}

/// As [`place_columns`] for indices and bytes.
pub fn place_columns_exact<T: Copy + Send + Sync>(
    x: &[T],
    width: usize,
    out: &mut [T],
    out_width: usize,
    start: usize,
) {
    if width == 0 {
        return;
    }
    for (row, x) in out.chunks_exact_mut(out_width).zip(x.chunks_exact(width)) {
        row[start..start + width].copy_from_slice(x);
    }
}

/// The gradient of taking `taken` slices of `inner` elements, every `step`-th
/// from `start`, out of `size`: `dy` [outer, taken, inner] → `dx` [outer, size,
/// inner], zero elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Slicing {
    /// Slices in the whole axis.
    pub size: usize,
    /// Slices taken.
    pub taken: usize,
    /// The first slice taken.
    pub start: usize,
    /// Slices from one taken to the next.
    pub step: usize,
    /// Elements of a slice.
    pub inner: usize,
}

/// See [`Slicing`].
pub fn slice_gradient(pool: &Pool, slicing: Slicing, dy: &[f32], dx: &mut [f32]) {
    let Slicing { size, taken, start, step, inner } = slicing;
    pool.for_rows(dx, size * inner, minimum_rows(size * inner), |first, rows| {
        rows.fill(0.0);
        for (offset, row) in rows.chunks_exact_mut(size * inner).enumerate() {
            let dy = &dy[(first + offset) * taken * inner..][..taken * inner];
            for (index, slice) in dy.chunks_exact(inner).enumerate() {
                let at = (start + index * step) * inner;
                row[at..at + inner].copy_from_slice(slice);
            }
        }
    });
}

/// Picks slices: `x` [outer, size, inner] → `out` [outer, indices, inner].
/// Indices must lie in the axis.
pub fn gather(
    pool: &Pool,
    x: &[f32],
    size: usize,
    inner: usize,
    indices: &[usize],
    out: &mut [f32],
) {
    let row = indices.len() * inner;
    pool.for_rows(out, row, minimum_rows(row), |first, rows| {
        for (offset, row) in rows.chunks_exact_mut(row).enumerate() {
            let x = &x[(first + offset) * size * inner..][..size * inner];
            for (out, &index) in row.chunks_exact_mut(inner).zip(indices) {
                out.copy_from_slice(&x[index * inner..][..inner]);
            }
        }
    });
}

/// The gradient of [`gather`]: sums where an index repeats, in order.
pub fn gather_gradient(
    pool: &Pool,
    dy: &[f32],
    size: usize,
    inner: usize,
    indices: &[usize],
    dx: &mut [f32],
) {
    let taken = indices.len() * inner;
    if inner == 0 || size == 0 {
        return;
    }
    let outer = dx.len() / (size * inner);
    let dx = SharedMut::new(dx);
    pool.for_ranges(outer, minimum_rows(taken), |range| {
        for row in range {
            // SAFETY: each row of the result belongs to one range.
            let dx = unsafe { dx.slice(row * size * inner..(row + 1) * size * inner) };
            dx.fill(0.0);
            let dy = &dy[row * taken..(row + 1) * taken];
            for (dy, &index) in dy.chunks_exact(inner).zip(indices) {
                for (into, value) in dx[index * inner..][..inner].iter_mut().zip(dy) {
                    *into += value;
                }
            }
        }
    });
}
