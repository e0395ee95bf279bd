//! The backward pass: one head at a time, weights recomputed block by block.
//!
//! With P the softmax and delta the dot product of each row of out and dout:
//! dv = P^T dout, dS = P (dout v^T - delta), dq = dS k / sqrt(D),
//! dk = dS^T q / sqrt(D). The factor is packed into the copy of q. As in the
//! forward pass, P and dS have a row a key and a lane a query.

use std::ops::Range;

use super::forward::hide;
use super::tile::{Matrix, Tiling, pack, transpose};
use super::{AttentionShape, KEY_BLOCK, MAXIMUM_LANES, MAXIMUM_ROWS, Rows, visible};
use crate::multiversion;
use crate::pool::SharedMut;
use crate::vector::Vector;

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
    pub(super) fn run[L: Tiling](
        _tiling: L,
        tasks: Range<usize>,
        inputs: &Inputs<'_>,
        outputs: &Outputs<'_>,
    ) {
        let &Inputs { shape, window, .. } = inputs;
        let (width, scale) = (shape.head_width, shape.scale());
        if width == 0 {
            return;
        }
        let stride = width.next_multiple_of(L::LANES);
        let padded_time = shape.time.next_multiple_of(KEY_BLOCK);
        let [mut keys, mut values] = [const { Vec::new() }; 2];
        let [mut dkeys, mut dvalues] = [const { Vec::new() }; 2];
        for packed in [&mut keys, &mut values, &mut dkeys, &mut dvalues] {
            packed.resize(padded_time * stride, 0.0f32);
        }
        let [mut queries, mut douts, mut dqueries] = [const { Vec::new() }; 3];
        let [mut query_columns, mut dout_columns] = [const { Vec::new() }; 2];
        for packed in [&mut queries, &mut douts, &mut dqueries] {
            packed.resize(L::LANES * stride, 0.0f32);
        }
        for packed in [&mut query_columns, &mut dout_columns] {
            packed.resize(L::LANES * width, 0.0f32);
        }
        let mut weights = [0.0f32; KEY_BLOCK * MAXIMUM_LANES];
        let mut dscores = [0.0f32; KEY_BLOCK * MAXIMUM_LANES];
        for head in tasks {
            pack(shape, head, 0..shape.time, 1.0, inputs.k, stride, &mut keys);
            pack(shape, head, 0..shape.time, 1.0, inputs.v, stride, &mut values);
            dkeys.fill(0.0);
            dvalues.fill(0.0);
            for first_query in (0..shape.time).step_by(L::LANES) {
                let times = first_query..shape.time.min(first_query + L::LANES);
                pack(shape, head, times.clone(), scale, inputs.q, stride, &mut queries);
                pack(shape, head, times.clone(), 1.0, inputs.dout, stride, &mut douts);
                let query_rows = Matrix { data: &queries, stride };
                let dout_rows = Matrix { data: &douts, stride };
                transpose(L::LANES, width, query_rows, &mut query_columns);
                transpose(L::LANES, width, dout_rows, &mut dout_columns);
                let query_columns = Matrix { data: &query_columns, stride: L::LANES };
                let dout_columns = Matrix { data: &dout_columns, stride: L::LANES };
                let mut logsumexp = [0.0f32; MAXIMUM_LANES];
                let mut delta = [0.0f32; MAXIMUM_LANES];
                for (i, time) in times.clone().enumerate() {
                    logsumexp[i] = inputs.logsumexp[shape.row(head, time)];
                    let span = shape.offset(head, time)..shape.offset(head, time) + width;
                    delta[i] = dot(&inputs.out[span.clone()], &inputs.dout[span]);
                }
                dqueries.fill(0.0);
                let first_key = visible(first_query, window).start / KEY_BLOCK * KEY_BLOCK;
                for first_key in (first_key..times.end).step_by(KEY_BLOCK) {
                    let rows = Rows::new::<L>(times.clone(), first_key, window);
                    let key_rows = Matrix { data: &keys, stride }.at(first_key, 0);
                    let value_rows = Matrix { data: &values, stride }.at(first_key, 0);
                    for row in rows.computed.clone().step_by(L::ROWS) {
                        let (keys, values) = (key_rows.at(row, 0), value_rows.at(row, 0));
                        let start = row * L::LANES;
                        let (scores, dweights) = (&mut weights[start..], &mut dscores[start..]);
                        L::product(false, width, keys, query_columns, scores, L::LANES);
                        L::product(false, width, values, dout_columns, dweights, L::LANES);
                    }
                    for row in rows.computed.clone() {
                        let span = row * L::LANES..(row + 1) * L::LANES;
                        let (weights, dscores) = (&mut weights[span.clone()], &mut dscores[span]);
                        weigh::<L>(weights, dscores, &logsumexp, &delta);
                        if !rows.whole.contains(&row) {
                            hide(weights, 0.0, first_query, first_key + row, window);
                            hide(dscores, 0.0, first_query, first_key + row, window);
                        }
                    }
                    let weights = Matrix { data: &weights, stride: L::LANES };
                    let dscores = Matrix { data: &dscores, stride: L::LANES };
                    let depth = times.len();
                    for row in rows.computed.clone().step_by(L::ROWS) {
                        for lane in (0..stride).step_by(L::LANES) {
                            let start = (first_key + row) * stride + lane;
                            let (weights, douts) = (weights.at(row, 0), dout_rows.at(0, lane));
                            let dvalues = &mut dvalues[start..];
                            L::product(true, depth, weights, douts, dvalues, stride);
                            let (dscores, queries) = (dscores.at(row, 0), query_rows.at(0, lane));
                            let dkeys = &mut dkeys[start..];
                            L::product(true, depth, dscores, queries, dkeys, stride);
                        }
                    }
                    // The rows that a query does not see hold zeros.
                    let mut ranges = [const { 0..0 }; MAXIMUM_ROWS];
                    ranges.fill(rows.computed.clone());
                    for tile in (0..depth).step_by(L::ROWS) {
                        for lane in (0..stride).step_by(L::LANES) {
                            let dqueries = &mut dqueries[tile * stride + lane..];
                            let (dscores, keys) = (dscores.at(0, tile), key_rows.at(0, lane));
                            L::add_transposed(&ranges, dscores, keys, dqueries, stride);
                        }
                    }
                }
                unpack(shape, head, times, scale, &dqueries, stride, &outputs.dq);
            }
            unpack(shape, head, 0..shape.time, 1.0, &dkeys, stride, &outputs.dk);
            unpack(shape, head, 0..shape.time, 1.0, &dvalues, stride, &outputs.dv);
        }
    }
}

