//! Weights as the loops read them: products in panels, each block of neurons with its
//! weights side by side.

use modgrad_compute::Pool;
use modgrad_compute::thin::{Buffer, LANES, lanewise};

use super::linear::Linear;
use super::synapse::Synapse;
use super::{Shape, Weights};
use crate::synchronisation::Norms;

pub(super) struct Packed<'a> {
    pub(super) weights: &'a Weights<'a>,
    pub(super) norms: Norms,
    /// The pairs that are asked with: none where the query has no effect.
    pub(super) pairs: usize,
    pub(super) query: Linear,
    /// Of the query, and of what was read.
    pub(super) projections: Option<[Linear; 2]>,
    pub(super) synapse: Synapse<'a>,
    /// [blocks], each as [`lanewise::place`] says.
    pub(super) level1: Buffer,
    /// [blocks][O][LANES].
    pub(super) level1_bias: Buffer,
    /// [blocks], each as [`lanewise::place`] says.
    pub(super) level2: Buffer,
    /// [blocks][2][LANES].
    pub(super) level2_bias: Buffer,
}

impl<'a> Packed<'a> {
    pub(super) fn new(pool: &Pool, shape: Shape, weights: &'a Weights<'a>) -> Packed<'a> {
        let (neurons, width) = (shape.neurons, shape.width);
        let scale = [0, 1].map(|level| weights.inverse_temperature(level));
        // Where the query has no effect nobody asks for it.
        let asking = if shape.reads_once() { &[] } else { weights.query_weight };
        let pairs = if shape.reads_once() { 0 } else { shape.pairs };
        Packed {
            weights,
            norms: Norms::new(if pairs == 0 { &[] } else { weights.retention }, shape.ticks),
            pairs,
            query: Linear::new(pool, asking, weights.query_bias, pairs),
            projections: weights.projections.map(|given| {
                [
                    Linear::new(pool, given.query_weight, given.query_bias, width),
                    Linear::new(pool, given.read_weight, given.read_bias, width),
                ]
            }),
            synapse: Synapse::new(pool, shape, weights.synapse),
            level1: blocks(pool, weights.level1_weight, neurons, shape.outputs(), scale[0]),
            level1_bias: blocks(pool, weights.level1_bias, neurons, 1, scale[0]),
            level2: blocks(pool, weights.level2_weight, neurons, 2, scale[1]),
            level2_bias: blocks(pool, weights.level2_bias, neurons, 1, scale[1]),
        }
    }
}

/// A row with zeros behind it.
pub(super) fn padded(row: &[f32], length: usize) -> Vec<f32> {
    let mut out = row.to_vec();
    out.resize(length, 0.0);
    out
}

/// [inputs][outputs][D], scaled, as blocks, each as [`lanewise::place`] says.
fn blocks(pool: &Pool, rows: &[f32], neurons: usize, outputs: usize, scale: f32) -> Buffer {
    let count = rows.len() / neurons;
    let size = neurons.div_ceil(LANES) * count * LANES;
    let whole = neurons.is_multiple_of(LANES);
    let mut out = if whole { Buffer::any(size) } else { Buffer::zeros(size) };
    let few = (1usize << 15).div_ceil((count * LANES).max(1));
    pool.for_rows(&mut out, count * LANES, few, |first, blocks| {
        for (offset, block) in blocks.chunks_mut(count * LANES).enumerate() {
            let start = (first + offset) * LANES;
            let lanes = LANES.min(neurons - start);
            for k in 0..count {
                let place = lanewise::place(count / outputs, outputs, k / outputs, k % outputs);
                let out = &mut block[place * LANES..][..lanes];
                for (out, value) in out.iter_mut().zip(&rows[k * neurons + start..][..lanes]) {
                    *out = value * scale;
                }
            }
        }
    });
    out
}
