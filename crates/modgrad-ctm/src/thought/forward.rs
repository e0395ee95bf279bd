//! All ticks of a few samples, first to last.

use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::{self, LANES, Strides};
use modgrad_compute::{Pool, math, multiversion};

use super::attention::Tokens;
use super::packed::Packed;
use super::{EPSILON, Inputs, ROWS, Saved, Shape};
use crate::synchronisation;

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    packed: &Packed<'_>,
    saved: Saved<'_>,
) {
    let Shape { batch, ticks, neurons, width, memory, .. } = shape;
    let outputs = shape.outputs();
    let (states, attended) = (SharedMut::new(saved.states), SharedMut::new(saved.attended));
    let trace = SharedMut::new(saved.trace);
    let (synapse, hidden) = (SharedMut::new(saved.synapse), SharedMut::new(saved.hidden));
    pool.for_ranges(batch.div_ceil(ROWS), 1, |groups| {
        for group in groups {
            let rows = group * ROWS..batch.min((group + 1) * ROWS);
            let inputs = inputs.of(shape, rows.clone());
            let tokens = tokens_of(shape, inputs, false);
            let per_sample = |size: usize| rows.start * ticks * size..rows.end * ticks * size;
            // SAFETY: a group's own samples.
            let mut out = unsafe {
                Saved {
                    states: states.slice(per_sample(neurons)),
                    trace: trace.slice(rows.start * neurons * memory..rows.end * neurons * memory),
                    attended: attended.slice(per_sample(width)),
                    synapse: synapse.slice(per_sample(2 * neurons)),
                    hidden: hidden.slice(per_sample(outputs * neurons)),
                }
            };
            think(shape, packed, inputs, &tokens, &mut out);
        }
    });
}

/// The tokens of each of the samples of `inputs`.
pub(super) fn tokens_of<'a>(shape: Shape, inputs: Inputs<'a>, adjoint: bool) -> Vec<Tokens<'a>> {
    let size = shape.tokens * shape.width;
    (0..inputs.state.len() / shape.neurons)
        .map(|r| {
            let own = r * size..(r + 1) * size;
            Tokens::new(shape, &inputs.keys[own.clone()], &inputs.values[own], adjoint)
        })
        .collect()
}

