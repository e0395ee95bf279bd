//! What attention of one query over the tokens of a sample is made of.
//!
//! Axes: L tokens, h heads, c channels of a head, d = h·c. Scores are [h][stride]:
//! L of them a head, the rest of a row is nobody's.

use super::{Buffer, LANES, Only, on_active_vector};
use crate::multiversion;
use crate::vector::PortableVector;
use crate::vector::Vector;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2Vector, Avx512Vector};

/// The sizes of the tokens of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// L.
    pub tokens: usize,
    /// h.
    pub heads: usize,
    /// c.
    pub channels: usize,
}

impl Sizes {
    /// From a head's scores to the next: tokens in whole blocks.
    pub fn stride(&self) -> usize {
        self.tokens.next_multiple_of(LANES)
    }
}

/// rows [L][d] → [d][stride], zeros behind the tokens.
///
/// Panics when the lengths disagree.
pub fn by_channel(sizes: Sizes, rows: &[f32]) -> Buffer {
    let (width, stride) = (sizes.heads * sizes.channels, sizes.stride());
    assert_eq!(rows.len(), sizes.tokens * width, "`by_channel`: rows");
    let mut out = Buffer::zeros(width * stride);
    // A block of tokens at a time: its rows stay near while its columns are written.
    for start in (0..sizes.tokens).step_by(LANES) {
        let end = sizes.tokens.min(start + LANES);
        for c in 0..width {
            for l in start..end {
                out[c * stride + l] = rows[l * width + c];
            }
        }
    }
    out
}

/// scores[head][l] = scale · Σ_c vector[head·c]·columns[head·c][l].
///
/// Panics when the lengths disagree.
pub fn scores(sizes: Sizes, scale: f32, vector: &[f32], columns: &[f32], scores: &mut [f32]) {
    let width = sizes.heads * sizes.channels;
    assert_eq!(vector.len(), width, "`scores`: vector");
    assert_eq!(columns.len(), width * sizes.stride(), "`scores`: columns");
    assert_eq!(scores.len(), sizes.heads * sizes.stride(), "`scores`: scores");
    on_active_vector!(scores_of(sizes, scale, vector, columns, scores));
}

multiversion! {
    fn scores_of[V: Vector](
        _vector: Only<V>, sizes: Sizes, scale: f32, vector: &[f32], columns: &[f32],
        scores: &mut [f32],
    ) {
        let (channels, stride) = (sizes.channels, sizes.stride());
        for head in 0..sizes.heads {
            let vector = &vector[head * channels..][..channels];
            let columns = &columns[head * channels * stride..][..channels * stride];
            let scores = &mut scores[head * stride..][..stride];
            let mut l = 0;
            while l + 8 * V::LANES <= stride {
                scores_tile::<V, 8>(stride, l, scale, vector, columns, scores);
                l += 8 * V::LANES;
            }
            while l + 2 * V::LANES <= stride {
                scores_tile::<V, 2>(stride, l, scale, vector, columns, scores);
                l += 2 * V::LANES;
            }
            while l < stride {
                scores_tile::<V, 1>(stride, l, scale, vector, columns, scores);
                l += V::LANES;
            }
        }
    }
}

#[inline(always)]
fn scores_tile<V: Vector, const N: usize>(
    stride: usize,
    l: usize,
    scale: f32,
    vector: &[f32],
    columns: &[f32],
    scores: &mut [f32],
) {
    let mut sums = [V::splat(0.0); N];
    for (x, column) in vector.iter().zip(columns.chunks_exact(stride)) {
        let x = V::splat(*x);
        let column = &column[l..][..N * V::LANES];
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = sum.multiply_add(x, V::load(&column[n * V::LANES..]));
        }
    }
    for (n, sum) in sums.iter().enumerate() {
        sum.multiply(V::splat(scale)).store(&mut scores[l + n * V::LANES..]);
    }
}

/// out[c] = Σ_l weights[head of c][l]·rows[l][c].
///
/// Panics when the lengths disagree.
pub fn weighted_sum(sizes: Sizes, weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = sizes.heads * sizes.channels;
    assert_eq!(out.len(), width, "`weighted_sum`: out");
    assert_eq!(rows.len(), sizes.tokens * width, "`weighted_sum`: rows");
    assert_eq!(weights.len(), sizes.heads * sizes.stride(), "`weighted_sum`: weights");
    on_active_vector!(weighted_of(sizes, weights, rows, out));
}

