//! Weights as the loops read them: products in panels, each block of neurons with its
//! weights side by side.

use modgrad_compute::Pool;
use modgrad_compute::thin::{Buffer, LANES, Panels, lanewise};

use super::synapse::Synapse;
use super::{Shape, Weights};
use crate::synchronisation::Norms;

pub(super) struct Packed<'a> {
    pub(super) weights: &'a Weights<'a>,
    pub(super) norms: Norms,
    pub(super) query: Panels,
    /// [padded width].
    pub(super) query_bias: Vec<f32>,
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
        let neurons = shape.neurons;
        // Where the query has no effect nobody asks for it.
        let asking = if shape.reads_once() { &[] } else { weights.query_weight };
        let pairs = if shape.reads_once() { 0 } else { shape.pairs };
        Packed {
            weights,
            norms: Norms::new(if pairs == 0 { &[] } else { weights.retention }, shape.ticks),
            query: Panels::new(pool, asking, pairs, shape.width, 1),
            query_bias: padded(weights.query_bias, shape.padded_width()),
            synapse: Synapse::new(pool, shape, weights.synapse),
            level1: blocks(pool, weights.level1_weight, neurons, shape.outputs()),
            level1_bias: blocks(pool, weights.level1_bias, neurons, 1),
            level2: blocks(pool, weights.level2_weight, neurons, 2),
            level2_bias: blocks(pool, weights.level2_bias, neurons, 1),
        }
    }
}

/// A row with zeros behind it.
pub(super) fn padded(row: &[f32], length: usize) -> Vec<f32> {
    let mut out = row.to_vec();
    out.resize(length, 0.0);
    out
}

/// [inputs][outputs][D] as blocks, each as [`lanewise::place`] says.
fn blocks(pool: &Pool, rows: &[f32], neurons: usize, outputs: usize) -> Buffer {
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
                let out = &mut block[place * LANES..][..LANES];
                out[..lanes].copy_from_slice(&rows[k * neurons + start..][..lanes]);
            }
        }
    });
    out
}
