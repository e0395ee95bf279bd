//! Small matrix products on register tiles, and the packing that they need.
//!
//! A tile is ROWS x LANES sums that stay in registers; each sum runs over the
//! depth in rising order, from what the tile held before, so its value does not
//! depend on how the depth was cut into calls.

use std::array::from_fn;
use std::ops::Range;

use super::{AttentionShape, KEY_BLOCK};

/// A tile's size on one instruction set. LANES is a multiple of ROWS and
/// divides the block sizes.
pub(super) trait Tiling {
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
    ($(#[$meta:meta])* $name:ident, $rows:literal, $lanes:literal, $fused:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Tiling for $name {
            const ROWS: usize = $rows;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn rows_product(a: &[f32], b: &[f32], b_row: usize, c: &mut [f32], c_row: usize) {
                rows_product::<$rows, $lanes, { $fused }>(a, b, b_row, c, c_row);
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
                add_ranges::<$rows, $lanes, { $fused }>(ranges, a, a_row, b, b_row, c, c_row);
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
                add_transposed::<$rows, $lanes, { $fused }>(depth, a, a_row, b, b_row, c, c_row);
            }
        }
    };
}

tiling! {
    /// 16 of 32 registers hold sums.
    Avx512Tiling, 8, 32, true
}
tiling! {
    /// 8 of 16 registers hold sums.
    Avx2Tiling, 4, 16, true
}
tiling! {
    /// 8 of the 16 registers of SSE2 hold sums. NEON multiplies and adds in
    /// one instruction; SSE2 would call a slow function for it.
    PortableTiling, 4, 8, cfg!(target_arch = "aarch64")
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn load<const R: usize, const N: usize>(c: &[f32], c_row: usize) -> [[f32; N]; R] {
    from_fn(|i| *c[i * c_row..].first_chunk().expect("a full tile"))
}

#[inline(always)]
fn store<const R: usize, const N: usize>(sums: [[f32; N]; R], c: &mut [f32], c_row: usize) {
    for (i, sums) in sums.iter().enumerate() {
        c[i * c_row..][..N].copy_from_slice(sums);
    }
}

#[inline(always)]
fn rows_product<const R: usize, const N: usize, const FUSED: bool>(
    a: &[f32],
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let depth = a.len() / R;
    let a: [&[f32]; R] = from_fn(|i| &a[i * depth..][..depth]);
    let mut sums = [[0.0f32; N]; R];
    for k in 0..depth {
        let b: &[f32; N] = b[k * b_row..].first_chunk().expect("a full row");
        for i in 0..R {
            for n in 0..N {
                sums[i][n] = multiply_add::<FUSED>(a[i][k], b[n], sums[i][n]);
            }
        }
    }
    store(sums, c, c_row);
}

#[inline(always)]
fn add_ranges<const R: usize, const N: usize, const FUSED: bool>(
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
    let a: [&[f32]; R] = from_fn(|i| &a[i * a_row..][..last]);
    let mut sums: [[f32; N]; R] = load(c, c_row);
    for (from, to, some) in [
        (first, all_from, true),
        (all_from, all_to, false),
        (all_to, last, true),
    ] {
        if some {
            for k in from..to {
                let b: &[f32; N] = b[k * b_row..].first_chunk().expect("a full row");
                for i in 0..R {
                    let inside = k >= ranges[i].start && k < ranges[i].end;
                    for n in 0..N {
                        let sum = multiply_add::<FUSED>(a[i][k], b[n], sums[i][n]);
                        sums[i][n] = if inside { sum } else { sums[i][n] };
                    }
                }
            }
        } else {
            for k in from..to {
                let b: &[f32; N] = b[k * b_row..].first_chunk().expect("a full row");
                for i in 0..R {
                    for n in 0..N {
                        sums[i][n] = multiply_add::<FUSED>(a[i][k], b[n], sums[i][n]);
                    }
                }
            }
        }
    }
    store(sums, c, c_row);
}

#[inline(always)]
fn add_transposed<const R: usize, const N: usize, const FUSED: bool>(
    depth: usize,
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut sums: [[f32; N]; R] = load(c, c_row);
    for k in 0..depth {
        let a: &[f32; R] = a[k * a_row..].first_chunk().expect("a full column");
        let b: &[f32; N] = b[k * b_row..].first_chunk().expect("a full row");
        for i in 0..R {
            for n in 0..N {
                sums[i][n] = multiply_add::<FUSED>(a[i], b[n], sums[i][n]);
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