multiversion! {
    fn weighted_of[V: Vector](
        _vector: Only<V>, sizes: Sizes, weights: &[f32], rows: &[f32], out: &mut [f32],
    ) {
        let (channels, stride) = (sizes.channels, sizes.stride());
        let width = out.len();
        let whole = if channels % V::LANES == 0 { width } else { 0 };
        let mut c = 0;
        while c + 8 * V::LANES <= whole {
            weighted_tile::<V, 8>(channels, stride, c, weights, rows, out);
            c += 8 * V::LANES;
        }
        while c < whole {
            weighted_tile::<V, 1>(channels, stride, c, weights, rows, out);
            c += V::LANES;
        }
        for c in whole..width {
            let weights = &weights[c / channels * stride..];
            out[c] = (0..sizes.tokens).map(|l| weights[l] * rows[l * width + c]).sum();
        }
    }
}

#[inline(always)]
fn weighted_tile<V: Vector, const N: usize>(
    channels: usize,
    stride: usize,
    c: usize,
    weights: &[f32],
    rows: &[f32],
    out: &mut [f32],
) {
    let heads: [&[f32]; N] =
        std::array::from_fn(|n| &weights[(c + n * V::LANES) / channels * stride..][..stride]);
    let mut sums = [V::splat(0.0); N];
    for (l, row) in rows.chunks_exact(out.len()).enumerate().take(stride) {
        let row = &row[c..][..N * V::LANES];
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = sum.multiply_add(V::splat(heads[n][l]), V::load(&row[n * V::LANES..]));
        }
    }
    for (n, sum) in sums.iter().enumerate() {
        sum.store(&mut out[c + n * V::LANES..]);
    }
}

/// rows[l][c] = Σ_t weights[t][head of c][l]·vectors[t][c] over `steps` steps.
///
/// Panics when the lengths disagree.
pub fn outer_sum(sizes: Sizes, steps: usize, weights: &[f32], vectors: &[f32], rows: &mut [f32]) {
    let width = sizes.heads * sizes.channels;
    assert_eq!(rows.len(), sizes.tokens * width, "`outer_sum`: rows");
    assert_eq!(vectors.len(), steps * width, "`outer_sum`: vectors");
    assert_eq!(weights.len(), steps * sizes.heads * sizes.stride(), "`outer_sum`: weights");
    on_active_vector!(outer_of(sizes, steps, weights, vectors, rows));
}

multiversion! {
    fn outer_of[V: Vector](
        _vector: Only<V>, sizes: Sizes, steps: usize, weights: &[f32], vectors: &[f32],
        rows: &mut [f32],
    ) {
        let Sizes { tokens, channels, .. } = sizes;
        let width = sizes.heads * channels;
        let whole = if channels % V::LANES == 0 { width } else { 0 };
        let mut l = 0;
        while l < tokens && whole > 0 {
            let four = l + 4 <= tokens;
            let mut c = 0;
            while c < whole {
                let pair = c % channels + 2 * V::LANES <= channels;
                match (four, pair) {
                    (true, true) => outer_tile::<V, 4, 2>(sizes, steps, l, c, weights, vectors, rows),
                    (true, false) => outer_tile::<V, 4, 1>(sizes, steps, l, c, weights, vectors, rows),
                    (false, true) => outer_tile::<V, 1, 2>(sizes, steps, l, c, weights, vectors, rows),
                    (false, false) => outer_tile::<V, 1, 1>(sizes, steps, l, c, weights, vectors, rows),
                }
                c += if pair { 2 * V::LANES } else { V::LANES };
            }
            l += if four { 4 } else { 1 };
        }
        let size = sizes.heads * sizes.stride();
        for c in whole..width {
            let head = c / channels * sizes.stride();
            for l in 0..tokens {
                rows[l * width + c] = (0..steps)
                    .map(|t| weights[t * size + head + l] * vectors[t * width + c])
                    .sum();
            }
        }
    }
}

#[inline(always)]
fn outer_tile<V: Vector, const L: usize, const N: usize>(
    sizes: Sizes,
    steps: usize,
    l: usize,
    c: usize,
    weights: &[f32],
    vectors: &[f32],
    rows: &mut [f32],
) {
    let width = sizes.heads * sizes.channels;
    let size = sizes.heads * sizes.stride();
    let head = c / sizes.channels * sizes.stride();
    let mut sums = [[V::splat(0.0); N]; L];
    for t in 0..steps {
        let weights = &weights[t * size + head + l..][..L];
        let vector = &vectors[t * width + c..][..N * V::LANES];
        let mut right = [V::splat(0.0); N];
        for (n, right) in right.iter_mut().enumerate() {
            *right = V::load(&vector[n * V::LANES..]);
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let weight = V::splat(weights[i]);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = sum.multiply_add(weight, right);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut rows[(l + i) * width + c + n * V::LANES..]);
        }
    }
}
