//! All ticks of a few samples, first to last.

use modgrad_compute::Pool;
use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::lanewise::SLOT;
use modgrad_compute::thin::{self, Buffer, LANES};

use super::attention::Tokens;
use super::neurons::{self, Scratch};
use super::packed::Packed;
use super::{Inputs, ROWS, Saved, Shape};
use crate::synchronisation;

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    packed: &Packed<'_>,
    saved: Saved<'_>,
) {
    let Shape { batch, ticks, neurons, width, memory, .. } = shape;
    let (states, trace) = (SharedMut::new(saved.states), SharedMut::new(saved.trace));
    let (attended, query) = (SharedMut::new(saved.attended), SharedMut::new(saved.query));
    let (attention, synapse) = (SharedMut::new(saved.attention), SharedMut::new(saved.synapse));
    let (shares, columns) = (shape.heads * shape.tokens, packed.synapse.columns());
    pool.for_ranges(batch.div_ceil(ROWS), shape.groups_a_thread(), |groups| {
        for group in groups {
            let rows = group * ROWS..batch.min((group + 1) * ROWS);
            let of = |size: usize| rows.start * size..rows.end * size;
            // SAFETY: a group's own samples.
            let mut out = unsafe {
                Saved {
                    states: states.slice(of(ticks * neurons)),
                    trace: trace.slice(of(neurons * memory)),
                    attended: attended.slice(of(ticks * width)),
                    query: query.slice(of(ticks * width)),
                    attention: attention.slice(of(ticks * shares)),
                    synapse: synapse.slice(of(ticks * columns)),
                }
            };
            think(shape, packed, inputs.of(shape, rows.clone()), &mut out);
        }
    });
}

fn think(shape: Shape, packed: &Packed<'_>, inputs: Inputs<'_>, out: &mut Saved<'_>) {
    let Shape { ticks, neurons, width, memory, heads, .. } = shape;
    let (padded_width, stride) = (shape.padded_width(), shape.sizes().stride());
    let columns = packed.synapse.columns();
    let samples = inputs.state.len() / neurons;
    let tokens = Tokens::all(shape, inputs, false);
    let mut traces = Traces::new(shape);
    let mut scratch = Scratch::new(shape);
    let mut working = packed.synapse.working();
    // The state is the last part of what the synapse reads.
    let mut x = Buffer::zeros(ROWS * (width + neurons));
    let mut z = [0.0f32; SLOT];
    let pairs = packed.query.inner();
    let mut alpha = Buffer::zeros(ROWS * pairs);
    let mut synchrony = Buffer::zeros(ROWS * pairs);
    let mut query = Buffer::zeros(ROWS * padded_width);
    let mut weights = Buffer::zeros(ROWS * heads * stride);
    for r in 0..samples {
        traces.begin(r, &inputs.trace[r * neurons * memory..][..neurons * memory]);
        x[r * (width + neurons) + width..][..neurons]
            .copy_from_slice(&inputs.state[r * neurons..][..neurons]);
    }

    for t in 0..ticks {
        if t == 0 || !shape.reads_once() {
            for r in 0..samples {
                let z = &x[r * (width + neurons) + width..][..neurons];
                let alpha = &mut alpha[r * pairs..][..pairs];
                let synchrony = &mut synchrony[r * pairs..][..pairs];
                advance(packed, t, z, alpha, synchrony);
            }
            thin::product(&synchrony, &packed.query, &packed.query_bias, &mut query);
            for (r, tokens) in tokens.iter().enumerate() {
                let query = &query[r * padded_width..][..width];
                let weights = &mut weights[r * heads * stride..][..heads * stride];
                tokens.read(query, weights, &mut x[r * (width + neurons)..][..width]);
            }
        }
        packed.synapse.forward(samples, &x, &mut working);
        for r in 0..samples {
            let row = r * ticks + t;
            traces.push(t, r, packed.synapse.result(&working, r));
            packed.synapse.save(&working, r, &mut out.synapse[row * columns..][..columns]);
            out.query[row * width..][..width].copy_from_slice(&query[r * padded_width..][..width]);
            out.attended[row * width..][..width]
                .copy_from_slice(&x[r * (width + neurons)..][..width]);
            for head in 0..heads {
                let from = &weights[(r * heads + head) * stride..][..shape.tokens];
                out.attention[(row * heads + head) * shape.tokens..][..shape.tokens]
                    .copy_from_slice(from);
            }
        }
        for block in 0..shape.blocks() {
            neurons::forward(shape, packed, block, traces.last(t, block), &mut scratch, &mut z);
            let start = block * LANES;
            let lanes = LANES.min(neurons - start);
            for r in 0..samples {
                let z = &z[r * LANES..][..lanes];
                x[r * (width + neurons) + width + start..][..lanes].copy_from_slice(z);
                out.states[(r * ticks + t) * neurons + start..][..lanes].copy_from_slice(z);
            }
        }
    }
    for r in 0..samples {
        traces.end(r, &mut out.trace[r * neurons * memory..][..neurons * memory]);
    }
}

