//! The forward pass: as many queries at a time as a tile has lanes.
//!
//! The scores of a block of keys are kept with a row a key and a lane a query,
//! so that the softmax needs no sums or maxima across lanes.

use std::ops::Range;

use super::tile::{Matrix, Tiling, pack, transpose};
use super::{AttentionShape, KEY_BLOCK, MAXIMUM_LANES, MAXIMUM_ROWS, QUERY_BLOCK, Rows, visible};
use crate::multiversion;
use crate::pool::SharedMut;
use crate::vector::Vector;

multiversion! {
    /// Computes the blocks of queries `tasks`, counted head by head.
    pub(super) fn run[L: Tiling](
        _tiling: L,
        tasks: Range<usize>,
        shape: AttentionShape,
        window: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &SharedMut<'_, f32>,
        logsumexp: &SharedMut<'_, f32>,
    ) {
        let width = shape.head_width;
        let stride = width.next_multiple_of(L::LANES);
        let blocks = shape.time.div_ceil(QUERY_BLOCK);
        let padded_time = shape.time.next_multiple_of(KEY_BLOCK);
        let mut keys = vec![0.0f32; padded_time * stride];
        let mut values = vec![0.0f32; padded_time * stride];
        let mut queries = vec![0.0f32; L::LANES * stride];
        let mut query_columns = vec![0.0f32; L::LANES * width];
        let mut sums = vec![0.0f32; L::LANES * stride];
        let mut scores = [0.0f32; KEY_BLOCK * MAXIMUM_LANES];
        let mut packed_head = usize::MAX;
        for task in tasks {
            let (head, block) = (task / blocks, task % blocks * QUERY_BLOCK);
            if head != packed_head {
                pack(shape, head, 0..shape.time, 1.0, k, stride, &mut keys);
                pack(shape, head, 0..shape.time, 1.0, v, stride, &mut values);
                packed_head = head;
            }
            for first_query in (block..shape.time.min(block + QUERY_BLOCK)).step_by(L::LANES) {
                let queries_end = shape.time.min(first_query + L::LANES);
                pack(shape, head, first_query..queries_end, shape.scale(), q, stride, &mut queries);
                transpose(L::LANES, width, Matrix { data: &queries, stride }, &mut query_columns);
                let query_columns = Matrix { data: &query_columns, stride: L::LANES };
                sums.fill(0.0);
                let mut maxima = [f32::NEG_INFINITY; MAXIMUM_LANES];
                let mut totals = [0.0f32; MAXIMUM_LANES];
                let first_key = visible(first_query, window).start / KEY_BLOCK * KEY_BLOCK;
                for first_key in (first_key..queries_end).step_by(KEY_BLOCK) {
                    let rows = Rows::new::<L>(first_query..queries_end, first_key, window);
                    let keys = Matrix { data: &keys, stride }.at(first_key, 0);
                    let values = Matrix { data: &values, stride }.at(first_key, 0);
                    for row in rows.computed.clone().step_by(L::ROWS) {
                        let scores = &mut scores[row * L::LANES..];
                        L::product(false, width, keys.at(row, 0), query_columns, scores, L::LANES);
                    }
                    for row in rows.computed.clone() {
                        if !rows.whole.contains(&row) {
                            let scores = &mut scores[row * L::LANES..][..L::LANES];
                            hide(scores, f32::NEG_INFINITY, first_query, first_key + row, window);
                        }
                    }
                    let span = rows.computed.start * L::LANES..rows.computed.end * L::LANES;
                    let factors = weigh::<L>(&mut scores[span], &mut maxima, &mut totals);
                    for (sums, factor) in sums.chunks_exact_mut(stride.max(1)).zip(factors) {
                        for sum in sums {
                            *sum *= factor;
                        }
                    }
                    let scores = Matrix { data: &scores, stride: L::LANES };
                    for tile in (0..queries_end - first_query).step_by(L::ROWS) {
                        let mut ranges = [const { 0..0 }; MAXIMUM_ROWS];
                        for (i, range) in ranges.iter_mut().enumerate().take(L::ROWS) {
                            let query = first_query + tile + i;
                            if query < queries_end {
                                *range = inside(visible(query, window), first_key);
                            }
                        }
                        for lane in (0..stride).step_by(L::LANES) {
                            let sums = &mut sums[tile * stride + lane..];
                            let (a, b) = (scores.at(0, tile), values.at(0, lane));
                            L::add_transposed(&ranges, a, b, sums, stride);
                        }
                    }
                }
                for (i, time) in (first_query..queries_end).enumerate() {
                    let start = shape.offset(head, time);
                    // SAFETY: each row of each head belongs to one task.
                    let out = unsafe { out.slice(start..start + width) };
                    let sums = &sums[i * stride..][..width];
                    let factor = 1.0 / totals[i];
                    for (out, sum) in out.iter_mut().zip(sums) {
*out = sum * factor;
                    }
                    let index = shape.row(head, time);
                    // SAFETY: as above.
                    let logsumexp = unsafe { logsumexp.slice(index..index + 1) };
                    logsumexp[0] = maxima[i] + totals[i].ln();
                }
            }
        }
    }
}

