//! Weights as the loops read them: rows in whole vectors, each block of neurons
//! with its weights side by side.

use modgrad_compute::Pool;
use modgrad_compute::thin::LANES;

use super::{Shape, Weights};
use crate::synchronisation::Norms;

pub(super) struct Packed<'a> {
    pub(super) weights: &'a Weights<'a>,
    pub(super) norms: Norms,
    /// [S][padded width].
    pub(super) query: Vec<f32>,
    /// [padded width].
    pub(super) query_bias: Vec<f32>,
    /// [d + D][2 padded]: values, then gates.
    pub(super) synapse: Vec<f32>,
    /// [2 padded].
    pub(super) synapse_bias: Vec<f32>,
    /// [padded].
    pub(super) norm_weight: Vec<f32>,
    /// [padded].
    pub(super) norm_bias: Vec<f32>,
    /// [blocks][M][O][LANES].
    pub(super) level1: Vec<f32>,
    /// [O][padded].
    pub(super) level1_bias: Vec<f32>,
    /// [blocks][H][2][LANES].
    pub(super) level2: Vec<f32>,
    /// [2][padded].
    pub(super) level2_bias: Vec<f32>,
}

impl<'a> Packed<'a> {
    pub(super) fn new(pool: &Pool, shape: Shape, weights: &'a Weights<'a>) -> Packed<'a> {
        let (neurons, padded) = (shape.neurons, shape.padded());
        Packed {
            weights,
            norms: Norms::new(weights.retention, shape.ticks),
            query: padded_rows(weights.query_weight, shape.width, shape.padded_width()),
            query_bias: padded_rows(weights.query_bias, shape.width, shape.padded_width()),
            synapse: padded_rows(weights.synapse_weight, neurons, padded),
            synapse_bias: padded_rows(weights.synapse_bias, neurons, padded),
            norm_weight: padded_rows(weights.norm_weight, neurons, padded),
            norm_bias: padded_rows(weights.norm_bias, neurons, padded),
            level1: blocks(pool, weights.level1_weight, neurons),
            level1_bias: padded_rows(weights.level1_bias, neurons, padded),
            level2: blocks(pool, weights.level2_weight, neurons),
            level2_bias: padded_rows(weights.level2_bias, neurons, padded),
        }
    }
}

/// Rows of `width` in rows of `padded`, zeros behind each.
pub(super) fn padded_rows(rows: &[f32], width: usize, padded: usize) -> Vec<f32> {
    if width == padded {
        return rows.to_vec();
    }
    let count = rows.len().checked_div(width).unwrap_or(0);
    let mut out = vec![0.0f32; count * padded];
    for (out, row) in out.chunks_mut(padded.max(1)).zip(rows.chunks(width.max(1))) {
        out[..width].copy_from_slice(row);
    }
    out
}

/// [K][D] as [blocks][K][LANES].
fn blocks(pool: &Pool, rows: &[f32], neurons: usize) -> Vec<f32> {
    let count = rows.len().checked_div(neurons).unwrap_or(0);
    let mut out = vec![0.0f32; neurons.div_ceil(LANES) * count * LANES];
    pool.for_rows(&mut out, (count * LANES).max(1), 1, |first, blocks| {
        for (offset, block) in blocks.chunks_mut((count * LANES).max(1)).enumerate() {
            let start = (first + offset) * LANES;
            let lanes = LANES.min(neurons - start);
            for (k, out) in block.chunks_mut(LANES).enumerate() {
                out[..lanes].copy_from_slice(&rows[k * neurons + start..][..lanes]);
            }
        }
    });
    out
}
