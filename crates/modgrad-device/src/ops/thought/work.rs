//! What the adjoint of a thought is worked out in.
//!
//! Rows of all ticks go by ticks, [T, B, ..]: those of a tick are one stretch.

use super::operands::{Layer, Thought};
use crate::driver::Address;

/// Ticks that the neuron-level models' weights get their gradients from at a time.
pub(super) const CHUNK: usize = 8;
/// Parts of the sum that is the gradient of a scale.
pub(super) const PARTS: usize = 64;

pub(super) struct LayerWork {
    /// [T, B, width]; the last layer's are in the traces.
    pub out: Address,
    /// Before the last norm, where there are two [T, B, width].
    pub sum: Address,
    /// Of one tick [B, width].
    pub dout: Address,
    /// [T, B, columns].
    pub dproduct: Address,
    /// Samples' parts of the gradients of both norms [4, B, width].
    pub norms: Address,
}

pub(super) struct Work {
    /// [M + T, B, N].
    pub traces: Address,
    pub dtraces: Address,
    /// What the synapse reads [T, B, width + N].
    pub x: Address,
    pub layers: Vec<LayerWork>,
    /// [B, N] and [B, width + N].
    pub dz: Address,
    pub dx: Address,
    /// Of what is read after its projection [T, B, width].
    pub dtold: Address,
    /// Of what is read, its shares and queries before a projection and after, of all
    /// readings [R, B, ..].
    pub dread: Address,
    pub dscores: Address,
    pub dasked: Address,
    pub dquery: Address,
    /// [B, T, S], and by ticks.
    pub synchrony: Address,
    pub synchrony_by_tick: Address,
    pub alphas: Address,
    /// [T, S].
    pub beta: Address,
    /// Of one tick [B, S].
    pub dsynchrony: Address,
    pub dalphas: Address,
    pub dbetas: Address,
    pub dretention: Address,
    /// [2, S].
    pub both: Address,
    /// Of a chunk of ticks, of each [.., B, N]: the first level's outputs and the hidden
    /// layer's values and outputs.
    pub dfirst: Address,
    pub values: Address,
    pub dsecond: Address,
    /// What is projected, by ticks [T, B, width].
    pub asked: Address,
    pub read: Address,
    pub parts: Address,
}

impl Work {
    pub(super) fn new(thought: &Thought, take: &mut dyn FnMut(usize) -> Address) -> Work {
        let Thought { batch, ticks, tokens, width, heads, neurons, memory, hidden, .. } = *thought;
        let rows = ticks * batch;
        let readings = if thought.reads_once() { 1 } else { ticks };
        let pairs = if thought.reads_once() { 0 } else { thought.pairs };
        let projected = if thought.projections.is_some() { width } else { 0 };
        let slot = thought.slot();
        let traces = (memory + ticks) * slot;
        let layer = |take: &mut dyn FnMut(usize) -> Address, layer: &Layer| LayerWork {
            out: take(rows * layer.width),
            sum: take(layer.skip.map_or(0, |_| rows * layer.width)),
            dout: take(batch * layer.width),
            dproduct: take(rows * layer.columns),
            norms: take(4 * batch * layer.width),
        };
        Work {
            traces: take(traces),
            dtraces: take(traces),
            x: take(rows * (width + neurons)),
            layers: thought.layers.iter().map(|one| layer(take, one)).collect(),
            dz: take(slot),
            dx: take(batch * (width + neurons)),
            dtold: take(rows * projected),
            dread: take(readings * batch * width),
            dscores: take(readings * batch * heads * tokens),
            dasked: take(readings * batch * width),
            dquery: take(readings * batch * projected),
            synchrony: take(rows * pairs),
            synchrony_by_tick: take(rows * pairs),
            alphas: take(rows * pairs),
            beta: take(ticks * pairs),
            dsynchrony: take(batch * pairs),
            dalphas: take(batch * pairs),
            dbetas: take(batch * pairs),
            dretention: take(batch * pairs),
            both: take(2 * pairs),
            dfirst: take(CHUNK * thought.outputs() * slot),
            values: take(CHUNK * hidden * slot),
            dsecond: take(if hidden > 0 { CHUNK * 2 * slot } else { 0 }),
            asked: take(rows * projected),
            read: take(rows * projected),
            parts: take(PARTS),
        }
    }
}

/// Element `count` from an address on.
pub(super) fn element(address: Address, count: usize) -> Address {
    address + (count * 4) as Address
}