/// The part of `keys` that lies in a block, relative to it.
#[inline(always)]
fn inside(keys: Range<usize>, first_key: usize) -> Range<usize> {
    let start = keys.start.max(first_key);
    let end = keys.end.min(first_key + KEY_BLOCK);
    if start < end { start - first_key..end - first_key } else { 0..0 }
}

/// Overwrites what a key holds for the queries that do not see it.
#[inline(always)]
pub(super) fn hide(lanes: &mut [f32], value: f32, first_query: usize, key: usize, window: usize) {
    // Query n of the group sees the key if 0 <= n - from < window.
    let from = key as i64 - first_query as i64;
    let from = from as i32;
    let window = window.min(i32::MAX as usize / 2) as i32;
    for (n, lane) in lanes.iter_mut().enumerate() {
        let distance = n as i32 - from;
        let seen = distance >= 0 && distance < window;
        *lane = if seen { *lane } else { value };
    }
}

/// Turns scores into exponentials relative to each query's new maximum, and
/// adds them to its total. Returns what earlier sums must be multiplied by.
#[inline(always)]
fn weigh<L: Tiling>(
    scores: &mut [f32],
    maxima: &mut [f32; MAXIMUM_LANES],
    totals: &mut [f32; MAXIMUM_LANES],
) -> [f32; MAXIMUM_LANES] {
    let lanes = L::Lane::LANES;
    let mut factors = [1.0; MAXIMUM_LANES];
    for start in (0..L::LANES).step_by(lanes) {
        let before = L::Lane::load(&maxima[start..]);
        // Rows come in pairs, whose maxima do not wait for each other. Where a
        // window hides all keys, a finite maximum keeps the differences defined.
        let mut highest = [before.max(L::Lane::splat(f32::MIN)); 2];
        for pair in scores.chunks_exact(2 * L::LANES) {
            highest[0] = highest[0].max(L::Lane::load(&pair[start..]));
            highest[1] = highest[1].max(L::Lane::load(&pair[L::LANES + start..]));
        }
        let highest = highest[0].max(highest[1]);
        let minus_highest = highest.multiply(L::Lane::splat(-1.0));
        let mut total = L::Lane::splat(0.0);
        for row in scores.chunks_exact_mut(L::LANES) {
            let row = &mut row[start..];
            let weight = L::Lane::load(row).add(minus_highest).exp();
            weight.store(row);
            total = total.add(weight);
        }
        let factor = before.add(minus_highest).exp();
        let before = L::Lane::load(&totals[start..]);
        total.multiply_add(before, factor).store(&mut totals[start..]);
        highest.store(&mut maxima[start..]);
        factor.store(&mut factors[start..]);
    }
    factors
}
