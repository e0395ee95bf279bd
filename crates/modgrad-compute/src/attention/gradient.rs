//! The backward pass: one head at a time, weights recomputed block by block.
//!
//! With P the softmax and delta the dot product of each row of out and dout:
//! dv = P^T dout, dS = P (dout v^T - delta), dq = dS k / sqrt(D),
//! dk = dS^T q / sqrt(D). The factor is packed into the copy of q.

use std::ops::Range;

use super::tile::{Tiling, pack_columns, pack_rows, tile_ranges};
use super::vector::Vector;
use super::{AttentionShape, KEY_BLOCK, QUERY_BLOCK, visible};
use crate::math::exp;
use crate::multiversion;
use crate::pool::SharedMut;

/// At most this many rows has a tile.
const MAXIMUM_ROWS: usize = 8;

/// What the gradient is computed from.
pub(super) struct Inputs<'a> {
    pub(super) shape: AttentionShape,
    pub(super) window: usize,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) logsumexp: &'a [f32],
    pub(super) dout: &'a [f32],
}

/// What it is written to.
pub(super) struct Outputs<'a> {
    pub(super) dq: SharedMut<'a, f32>,
    pub(super) dk: SharedMut<'a, f32>,
    pub(super) dv: SharedMut<'a, f32>,
}

