//! Small matrix products on register tiles, and the packing that they need.
//!
//! A tile is ROWS x LANES sums that stay in registers; each sum runs over the
//! depth in rising order, from what the tile held before, so its value does not
//! depend on how the depth was cut into calls.

use std::ops::Range;

use super::vector::{PortableVector, Vector};
use super::{AttentionShape, KEY_BLOCK};

/// A tile's size on one instruction set. LANES is a multiple of ROWS and
/// divides the block sizes.
pub(super) trait Tiling {
    /// The vectors that a tile's rows are made of.
    type Lane: Vector;
    /// Rows of a tile.
    const ROWS: usize;
    /// Columns of a tile.
    const LANES: usize;

    /// `c[i, n]` = sum over k of `a[i, k]` * `b[k, n]`; `a` has rows of
    /// `a.len() / ROWS`, the depth; `b` and `c` have rows of `b_row`, `c_row`.
    fn rows_product(a: &[f32], b: &[f32], b_row: usize, c: &mut [f32], c_row: usize);

    /// Adds to `c[i, n]` the sum over the k of `ranges[i]` of
    /// `a[i * a_row + k]` * `b[k * b_row + n]`; keys outside are not touched.
    fn add_ranges(
        ranges: &[Range<usize>],
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        c: &mut [f32],
        c_row: usize,
    );

    /// Adds to `c[i, n]` the sum over the rows k of `a[k * a_row + i]` *
    /// `b[k * b_row + n]`.
    fn add_transposed(
        depth: usize,
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        c: &mut [f32],
        c_row: usize,
    );
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
            fn rows_product(a: &[f32], b: &[f32], b_row: usize, c: &mut [f32], c_row: usize) {
                rows_product::<$vector, $rows, $vectors>(a, b, b_row, c, c_row);
            }

            #[inline(always)]
            fn add_ranges(
                ranges: &[Range<usize>],
                a: &[f32],
                a_row: usize,
                b: &[f32],
                b_row: usize,
                c: &mut [f32],
                c_row: usize,
            ) {
                add_ranges::<$vector, $rows, $vectors>(ranges, a, a_row, b, b_row, c, c_row);
            }

            #[inline(always)]
            fn add_transposed(
                depth: usize,
                a: &[f32],
                a_row: usize,
                b: &[f32],
                b_row: usize,
                c: &mut [f32],
                c_row: usize,
            ) {
                add_transposed::<$vector, $rows, $vectors>(depth, a, a_row, b, b_row, c, c_row);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiling! {
    /// 16 of 32 registers hold sums.
    Avx512Tiling, super::vector::Avx512Vector, 8, 2
}
#[cfg(target_arch = "x86_64")]
tiling! {
    /// 8 of 16 registers hold sums.
    Avx2Tiling, super::vector::Avx2Vector, 4, 2
}
tiling! {
    /// 8 of 16 registers of four hold sums.
    PortableTiling, PortableVector, 4, 2
}

// These are loops rather than closures, which would be compiled on their own.

#[inline(always)]
fn load<V: Vector, const R: usize, const N: usize>(c: &[f32], c_row: usize) -> [[V; N]; R] {
    let mut sums = [[V::splat(0.0); N]; R];
    for (i, sums) in sums.iter_mut().enumerate() {
        *sums = row(&c[i * c_row..]);
    }
    sums
}

#[inline(always)]
fn row<V: Vector, const N: usize>(b: &[f32]) -> [V; N] {
    let b = &b[..N * V::LANES];
    let mut vectors = [V::splat(0.0); N];
    for (n, vector) in vectors.iter_mut().enumerate() {
        *vector = V::load(&b[n * V::LANES..]);
    }
    vectors
}

/// The first `length` elements of each of the rows that a tile multiplies.
#[inline(always)]
fn left_rows<const R: usize>(a: &[f32], a_row: usize, length: usize) -> [&[f32]; R] {
    let mut rows = [a; R];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a[i * a_row..][..length];
    }
    rows
}

/// Adds the products of the keys `keys` to every row of a tile.
#[inline(always)]
fn add_all<V: Vector, const R: usize, const N: usize>(
    keys: Range<usize>,
    a: &[&[f32]; R],
    b: &[f32],
    b_row: usize,
    sums: &mut [[V; N]; R],
) {
    for k in keys {
        let b: [V; N] = row(&b[k * b_row..]);
        for i in 0..R {
            let a = V::splat(a[i][k]);
            for n in 0..N {
                sums[i][n] = sums[i][n].multiply_add(a, b[n]);
            }
        }
    }
}

/// As `add_all`, but to each row only what is in its range.
#[inline(always)]
fn add_some<V: Vector, const R: usize, const N: usize>(
    keys: Range<usize>,
    ranges: &[Range<usize>; R],
    a: &[&[f32]; R],
    b: &[f32],
    b_row: usize,
    sums: &mut [[V; N]; R],
) {
    for k in keys {
        let b: [V; N] = row(&b[k * b_row..]);
        for i in 0..R {
            let a = V::splat(a[i][k]);
            let inside = k >= ranges[i].start && k < ranges[i].end;
            for n in 0..N {
                let sum = sums[i][n].multiply_add(a, b[n]);
                sums[i][n] = if inside { sum } else { sums[i][n] };
            }
        }
    }
}

#[inline(always)]
fn store<V: Vector, const R: usize, const N: usize>(
    sums: [[V; N]; R],
    c: &mut [f32],
    c_row: usize,
) {
    for (i, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            sum.store(&mut c[i * c_row + n * V::LANES..]);
        }
    }
}

