//! Small matrix products on register tiles, and the packing that they need.
//!
//! A tile is ROWS x LANES sums that stay in registers; each sum runs over the
//! depth in rising order, from what the tile held before, so its value does not
//! depend on how the depth was cut into calls.

use std::ops::Range;

use super::AttentionShape;
use crate::vector::{PortableVector, Vector};

/// Rows of a matrix: element (i, k) is `data[i * stride + k]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

impl<'a> Matrix<'a> {
    /// The matrix that starts at (`row`, `column`).
    #[inline(always)]
    pub(super) fn at(self, row: usize, column: usize) -> Matrix<'a> {
        Matrix { data: &self.data[row * self.stride + column..], ..self }
    }
}

/// A tile's size on one instruction set, and its products. LANES is a multiple
/// of ROWS, and both divide the block of keys.
///
/// The tile c is ROWS rows of `c.len() / ROWS` elements, LANES of which count.
pub(super) trait Tiling: Copy {
    /// The vectors that a tile's rows are made of.
    type Lane: Vector;
    /// Rows of a tile.
    const ROWS: usize;
    /// Columns of a tile.
    const LANES: usize;

    /// `c[i, n]` = (`add`: plus) sum over k < depth of `a[i, k]` * `b[k, n]`.
    fn product(add: bool, depth: usize, a: Matrix, b: Matrix, c: &mut [f32], stride: usize);

    /// `c[i, n]` += sum over the k of `ranges[i]` of `a[k, i]` * `b[k, n]`.
    /// The other k are left out of the sum, whatever they hold.
    fn add_transposed(ranges: &[Range<usize>], a: Matrix, b: Matrix, c: &mut [f32], stride: usize);
}