fn think(
    shape: Shape,
    packed: &Packed<'_>,
    inputs: Inputs<'_>,
    tokens: &[Tokens<'_>],
    out: &mut Saved<'_>,
) {
    let Shape { ticks, neurons, width, pairs, memory, hidden, .. } = shape;
    let (padded, padded_width, outputs) = (shape.padded(), shape.padded_width(), shape.outputs());
    let slot = shape.slot();
    let samples = tokens.len();
    let history = (memory + ticks) * slot;
    let mut traces = vec![0.0f32; ROWS * history];
    let mut z = vec![0.0f32; ROWS * padded];
    for r in 0..samples {
        let trace = &inputs.trace[r * neurons * memory..][..neurons * memory];
        to_slots(memory, trace, &mut traces[r * history..][..history], slot);
        z[r * padded..][..neurons].copy_from_slice(&inputs.state[r * neurons..][..neurons]);
    }
    let mut alpha = vec![0.0f32; ROWS * pairs];
    let mut synchrony = vec![0.0f32; ROWS * pairs];
    let mut query = vec![0.0f32; ROWS * padded_width];
    let mut scores = vec![0.0f32; shape.heads * shape.tokens];
    let mut x = vec![0.0f32; ROWS * (width + neurons)];
    let mut u = vec![0.0f32; ROWS * 2 * padded];
    let mut h = vec![0.0f32; ROWS * outputs * slot];
    let mut g = vec![0.0f32; ROWS * hidden * slot];
    let mut y = vec![0.0f32; ROWS * 2 * padded];

    for t in 0..ticks {
        if !shape.reads_once() {
            let root = &packed.norms.inverse_root[t * pairs..][..pairs];
            for r in 0..samples {
                let alpha = &mut alpha[r * pairs..][..pairs];
                let weights = packed.weights;
                let (left, right) = (weights.left, weights.right);
                synchronisation::step(alpha, weights.retention, &z[r * padded..], left, right);
                for ((s, alpha), root) in
                    synchrony[r * pairs..][..pairs].iter_mut().zip(alpha).zip(root)
                {
                    *s = *alpha * root;
                }
            }
        }
        if t == 0 || !shape.reads_once() {
            fill_rows(&mut query, &packed.query_bias);
            thin::product(&synchrony, &packed.query, &mut query);
            for (r, tokens) in tokens.iter().enumerate() {
                let row = &mut x[r * (width + neurons)..][..width];
                tokens.weigh(shape, &query[r * padded_width..][..width], &mut scores);
                tokens.attend(shape, &scores, row);
            }
        }
        for r in 0..samples {
            let row = &mut x[r * (width + neurons)..][..width + neurons];
            row[width..].copy_from_slice(&z[r * padded..][..neurons]);
            out.attended[(r * ticks + t) * width..][..width].copy_from_slice(&row[..width]);
        }
        fill_rows(&mut u, &packed.synapse_bias);
        thin::product(&x, &packed.synapse, &mut u);
        for r in 0..samples {
            let u = &u[r * 2 * padded..][..2 * padded];
            let a = &mut traces[r * history + (memory + t) * slot..][..padded];
            normalised_gate(neurons, u, &packed.norm_weight, &packed.norm_bias, a);
            let kept = &mut out.synapse[(r * ticks + t) * 2 * neurons..][..2 * neurons];
            kept[..neurons].copy_from_slice(&u[..neurons]);
            kept[neurons..].copy_from_slice(&u[padded..][..neurons]);
        }
        fill_slots(&mut h, slot, &packed.level1_bias, padded);
        let trace_at = Strides { row: history, slot };
        let h_at = Strides { row: outputs * slot, slot };
        for (block, weights) in packed.level1.chunks(memory * outputs * LANES).enumerate() {
            let from = (t + 1) * slot + block * LANES;
            let h = &mut h[block * LANES..];
            thin::lanewise_product(memory, outputs, &traces[from..], trace_at, weights, h, h_at);
        }
        for r in 0..samples {
            for o in 0..outputs {
                let at = ((r * ticks + t) * outputs + o) * neurons;
                let h = &h[(r * outputs + o) * slot..][..neurons];
                out.hidden[at..][..neurons].copy_from_slice(h);
            }
        }
        if hidden == 0 {
            for r in 0..samples {
                let (values, gates) = h[r * 2 * slot..][..2 * slot].split_at(slot);
                gate(values, gates, &mut z[r * padded..][..padded]);
            }
        } else {
            for r in 0..samples {
                let h = &h[r * outputs * slot..][..outputs * slot];
                let (values, gates) = h.split_at(hidden * slot);
                gate(values, gates, &mut g[r * hidden * slot..][..hidden * slot]);
            }
            second_level(shape, packed, &g, &mut y);
            for r in 0..samples {
                let (values, gates) = y[r * 2 * padded..][..2 * padded].split_at(padded);
                gate(values, gates, &mut z[r * padded..][..padded]);
            }
        }
        for r in 0..samples {
            let at = (r * ticks + t) * neurons;
            out.states[at..][..neurons].copy_from_slice(&z[r * padded..][..neurons]);
        }
    }
    for r in 0..samples {
        let last = &traces[r * history + ticks * slot..][..memory * slot];
        let trace = &mut out.trace[r * neurons * memory..][..neurons * memory];
        from_slots(memory, last, slot, trace);
    }
}

/// A trace [D, M] into slots: `slots[m * slot + n] = trace[n][m]`.
pub(super) fn to_slots(memory: usize, trace: &[f32], slots: &mut [f32], slot: usize) {
    for (n, trace) in trace.chunks_exact(memory).enumerate() {
        for (m, value) in trace.iter().enumerate() {
            slots[m * slot + n] = *value;
        }
    }
}

/// Slots as a trace [D, M]: `trace[n][m] = slots[m * slot + n]`.
pub(super) fn from_slots(memory: usize, slots: &[f32], slot: usize, trace: &mut [f32]) {
    for (n, trace) in trace.chunks_exact_mut(memory).enumerate() {
        for (m, value) in trace.iter_mut().enumerate() {
            *value = slots[m * slot + n];
        }
    }
}

/// y [ROWS][2][padded] of the neuron-level models' second layer, from g [ROWS][H][slot].
pub(super) fn second_level(shape: Shape, packed: &Packed<'_>, g: &[f32], y: &mut [f32]) {
    let (padded, hidden) = (shape.padded(), shape.hidden);
    fill_rows(y, &packed.level2_bias);
    let g_at = Strides { row: hidden * shape.slot(), slot: shape.slot() };
    let y_at = Strides { row: 2 * padded, slot: padded };
    for (block, weights) in packed.level2.chunks(hidden * 2 * LANES).enumerate() {
        let from = block * LANES;
        thin::lanewise_product(hidden, 2, &g[from..], g_at, weights, &mut y[from..], y_at);
    }
}

/// Every row becomes `row`.
pub(super) fn fill_rows(rows: &mut [f32], row: &[f32]) {
    for out in rows.chunks_mut(row.len().max(1)) {
        out.copy_from_slice(row);
    }
}

/// Every row becomes `row`, whose pieces of `padded` stand at multiples of `slot`.
pub(super) fn fill_slots(rows: &mut [f32], slot: usize, row: &[f32], padded: usize) {
    for (out, piece) in rows.chunks_mut(slot).zip(row.chunks(padded).cycle()) {
        out[..padded].copy_from_slice(piece);
    }
}

multiversion! {
    /// values × σ(gates), for as many as `out` has.
    pub(super) fn gate(values: &[f32], gates: &[f32], out: &mut [f32]) {
        for ((out, value), gate) in out.iter_mut().zip(values).zip(gates) {
            *out = value * math::sigmoid(*gate);
        }
    }
}

multiversion! {
    /// LayerNorm of the gated synapse over its `neurons`; zeros behind them.
    pub(super) fn normalised_gate(
        neurons: usize, u: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32],
    ) {
        let (values, gates) = u.split_at(u.len() / 2);
        for ((out, value), gate) in out[..neurons].iter_mut().zip(values).zip(gates) {
            *out = value * math::sigmoid(*gate);
        }
        let (mean, inverse) = moments(&out[..neurons]);
        for ((out, weight), bias) in out[..neurons].iter_mut().zip(weight).zip(bias) {
            *out = (*out - mean) * inverse * weight + bias;
        }
    }
}

/// (mean, 1/√(variance + ε)), summed in lanes.
#[inline(always)]
pub(super) fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len() as f32;
    let mean = sum(values, |x| x) / count;
    let variance = sum(values, |x| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

#[inline(always)]
pub(super) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += of(*value);
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for value in rest {
        total += of(*value);
    }
    total
}