multiversion! {
    /// Computes the heads `tasks` (b H + h).
    pub(super) fn run[L: Tiling](_tiling: L, tasks: Range<usize>, inputs: &Inputs<'_>, outputs: &Outputs<'_>) {
        let &Inputs { shape, window, .. } = inputs;
        let width = shape.head_width;
        if width == 0 {
            return;
        }
        let row = width.next_multiple_of(L::LANES);
        let padded_time = shape.time.next_multiple_of(KEY_BLOCK);
        let mut key_columns = vec![0.0f32; padded_time * width];
        let mut value_columns = vec![0.0f32; padded_time * width];
        let mut keys = vec![0.0f32; padded_time * row];
        let mut dkeys = vec![0.0f32; padded_time * row];
        let mut dvalues = vec![0.0f32; padded_time * row];
        let mut queries = vec![0.0f32; QUERY_BLOCK * row];
        let mut narrow_queries = vec![0.0f32; QUERY_BLOCK * width];
        let mut douts = vec![0.0f32; QUERY_BLOCK * row];
        let mut narrow_douts = vec![0.0f32; QUERY_BLOCK * width];
        let mut dqueries = vec![0.0f32; QUERY_BLOCK * row];
        let mut weights = vec![0.0f32; QUERY_BLOCK * KEY_BLOCK];
        let mut dscores = vec![0.0f32; QUERY_BLOCK * KEY_BLOCK];
        for head in tasks {
            pack_columns(shape, head, inputs.k, &mut key_columns);
            pack_columns(shape, head, inputs.v, &mut value_columns);
            pack_rows(shape, head, 0..shape.time, 1.0, inputs.k, row, &mut keys);
            dkeys.fill(0.0);
            dvalues.fill(0.0);
            for first_query in (0..shape.time).step_by(QUERY_BLOCK) {
                let end_query = shape.time.min(first_query + QUERY_BLOCK);
                let times = first_query..end_query;
                let scale = shape.scale();
                pack_rows(shape, head, times.clone(), scale, inputs.q, row, &mut queries);
                pack_rows(shape, head, times.clone(), scale, inputs.q, width, &mut narrow_queries);
                pack_rows(shape, head, times.clone(), 1.0, inputs.dout, row, &mut douts);
                pack_rows(shape, head, times.clone(), 1.0, inputs.dout, width, &mut narrow_douts);
                let mut logsumexp = [0.0f32; QUERY_BLOCK];
                let mut delta = [0.0f32; QUERY_BLOCK];
                for (i, time) in times.clone().enumerate() {
                    logsumexp[i] = inputs.logsumexp[shape.row(head, time)];
                    let start = shape.offset(head, time);
                    let out = &inputs.out[start..start + width];
                    let dout = &inputs.dout[start..start + width];
                    delta[i] = dot::<L>(out, dout);
                }
                dqueries.fill(0.0);
                let first_key = visible(first_query, window).start / KEY_BLOCK * KEY_BLOCK;
                for first_key in (first_key..end_query).step_by(KEY_BLOCK) {
                    let key_columns = &key_columns[first_key * width..][..KEY_BLOCK * width];
                    let value_columns = &value_columns[first_key * width..][..KEY_BLOCK * width];
                    let keys = &keys[first_key * row..][..KEY_BLOCK * row];
                    for tile in (0..times.len()).step_by(L::ROWS) {
                        let mut ranges = [const { 0..0 }; MAXIMUM_ROWS];
                        let ranges = &mut ranges[..L::ROWS];
                        let query = first_query + tile;
                        let columns = tile_ranges::<L>(shape, window, query, first_key, ranges);
                        let queries = &narrow_queries[tile * width..][..L::ROWS * width];
                        let douts = &narrow_douts[tile * width..][..L::ROWS * width];
                        let weights = &mut weights[tile * KEY_BLOCK..][..L::ROWS * KEY_BLOCK];
                        let dscores = &mut dscores[tile * KEY_BLOCK..][..L::ROWS * KEY_BLOCK];
                        for column in columns.clone().step_by(L::LANES) {
                            let scores = &mut weights[column..];
                            L::rows_product(
                                queries, &key_columns[column..], KEY_BLOCK, scores, KEY_BLOCK,
                            );
                            let dweights = &mut dscores[column..];
                            L::rows_product(
                                douts, &value_columns[column..], KEY_BLOCK, dweights, KEY_BLOCK,
                            );
                        }
                        for (i, range) in ranges.iter().enumerate() {
                            let span = i * KEY_BLOCK + columns.start..i * KEY_BLOCK + columns.end;
                            let (weights, dscores) =
                                (&mut weights[span.clone()], &mut dscores[span]);
                            let (from, to) = (
                                range.start as i32 - columns.start as i32,
                                range.end as i32 - columns.start as i32,
                            );
                            let (logsumexp, delta) = (logsumexp[tile + i], delta[tile + i]);
                            for n in 0..weights.len() {
                                let inside = n as i32 >= from && (n as i32) < to;
                                let weight = exp(weights[n] - logsumexp);
                                let dscore = weight * (dscores[n] - delta);
                                weights[n] = if inside { weight } else { 0.0 };
                                dscores[n] = if inside { dscore } else { 0.0 };
                            }
                        }
                        let dqueries = &mut dqueries[tile * row..][..L::ROWS * row];
                        for lane in (0..row).step_by(L::LANES) {
                            let (keys, dqueries) = (&keys[lane..], &mut dqueries[lane..]);
                            L::add_ranges(ranges, dscores, KEY_BLOCK, keys, row, dqueries, row);
                        }
                    }
                    // A tile of keys is seen from its first key's own query on,
                    // to its last key's last one; all columns of the tile were
                    // computed for these rows.
                    for tile in (0..KEY_BLOCK.min(end_query - first_key)).step_by(L::ROWS) {
                        let key = first_key + tile;
                        let from = key.saturating_sub(first_query);
                        let last = (key + L::ROWS - 1).saturating_add(window);
                        let to = last.saturating_sub(first_query).min(times.len());
                        if from >= to {
                            continue;
                        }
                        let depth = to - from;
                        for lane in (0..row).step_by(L::LANES) {
                            let c = key * row + lane;
                            let (a, b) = (from * KEY_BLOCK + tile, from * row + lane);
                            L::add_transposed(
                                depth, &weights[a..], KEY_BLOCK, &douts[b..], row,
                                &mut dvalues[c..], row,
                            );
                            L::add_transposed(
                                depth, &dscores[a..], KEY_BLOCK, &queries[b..], row,
                                &mut dkeys[c..], row,
                            );
                        }
                    }
                }
                unpack_rows(shape, head, times, scale, &dqueries, row, &outputs.dq);
            }
            unpack_rows(shape, head, 0..shape.time, 1.0, &dkeys, row, &outputs.dk);
            unpack_rows(shape, head, 0..shape.time, 1.0, &dvalues, row, &outputs.dv);
        }
    }
}

/// The dot product of two rows.
#[inline(always)]
fn dot<L: Tiling>(a: &[f32], b: &[f32]) -> f32 {
    let lanes = L::Lane::LANES;
    let whole = a.len() / lanes * lanes;
    let mut sums = L::Lane::splat(0.0);
    for start in (0..whole).step_by(lanes) {
        sums = sums.multiply_add(L::Lane::load(&a[start..]), L::Lane::load(&b[start..]));
    }
    let mut sum = sums.sum();
    for i in whole..a.len() {
        sum += a[i] * b[i];
    }
    sum
}

/// Writes packed rows, times `scale`, to the positions `times` of one head.
#[inline(always)]
fn unpack_rows(
    shape: AttentionShape,
    head: usize,
    times: Range<usize>,
    scale: f32,
    packed: &[f32],
    row: usize,
    out: &SharedMut<'_, f32>,
) {
    for (time, packed) in times.zip(packed.chunks_exact(row)) {
        let start = shape.offset(head, time);
        // SAFETY: each head belongs to one task.
        let out = unsafe { out.slice(start..start + shape.head_width) };
        for (out, packed) in out.iter_mut().zip(packed) {
            *out = packed * scale;
        }
    }
}