#[inline(always)]
fn rows_product<V: Vector, const R: usize, const N: usize>(
    a: &[f32],
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let depth = a.len() / R;
    let a = left_rows(a, depth, depth);
    let mut sums = [[V::splat(0.0); N]; R];
    add_all(0..depth, &a, b, b_row, &mut sums);
    store(sums, c, c_row);
}

#[inline(always)]
fn add_ranges<V: Vector, const R: usize, const N: usize>(
    ranges: &[Range<usize>],
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
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
    let (all_from, all_to) = if all_from < all_to {
        (all_from, all_to)
    } else {
        (last, last)
    };
    let a = left_rows(a, a_row, last);
    let mut sums: [[V; N]; R] = load(c, c_row);
    add_some(first..all_from, ranges, &a, b, b_row, &mut sums);
    add_all(all_from..all_to, &a, b, b_row, &mut sums);
    add_some(all_to..last, ranges, &a, b, b_row, &mut sums);
    store(sums, c, c_row);
}

#[inline(always)]
fn add_transposed<V: Vector, const R: usize, const N: usize>(
    depth: usize,
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut sums: [[V; N]; R] = load(c, c_row);
    for k in 0..depth {
        let a: &[f32; R] = a[k * a_row..].first_chunk().expect("a full column");
        let b: [V; N] = row(&b[k * b_row..]);
        for i in 0..R {
            let a = V::splat(a[i]);
            for n in 0..N {
                sums[i][n] = sums[i][n].multiply_add(a, b[n]);
            }
        }
    }
    store(sums, c, c_row);
}

/// Copies the positions `times` of one head to rows of `row` elements, each
/// multiplied by `scale`; the rest of `packed` becomes zero.
#[inline(always)]
pub(super) fn pack_rows(
    shape: AttentionShape,
    head: usize,
    times: Range<usize>,
    scale: f32,
    x: &[f32],
    row: usize,
    packed: &mut [f32],
) {
    let width = shape.head_width;
    packed[times.len() * row..].fill(0.0);
    for (time, packed) in times.zip(packed.chunks_exact_mut(row)) {
        let x = &x[shape.offset(head, time)..][..width];
        for (packed, x) in packed.iter_mut().zip(x) {
            *packed = x * scale;
        }
        packed[width..].fill(0.0);
    }
}

/// Copies one head to blocks of KEY_BLOCK positions, each `[D, KEY_BLOCK]`;
/// what lies past the end of time becomes zero.
#[inline(always)]
pub(super) fn pack_columns(shape: AttentionShape, head: usize, x: &[f32], packed: &mut [f32]) {
    let width = shape.head_width;
    for (block, packed) in packed.chunks_exact_mut(width * KEY_BLOCK).enumerate() {
        let start = block * KEY_BLOCK;
        let times = KEY_BLOCK.min(shape.time - start);
        if times < KEY_BLOCK {
            packed.fill(0.0);
        }
        for time in 0..times {
            let x = &x[shape.offset(head, start + time)..][..width];
            for (packed, x) in packed.chunks_exact_mut(KEY_BLOCK).zip(x) {
                packed[time] = *x;
            }
        }
    }
}

/// The visible part of a block of keys for each row of a tile, in columns of
/// the block, and the columns of whole LANES that cover them all.
#[inline(always)]
pub(super) fn tile_ranges<L: Tiling>(
    shape: AttentionShape,
    window: usize,
    first_query: usize,
    first_key: usize,
    ranges: &mut [Range<usize>],
) -> Range<usize> {
    let (mut from, mut to) = (KEY_BLOCK, 0);
    for (row, range) in ranges.iter_mut().enumerate() {
        let time = first_query + row;
        let keys = if time < shape.time {
            super::visible(time, window)
        } else {
            0..0
        };
        let start = keys.start.saturating_sub(first_key).min(KEY_BLOCK);
        let end = keys.end.saturating_sub(first_key).min(KEY_BLOCK);
        *range = if start < end { start..end } else { 0..0 };
        if start < end {
            from = from.min(start);
            to = to.max(end);
        }
    }
    if from < to {
        from / L::LANES * L::LANES..to.next_multiple_of(L::LANES)
    } else {
        0..0
    }
}
