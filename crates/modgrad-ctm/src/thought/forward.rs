//! All ticks of a few samples, first to last.

use modgrad_compute::Pool;
use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::lanewise::SLOT;
use modgrad_compute::thin::{Buffer, LANES, copy_lanes};

use super::attention::Tokens;
use super::neurons::{self, Scratch};
use super::packed::Packed;
use super::traces::Traces;
use super::{Inputs, ROWS, Saved, Shape};
use crate::synchronisation;

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    packed: &Packed<'_>,
    saved: Saved<'_>,
) {
    let Shape { batch, ticks, neurons, memory, .. } = shape;
    let kept = shape.kept_width();
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
                    attended: attended.slice(of(ticks * kept)),
                    query: query.slice(of(ticks * kept)),
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
    let pairs = packed.pairs;
    let padded_pairs = pairs.next_multiple_of(LANES);
    let mut alpha = Buffer::zeros(ROWS * pairs);
    let mut synchrony = Buffer::zeros(ROWS * padded_pairs);
    // Each before its projection, and after.
    let mut queries = [(); 2].map(|()| Buffer::zeros(ROWS * padded_width));
    let mut reads = [(); 2].map(|()| Buffer::zeros(ROWS * padded_width));
    let stages = if shape.projected { 2 } else { 1 };
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
                let synchrony = &mut synchrony[r * padded_pairs..][..pairs];
                advance(packed, t, z, alpha, synchrony);
            }
            packed.query.forward(&synchrony, &mut queries[0]);
            if let Some([of_query, _]) = &packed.projections {
                let [asked, query] = &mut queries;
                of_query.forward(asked, query);
            }
            for (r, tokens) in tokens.iter().enumerate() {
                let query = &queries[stages - 1][r * padded_width..][..width];
                let weights = &mut weights[r * heads * stride..][..heads * stride];
                tokens.read(query, weights, &mut reads[0][r * padded_width..][..width]);
            }
            if let Some([_, of_read]) = &packed.projections {
                let [read, told] = &mut reads;
                of_read.forward(read, told);
            }
            for r in 0..samples {
                x[r * (width + neurons)..][..width]
                    .copy_from_slice(&reads[stages - 1][r * padded_width..][..width]);
            }
        }
        packed.synapse.forward(samples, &x, &mut working);
        for r in 0..samples {
            let row = r * ticks + t;
            traces.push(t, r, packed.synapse.result(&working, r));
            packed.synapse.save(&working, r, &mut out.synapse[row * columns..][..columns]);
            for stage in 0..stages {
                let (own, at) = (r * padded_width, (row * stages + stage) * width);
                out.query[at..][..width].copy_from_slice(&queries[stage][own..][..width]);
                out.attended[at..][..width].copy_from_slice(&reads[stage][own..][..width]);
            }
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
                copy_lanes(z, &mut x[r * (width + neurons) + width + start..][..lanes]);
                copy_lanes(z, &mut out.states[(r * ticks + t) * neurons + start..][..lanes]);
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
