//! The forward pass: one block of queries at a time.

use std::ops::Range;

use super::tile::{Tiling, pack_columns, pack_rows, tile_ranges};
use super::vector::Vector;
use super::{AttentionShape, KEY_BLOCK, QUERY_BLOCK, visible};
use crate::math::exp;
use crate::multiversion;
use crate::pool::SharedMut;

/// At most this many rows has a tile.
const MAXIMUM_ROWS: usize = 8;
multiversion! {
    /// Computes the query blocks `tasks`, counted head by head.
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
        let row = width.next_multiple_of(L::LANES);
        let blocks = shape.time.div_ceil(QUERY_BLOCK);
        let padded_time = shape.time.next_multiple_of(KEY_BLOCK);
        let mut keys = vec![0.0f32; padded_time * width];
        let mut values = vec![0.0f32; padded_time * row];
        let mut queries = vec![0.0f32; QUERY_BLOCK * width];
        let mut sums = vec![0.0f32; QUERY_BLOCK * row];
        let mut scores = [0.0f32; MAXIMUM_ROWS * KEY_BLOCK];
        let mut packed_head = usize::MAX;
        for task in tasks {
            let (head, first_query) = (task / blocks, task % blocks * QUERY_BLOCK);
            if head != packed_head {
                if width > 0 {
                    pack_columns(shape, head, k, &mut keys);
                    pack_rows(shape, head, 0..shape.time, 1.0, v, row, &mut values);
                }
                packed_head = head;
            }
            let end_query = shape.time.min(first_query + QUERY_BLOCK);
            if width > 0 {
                let times = first_query..end_query;
                pack_rows(shape, head, times, shape.scale(), q, width, &mut queries);
            }
            sums.fill(0.0);
            let mut maxima = [f32::NEG_INFINITY; QUERY_BLOCK];
            let mut totals = [0.0f32; QUERY_BLOCK];
            let first_key = visible(first_query, window).start / KEY_BLOCK * KEY_BLOCK;
            for first_key in (first_key..end_query).step_by(KEY_BLOCK) {
                let keys = &keys[first_key * width..][..KEY_BLOCK * width];
                let values = &values[first_key * row..][..KEY_BLOCK * row];
                for tile in (0..end_query - first_query).step_by(L::ROWS) {
                    let mut ranges = [const { 0..0 }; MAXIMUM_ROWS];
                    let ranges = &mut ranges[..L::ROWS];
                    let query = first_query + tile;
                    let columns = tile_ranges::<L>(shape, window, query, first_key, ranges);
                    let queries = &queries[tile * width..][..L::ROWS * width];
                    for column in columns.clone().step_by(L::LANES) {
                        let scores = &mut scores[column..];
                        if width > 0 {
                            L::rows_product(queries, &keys[column..], KEY_BLOCK, scores, KEY_BLOCK);
                        } else {
                            scores.fill(0.0);
                        }
                    }
                    let sums = &mut sums[tile * row..][..L::ROWS * row];
                    for (i, range) in ranges.iter().enumerate() {
                        if range.is_empty() {
                            continue;
                        }
                        let scores = &mut scores[i * KEY_BLOCK..][..KEY_BLOCK];
                        let (maximum, total) = (&mut maxima[tile + i], &mut totals[tile + i]);
                        let factor = weigh::<L>(&mut scores[columns.clone()], columns.start, range, maximum, total);
                        if factor != 1.0 {
                            for sum in &mut sums[i * row..][..row] {
                                *sum *= factor;
                            }
                        }
                    }
                    for lane in (0..row).step_by(L::LANES) {
                        let (values, sums) = (&values[lane..], &mut sums[lane..]);
                        L::add_ranges(ranges, &scores, KEY_BLOCK, values, row, sums, row);
                    }
                }
            }
            for (i, time) in (first_query..end_query).enumerate() {
                let start = shape.offset(head, time);
                // SAFETY: each row of each head belongs to one task.
                let out = unsafe { out.slice(start..start + width) };
                for (out, sum) in out.iter_mut().zip(&sums[i * row..]) {
                    *out = sum / totals[i];
                }
                let index = shape.row(head, time);
                // SAFETY: as above.
                let logsumexp = unsafe { logsumexp.slice(index..index + 1) };
                logsumexp[0] = maxima[i] + totals[i].ln();
            }
        }
    }
}

/// Turns one query's scores, the first of which is in column `start`, into
/// exponentials relative to the new maximum, and adds them to its total.
/// Returns what earlier sums must be multiplied by.
#[inline(always)]
fn weigh<L: Tiling>(
    scores: &mut [f32],
    start: usize,
    range: &Range<usize>,
    maximum: &mut f32,
    total: &mut f32,
) -> f32 {
    let from = range.start as i32 - start as i32;
    let to = range.end as i32 - start as i32;
    for (n, score) in scores.iter_mut().enumerate() {
        let inside = n as i32 >= from && (n as i32) < to;
        *score = if inside { *score } else { f32::NEG_INFINITY };
    }
    let lanes = L::Lane::LANES;
    let mut highest = L::Lane::splat(*maximum);
    for scores in scores.chunks_exact(lanes) {
        highest = highest.max(L::Lane::load(scores));
    }
    let highest = highest.greatest();
    for score in scores.iter_mut() {
        *score = exp(*score - highest);
    }
    let mut added = L::Lane::splat(0.0);
    for scores in scores.chunks_exact(lanes) {
        added = added.add(L::Lane::load(scores));
    }
    let factor = exp(*maximum - highest);
    *maximum = highest;
    *total = *total * factor + added.sum();
    factor
}