macro_rules! tiling {
    ($(#[$meta:meta])* $name:ident, $vector:ty, $rows:literal, $vectors:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Tiling for $name {
            type Lane = $vector;
            const ROWS: usize = $rows;
            const LANES: usize = $vectors * <$vector as Vector>::LANES;

            #[inline(always)]
            fn product(
                add: bool,
                depth: usize,
                a: Matrix,
                b: Matrix,
                c: &mut [f32],
                stride: usize,
            ) {
                product::<$vector, $rows, $vectors>(add, depth, a, b, c, stride);
            }

            #[inline(always)]
            fn add_transposed(
                ranges: &[Range<usize>],
                a: Matrix,
                b: Matrix,
                c: &mut [f32],
                stride: usize,
            ) {
                add_transposed::<$vector, $rows, $vectors>(ranges, a, b, c, stride);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiling! {
    /// 16 of 32 registers hold sums.
    Avx512Tiling, crate::vector::Avx512Vector, 8, 2
}
#[cfg(target_arch = "x86_64")]
tiling! {
    /// 8 of 16 registers hold sums.
    Avx2Tiling, crate::vector::Avx2Vector, 4, 2
}
tiling! {
    /// 8 of 16 registers of four hold sums.
    PortableTiling, PortableVector, 4, 2
}

// What follows is loops rather than closures, which would be compiled on their
// own, without the instruction set.

#[inline(always)]
fn row<V: Vector, const N: usize>(b: &[f32]) -> [V; N] {
    let b = &b[..N * V::LANES];
    let mut vectors = [V::splat(0.0); N];
    for (n, vector) in vectors.iter_mut().enumerate() {
        *vector = V::load(&b[n * V::LANES..]);
    }
    vectors
}

#[inline(always)]
fn load<V: Vector, const R: usize, const N: usize>(c: &[f32], stride: usize) -> [[V; N]; R] {
    let mut sums = [[V::splat(0.0); N]; R];
    for (i, sums) in sums.iter_mut().enumerate() {
        *sums = row(&c[i * stride..]);
    }
    sums
}

#[inline(always)]
fn store<V: Vector, const R: usize, const N: usize>(
    sums: [[V; N]; R],
    c: &mut [f32],
    stride: usize,
) {
    for (i, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            sum.store(&mut c[i * stride + n * V::LANES..]);
        }
    }
}

#[inline(always)]
fn product<V: Vector, const R: usize, const N: usize>(
    add: bool,
    depth: usize,
    a: Matrix,
    b: Matrix,
    c: &mut [f32],
    stride: usize,
) {
    let mut rows = [a.data; R];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a.data[i * a.stride..][..depth];
    }
    let mut sums = if add { load(c, stride) } else { [[V::splat(0.0); N]; R] };
    for k in 0..depth {
        let b: [V; N] = row(&b.data[k * b.stride..]);
        for (row, sums) in rows.iter().zip(&mut sums) {
            let a = V::splat(row[k]);
            for n in 0..N {
                sums[n] = sums[n].multiply_add(a, b[n]);
            }
        }
    }
    store(sums, c, stride);
}

#[inline(always)]
fn add_transposed<V: Vector, const R: usize, const N: usize>(
    ranges: &[Range<usize>],
    a: Matrix,
    b: Matrix,
    c: &mut [f32],
    stride: usize,
) {
    let ranges: &[Range<usize>; R] = ranges.first_chunk().expect("a range a row");
    let (mut first, mut last) = (usize::MAX, 0);
    let (mut all_from, mut all_to) = (0, usize::MAX);
    for range in ranges {
        if !range.is_empty() {
            first = first.min(range.start);
            last = last.max(range.end);
        }
        all_from = all_from.max(range.start);
        all_to = all_to.min(range.end);
    }
    if first >= last {
        return;
    }
    // Where every row takes part no comparison is needed.
    let (all_from, all_to) = if all_from < all_to { (all_from, all_to) } else { (last, last) };
    let mut sums: [[V; N]; R] = load(c, stride);
    add_some(first..all_from, ranges, a, b, &mut sums);
    for k in all_from..all_to {
        let a: &[f32; R] = a.data[k * a.stride..].first_chunk().expect("a full column");
        let b: [V; N] = row(&b.data[k * b.stride..]);
        for i in 0..R {
            let a = V::splat(a[i]);
            for n in 0..N {
                sums[i][n] = sums[i][n].multiply_add(a, b[n]);
            }
        }
    }
    add_some(all_to..last, ranges, a, b, &mut sums);
    store(sums, c, stride);
}

/// Adds to each row of a tile those products that are in its range.
#[inline(always)]
fn add_some<V: Vector, const R: usize, const N: usize>(
    keys: Range<usize>,
    ranges: &[Range<usize>; R],
    a: Matrix,
    b: Matrix,
    sums: &mut [[V; N]; R],
) {
    for k in keys {
        let a: &[f32; R] = a.data[k * a.stride..].first_chunk().expect("a full column");
        let b: [V; N] = row(&b.data[k * b.stride..]);
        for i in 0..R {
            let inside = k >= ranges[i].start && k < ranges[i].end;
            let a = V::splat(a[i]);
            for n in 0..N {
                let sum = sums[i][n].multiply_add(a, b[n]);
                sums[i][n] = if inside { sum } else { sums[i][n] };
            }
        }
    }
}

/// Copies the positions `times` of one head to rows of `stride` elements, each
/// multiplied by `scale`; the rest of `packed` becomes zero.
#[inline(always)]
pub(super) fn pack(
    shape: AttentionShape,
    head: usize,
    times: Range<usize>,
    scale: f32,
    x: &[f32],
    stride: usize,
    packed: &mut [f32],
) {
    let width = shape.head_width;
    if width == 0 {
        return;
    }
    packed[times.len() * stride..].fill(0.0);
    for (time, packed) in times.zip(packed.chunks_exact_mut(stride)) {
        let x = &x[shape.offset(head, time)..][..width];
        let (packed, rest) = packed.split_at_mut(width);
        for (packed, x) in packed.iter_mut().zip(x) {
            *packed = x * scale;
        }
        rest.fill(0.0);
    }
}

/// Transposes `columns` columns of `rows` rows, a multiple of four, to rows of
/// `rows` elements.
#[inline(always)]
pub(super) fn transpose(rows: usize, columns: usize, from: Matrix, to: &mut [f32]) {
    let whole = columns / 4 * 4;
    for i in (0..rows).step_by(4) {
        let from = from.at(i, 0);
        let (a, b) = (&from.data[..columns], &from.data[from.stride..][..columns]);
        let (c, d) =
            (&from.data[2 * from.stride..][..columns], &from.data[3 * from.stride..][..columns]);
        for j in (0..whole).step_by(4) {
            for n in j..j + 4 {
                to[n * rows + i..][..4].copy_from_slice(&[a[n], b[n], c[n], d[n]]);
            }
        }
        for n in whole..columns {
            to[n * rows + i..][..4].copy_from_slice(&[a[n], b[n], c[n], d[n]]);
        }
    }
}