/// Turns one key's scores into weights, and the gradients of its weights into
/// those of its scores.
#[inline(always)]
fn weigh<L: Tiling>(
    weights: &mut [f32],
    dscores: &mut [f32],
    logsumexp: &[f32; MAXIMUM_LANES],
    delta: &[f32; MAXIMUM_LANES],
) {
    let minus = L::Lane::splat(-1.0);
    for start in (0..L::LANES).step_by(L::Lane::LANES) {
        let (weights, dscores) = (&mut weights[start..], &mut dscores[start..]);
        let logsumexp = L::Lane::load(&logsumexp[start..]);
        let delta = L::Lane::load(&delta[start..]);
        let weight = L::Lane::load(weights).multiply_add(logsumexp, minus).exp();
        let dscore = L::Lane::load(dscores).multiply_add(delta, minus).multiply(weight);
        weight.store(weights);
        dscore.store(dscores);
    }
}

/// The dot product of two rows, in eight sums that do not wait for each other.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (a, b) = (&a[start..start + LANES], &b[start..start + LANES]);
        for n in 0..LANES {
            sums[n] += a[n] * b[n];
        }
    }
    for i in whole..a.len() {
        sums[i - whole] += a[i] * b[i];
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Writes packed rows, times `scale`, to the positions `times` of one head.
#[inline(always)]
fn unpack(
    shape: AttentionShape,
    head: usize,
    times: Range<usize>,
    scale: f32,
    packed: &[f32],
    stride: usize,
    out: &SharedMut<'_, f32>,
) {
    let width = shape.head_width;
    for (time, packed) in times.zip(packed.chunks_exact(stride)) {
        let start = shape.offset(head, time);
        // SAFETY: each head belongs to one task.
        let out = unsafe { out.slice(start..start + width) };
        for (out, packed) in out.iter_mut().zip(&packed[..width]) {
            *out = packed * scale;
        }
    }
}