/// Takes the state z of tick t into the sums α of a sample's pairs, and scales them.
pub(super) fn advance(
    packed: &Packed<'_>,
    t: usize,
    z: &[f32],
    alpha: &mut [f32],
    synchrony: &mut [f32],
) {
    let (weights, pairs) = (packed.weights, alpha.len());
    if pairs == 0 {
        return;
    }
    synchronisation::step(alpha, weights.retention, z, weights.left, weights.right);
    let root = &packed.norms.inverse_root[t * pairs..][..pairs];
    for ((s, alpha), root) in synchrony.iter_mut().zip(alpha).zip(root) {
        *s = *alpha * root;
    }
}

/// The traces of a group's neurons: of each block M + T slots, those from before first.
pub(super) struct Traces {
    shape: Shape,
    /// [blocks][M + T][ROWS][LANES].
    slots: Buffer,
}

impl Traces {
    pub(super) fn new(shape: Shape) -> Traces {
        let slots = Buffer::zeros(shape.blocks() * (shape.memory + shape.ticks) * SLOT);
        Traces { shape, slots }
    }

    fn history(&self) -> usize {
        (self.shape.memory + self.shape.ticks) * SLOT
    }

    /// Slot `slot` of row r.
    fn fill(&mut self, slot: usize, r: usize, value: impl Fn(usize) -> f32) {
        let history = self.history();
        for (block, slots) in self.slots.chunks_exact_mut(history).enumerate() {
            let start = block * LANES;
            let lanes = LANES.min(self.shape.neurons - start);
            let out = &mut slots[slot * SLOT + r * LANES..][..lanes];
            for (lane, out) in out.iter_mut().enumerate() {
                *out = value(start + lane);
            }
        }
    }

    /// The first M slots of row r become `trace` [D, M].
    pub(super) fn begin(&mut self, r: usize, trace: &[f32]) {
        let memory = self.shape.memory;
        (0..memory).for_each(|m| self.fill(m, r, |n| trace[n * memory + m]));
    }

    /// The last M slots of row r become `trace`.
    pub(super) fn begin_last(&mut self, r: usize, trace: &[f32]) {
        let (memory, ticks) = (self.shape.memory, self.shape.ticks);
        (0..memory).for_each(|m| self.fill(ticks + m, r, |n| trace[n * memory + m]));
    }

    /// What tick t pushes.
    pub(super) fn push(&mut self, t: usize, r: usize, values: &[f32]) {
        self.fill(self.shape.memory + t, r, |n| values[n]);
    }

    /// The slots of a block from the oldest that tick t reads on.
    pub(super) fn last(&self, t: usize, block: usize) -> &[f32] {
        &self.slots[block * self.history() + (t + 1) * SLOT..(block + 1) * self.history()]
    }

    /// The same, to be changed.
    pub(super) fn last_mut(&mut self, t: usize, block: usize) -> &mut [f32] {
        let history = self.history();
        &mut self.slots[block * history + (t + 1) * SLOT..(block + 1) * history]
    }

    /// `values` [D] become what tick t pushed.
    pub(super) fn pushed(&self, t: usize, r: usize, values: &mut [f32]) {
        let at = (self.shape.memory + t) * SLOT + r * LANES;
        let blocks = self.slots.chunks_exact(self.history());
        for (values, slots) in values.chunks_mut(LANES).zip(blocks) {
            values.copy_from_slice(&slots[at..][..values.len()]);
        }
    }

    /// `trace` [D, M] becomes the last M slots of row r.
    pub(super) fn end(&self, r: usize, trace: &mut [f32]) {
        self.copy(self.shape.ticks, r, trace);
    }

    /// `trace` [D, M] becomes M slots of row r, from `first` on.
    pub(super) fn copy(&self, first: usize, r: usize, trace: &mut [f32]) {
        for (n, trace) in trace.chunks_exact_mut(self.shape.memory).enumerate() {
            let at = n / LANES * self.history() + r * LANES + n % LANES;
            for (m, value) in trace.iter_mut().enumerate() {
                *value = self.slots[at + (first + m) * SLOT];
            }
        }
    }
}
