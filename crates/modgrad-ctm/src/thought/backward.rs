//! All ticks of a few samples, last to first: gradients of what flows, and what
//! the gradients of weights are formed from.

use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::{self, LANES, Strides};
use modgrad_compute::{Pool, math, multiversion};

use super::attention::Tokens;
use super::forward::{
    fill_rows, from_slots, gate, moments, normalised_gate, second_level, sum, to_slots, tokens_of,
};
use super::packed::Packed;
use super::{Gradients, Inputs, ROWS, Read, Shape, Upstream};
use crate::synchronisation::{Adjoint, Pairs, sum_rows};

/// What the gradients of weights are sums over, a row a sample and tick.
pub(super) struct Found {
    /// [B][M + T][slot].
    pub(super) traces: Vec<f32>,
    /// [B][T][S].
    pub(super) synchrony: Vec<f32>,
    /// [B][T][padded width].
    pub(super) dquery: Vec<f32>,
    /// [B][T][2 padded].
    pub(super) dsynapse: Vec<f32>,
    /// [B][T][O][slot].
    pub(super) dhidden: Vec<f32>,
    /// [B][T][H][slot].
    pub(super) gated: Vec<f32>,
    /// [B][T][2][padded]; empty where H is 0.
    pub(super) dsecond: Vec<f32>,
}

/// One group's part of `Found` and of the gradients that are a sample's own.
struct Parts<'a> {
    traces: &'a mut [f32],
    synchrony: &'a mut [f32],
    dquery: &'a mut [f32],
    dsynapse: &'a mut [f32],
    dhidden: &'a mut [f32],
    gated: &'a mut [f32],
    dsecond: &'a mut [f32],
    dkeys: &'a mut [f32],
    dvalues: &'a mut [f32],
    dstate: &'a mut [f32],
    dtrace: &'a mut [f32],
    retentions: &'a mut [f32],
    norms: &'a mut [f32],
}

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    packed: &Packed<'_>,
    read: Read<'_>,
    upstream: Upstream<'_>,
    gradients: &mut Gradients<'_>,
) -> Found {
    let Shape { batch, ticks, neurons, width, tokens, memory, hidden, pairs, .. } = shape;
    let (padded, slot, outputs) = (shape.padded(), shape.slot(), shape.outputs());
    let second = if hidden == 0 { 0 } else { 2 * padded };
    let sizes = Sizes {
        traces: (memory + ticks) * slot,
        synchrony: ticks * pairs,
        dquery: ticks * shape.padded_width(),
        dsynapse: ticks * 2 * padded,
        dhidden: ticks * outputs * slot,
        gated: ticks * hidden * slot,
        dsecond: ticks * second,
    };
    let zeros = |size: usize| vec![0.0f32; batch * size];
    let mut found = Found {
        traces: zeros(sizes.traces),
        synchrony: zeros(sizes.synchrony),
        dquery: zeros(sizes.dquery),
        dsynapse: zeros(sizes.dsynapse),
        dhidden: zeros(sizes.dhidden),
        gated: zeros(sizes.gated),
        dsecond: zeros(sizes.dsecond),
    };
    // A sample's own share of what is summed over samples, in order, afterwards.
    let mut retentions = zeros(pairs);
    let mut norms = zeros(2 * neurons);
    gradients.keys.fill(0.0);
    gradients.values.fill(0.0);
    {
        let traces = SharedMut::new(&mut found.traces);
        let synchrony = SharedMut::new(&mut found.synchrony);
        let dquery = SharedMut::new(&mut found.dquery);
        let dsynapse = SharedMut::new(&mut found.dsynapse);
        let dhidden = SharedMut::new(&mut found.dhidden);
        let gated = SharedMut::new(&mut found.gated);
        let dsecond = SharedMut::new(&mut found.dsecond);
        let dkeys = SharedMut::new(gradients.keys);
        let dvalues = SharedMut::new(gradients.values);
        let dstate = SharedMut::new(gradients.state);
        let dtrace = SharedMut::new(gradients.trace);
        let retentions = SharedMut::new(&mut retentions);
        let norms = SharedMut::new(&mut norms);
        pool.for_ranges(batch.div_ceil(ROWS), 1, |groups| {
            for group in groups {
                let rows = group * ROWS..batch.min((group + 1) * ROWS);
                let of = |size: usize| rows.start * size..rows.end * size;
                // SAFETY: a group's own samples.
                let mut parts = unsafe {
                    Parts {
                        traces: traces.slice(of(sizes.traces)),
                        synchrony: synchrony.slice(of(sizes.synchrony)),
                        dquery: dquery.slice(of(sizes.dquery)),
                        dsynapse: dsynapse.slice(of(sizes.dsynapse)),
                        dhidden: dhidden.slice(of(sizes.dhidden)),
                        gated: gated.slice(of(sizes.gated)),
                        dsecond: dsecond.slice(of(sizes.dsecond)),
                        dkeys: dkeys.slice(of(tokens * width)),
                        dvalues: dvalues.slice(of(tokens * width)),
                        dstate: dstate.slice(of(neurons)),
                        dtrace: dtrace.slice(of(neurons * memory)),
                        retentions: retentions.slice(of(pairs)),
                        norms: norms.slice(of(2 * neurons)),
                    }
                };
                let read = Read {
                    states: &read.states[of(ticks * neurons)],
                    attended: &read.attended[of(ticks * width)],
                    synapse: &read.synapse[of(ticks * 2 * neurons)],
                    hidden: &read.hidden[of(ticks * outputs * neurons)],
                };
                let upstream = Upstream {
                    states: &upstream.states[of(ticks * neurons)],
                    trace: &upstream.trace[of(neurons * memory)],
                };
                let inputs = inputs.of(shape, rows.clone());
                let tokens = tokens_of(shape, inputs, true);
                Group { shape, packed, inputs, read, tokens }.run(upstream, &mut parts);
            }
        });
    }
    sum_rows(&retentions, gradients.retention);
    let mut summed = vec![0.0f32; 2 * neurons];
    sum_rows(&norms, &mut summed);
    gradients.norm_weight.copy_from_slice(&summed[..neurons]);
    gradients.norm_bias.copy_from_slice(&summed[neurons..]);
    found
}

struct Sizes {
    traces: usize,
    synchrony: usize,
    dquery: usize,
    dsynapse: usize,
    dhidden: usize,
    gated: usize,
    dsecond: usize,
}

struct Group<'a> {
    shape: Shape,
    packed: &'a Packed<'a>,
    inputs: Inputs<'a>,
    read: Read<'a>,
    tokens: Vec<Tokens<'a>>,
}

impl Group<'_> {
    fn run(&self, upstream: Upstream<'_>, parts: &mut Parts<'_>) {
        let Shape { ticks, neurons, width, pairs, memory, .. } = self.shape;
        let (padded, padded_width) = (self.shape.padded(), self.shape.padded_width());
        let slot = self.shape.slot();
        let samples = self.tokens.len();
        let history = (memory + ticks) * slot;
        self.remember(parts);
        let mut scratch_of_neurons = NeuronScratch::new(self.shape);
        let recurrence = Pairs {
            left: self.packed.weights.left,
            right: self.packed.weights.right,
            retention: self.packed.weights.retention,
            norms: &self.packed.norms,
        };
        let start = |r: usize| &self.inputs.state[r * neurons..][..neurons];
        let reads_once = self.shape.reads_once();
        let of_sample = |r: usize| &self.read.states[r * ticks * neurons..][..ticks * neurons];
        // Ticks read the states before them: z_0 … z_{T−1}.
        let mut adjoints: Vec<Adjoint<'_>> = (0..if reads_once { 0 } else { samples })
            .map(|r| Adjoint::new(&recurrence, start(r), of_sample(r), neurons, ticks - 1))
            .collect();
        // Gradients of z_0 … z_T and of the traces.
        let mut dz = vec![0.0f32; ROWS * (ticks + 1) * neurons];
        for r in 0..samples {
            let from = &upstream.states[r * ticks * neurons..][..ticks * neurons];
            dz[(r * (ticks + 1) + 1) * neurons..][..ticks * neurons].copy_from_slice(from);
        }
        let mut dtraces = vec![0.0f32; ROWS * history];
        for r in 0..samples {
            let trace = &upstream.trace[r * neurons * memory..][..neurons * memory];
            to_slots(memory, trace, &mut dtraces[r * history + ticks * slot..], slot);
        }
        // Of what was read: of this tick, or of all so far where it is read once.
        let mut dread = vec![0.0f32; ROWS * width];
        let mut dx = vec![0.0f32; ROWS * (width + neurons)];
        let mut du = vec![0.0f32; ROWS * 2 * padded];
        let mut query = vec![0.0f32; ROWS * padded_width];
        let mut dquery = vec![0.0f32; ROWS * padded_width];
        let mut synchrony = vec![0.0f32; ROWS * pairs];
        let mut dsynchrony = vec![0.0f32; ROWS * pairs];
        let mut weights = vec![0.0f32; self.shape.heads * self.shape.tokens];
        let mut scratch = weights.clone();

        for t in (0..ticks).rev() {
            self.neurons(t, &dz, &mut dtraces, parts, &mut scratch_of_neurons);
            for r in 0..samples {
                let at = (r * ticks + t) * 2 * neurons;
                let da = &dtraces[r * history + (memory + t) * slot..][..neurons];
                let du = &mut du[r * 2 * padded..][..2 * padded];
                let norms = &mut parts.norms[r * 2 * neurons..][..2 * neurons];
                let u = &self.read.synapse[at..][..2 * neurons];
                normalised_gate_adjoint(neurons, u, &self.packed.norm_weight, da, du, norms);
                let kept = &mut parts.dsynapse[(r * ticks + t) * 2 * padded..][..2 * padded];
                kept.copy_from_slice(du);
            }
            dx.fill(0.0);
            thin::product_adjoint(&du, &self.packed.synapse, &mut dx);
            for r in 0..samples {
                let dz = &mut dz[(r * (ticks + 1) + t) * neurons..][..neurons];
                let dx = &dx[r * (width + neurons) + width..][..neurons];
                for (dz, dx) in dz.iter_mut().zip(dx) {
                    *dz += dx;
                }
            }
            add_reads(width, neurons, &dx, reads_once, &mut dread);
            if reads_once && t > 0 {
                continue;
            }
            for r in 0..samples {
                let from = &parts.synchrony[(r * ticks + t) * pairs..][..pairs];
                synchrony[r * pairs..][..pairs].copy_from_slice(from);
            }
            fill_rows(&mut query, &self.packed.query_bias);
            thin::product(&synchrony, &self.packed.query, &mut query);
            for (r, tokens) in self.tokens.iter().enumerate() {
                let query = &query[r * padded_width..][..width];
                let size = self.shape.tokens * width;
                tokens.weigh(self.shape, query, &mut weights);
                tokens.adjoint(
                    self.shape,
                    query,
                    &weights,
                    &dread[r * width..][..width],
                    &mut scratch,
                    &mut dquery[r * padded_width..][..width],
                    &mut parts.dkeys[r * size..][..size],
                    &mut parts.dvalues[r * size..][..size],
                );
                let kept = &mut parts.dquery[(r * ticks + t) * padded_width..][..padded_width];
                kept.copy_from_slice(&dquery[r * padded_width..][..padded_width]);
            }
            if reads_once {
                continue;
            }
            dsynchrony.fill(0.0);
            thin::product_adjoint(&dquery, &self.packed.query, &mut dsynchrony);
            for (r, adjoint) in adjoints.iter_mut().enumerate() {
                let z = crate::synchronisation::state(start(r), of_sample(r), neurons, t);
                let dz = &mut dz[(r * (ticks + 1) + t) * neurons..][..neurons];
                adjoint.step(t, &dsynchrony[r * pairs..][..pairs], z, dz);
            }
        }
        for (r, adjoint) in adjoints.iter().enumerate() {
            parts.retentions[r * pairs..][..pairs].copy_from_slice(&adjoint.dretention);
        }
        for r in 0..samples {
            let dz = &dz[r * (ticks + 1) * neurons..][..neurons];
            parts.dstate[r * neurons..][..neurons].copy_from_slice(dz);
            let dtrace = &mut parts.dtrace[r * neurons * memory..][..neurons * memory];
            from_slots(memory, &dtraces[r * history..], slot, dtrace);
        }
    }

    /// Forms traces, gated hidden layers and synchronisations again from what was saved.
    fn remember(&self, parts: &mut Parts<'_>) {
        let Shape { ticks, neurons, pairs, memory, hidden, .. } = self.shape;
        let (padded, slot, outputs) =
            (self.shape.padded(), self.shape.slot(), self.shape.outputs());
        let weights = self.packed.weights;
        let mut u = vec![0.0f32; 2 * padded];
        let mut alpha = vec![0.0f32; pairs];
        for r in 0..self.tokens.len() {
            let traces = &mut parts.traces[r * (memory + ticks) * slot..];
            let before = &self.inputs.trace[r * neurons * memory..][..neurons * memory];
            to_slots(memory, before, traces, slot);
            let start = &self.inputs.state[r * neurons..][..neurons];
            alpha.fill(0.0);
            let states = &self.read.states[r * ticks * neurons..][..ticks * neurons];
            for t in 0..ticks {
                let row = r * ticks + t;
                let kept = &self.read.synapse[row * 2 * neurons..][..2 * neurons];
                u[..neurons].copy_from_slice(&kept[..neurons]);
                u[padded..][..neurons].copy_from_slice(&kept[neurons..]);
                let (weight, bias) = (&self.packed.norm_weight, &self.packed.norm_bias);
                let a = &mut traces[(memory + t) * slot..][..padded];
                normalised_gate(neurons, &u, weight, bias, a);
                for o in 0..hidden {
                    let h =
                        |o: usize| &self.read.hidden[(row * outputs + o) * neurons..][..neurons];
                    let out = &mut parts.gated[(row * hidden + o) * slot..][..neurons];
                    gate(h(o), h(o + hidden), out);
                }
                if self.shape.reads_once() {
                    continue;
                }
                let z = crate::synchronisation::state(start, states, neurons, t);
                let (left, right) = (weights.left, weights.right);
                crate::synchronisation::step(&mut alpha, weights.retention, z, left, right);
                let root = &self.packed.norms.inverse_root[t * pairs..][..pairs];
                let out = &mut parts.synchrony[row * pairs..][..pairs];
                for ((out, alpha), root) in out.iter_mut().zip(&alpha).zip(root) {
                    *out = alpha * root;
                }
            }
        }
    }

    /// The adjoint of the neuron-level models of tick t: into `dtraces`, and kept
    /// for the weights.
    fn neurons(
        &self,
        t: usize,
        dz: &[f32],
        dtraces: &mut [f32],
        parts: &mut Parts<'_>,
        scratch: &mut NeuronScratch,
    ) {
        let Shape { ticks, neurons, memory, hidden, .. } = self.shape;
        let (padded, slot, outputs) =
            (self.shape.padded(), self.shape.slot(), self.shape.outputs());
        let samples = self.tokens.len();
        let history = (memory + ticks) * slot;
        let NeuronScratch { dh, g, y, dy, dg } = scratch;
        let hidden_row = |r: usize, o: usize| {
            &self.read.hidden[((r * ticks + t) * outputs + o) * neurons..][..neurons]
        };
        let dz_row = |r: usize| &dz[(r * (ticks + 1) + t + 1) * neurons..][..neurons];
        if hidden == 0 {
            for r in 0..samples {
                let (dvalue, dgate) = dh[r * 2 * slot..][..2 * slot].split_at_mut(slot);
                gate_adjoint(hidden_row(r, 0), hidden_row(r, 1), dz_row(r), dvalue, dgate);
            }
        } else {
            dg.fill(0.0);
            for r in 0..samples {
                let kept = &parts.gated[(r * ticks + t) * hidden * slot..][..hidden * slot];
                g[r * hidden * slot..][..hidden * slot].copy_from_slice(kept);
            }
            second_level(self.shape, self.packed, g, y);
            for r in 0..samples {
                let y = &y[r * 2 * padded..][..2 * padded];
                let dy = &mut dy[r * 2 * padded..][..2 * padded];
                let (dvalue, dgate) = dy.split_at_mut(padded);
                gate_adjoint(&y[..neurons], &y[padded..], dz_row(r), dvalue, dgate);
                let at = (r * ticks + t) * 2 * padded;
                parts.dsecond[at..][..2 * padded].copy_from_slice(dy);
            }
            let dg_at = Strides { row: hidden * slot, slot };
            let dy_at = Strides { row: 2 * padded, slot: padded };
            for (block, weights) in self.packed.level2.chunks(hidden * 2 * LANES).enumerate() {
                let from = block * LANES;
                let (dy, dg) = (&dy[from..], &mut dg[from..]);
                thin::lanewise_adjoint(hidden, 2, dy, dy_at, weights, dg, dg_at);
            }
            for r in 0..samples {
                for o in 0..hidden {
                    let (values, gates) =
                        dh[r * outputs * slot..][..outputs * slot].split_at_mut(hidden * slot);
                    let dvalue = &mut values[o * slot..][..padded];
                    let dgate = &mut gates[o * slot..][..padded];
                    let dg = &dg[(r * hidden + o) * slot..][..neurons];
                    gate_adjoint(hidden_row(r, o), hidden_row(r, o + hidden), dg, dvalue, dgate);
                }
            }
        }
        let dh_at = Strides { row: outputs * slot, slot };
        let trace_at = Strides { row: history, slot };
        for (block, weights) in self.packed.level1.chunks(memory * outputs * LANES).enumerate() {
            let from = block * LANES;
            let dtraces = &mut dtraces[(t + 1) * slot + from..];
            let dh = &dh[from..];
            thin::lanewise_adjoint(memory, outputs, dh, dh_at, weights, dtraces, trace_at);
        }
        for r in 0..samples {
            let size = outputs * slot;
            let kept = &mut parts.dhidden[(r * ticks + t) * size..][..size];
            kept.copy_from_slice(&dh[r * size..][..size]);
        }
    }
}

/// dread [ROWS][width] becomes the first part of the rows of dx, or has it added.
fn add_reads(width: usize, neurons: usize, dx: &[f32], add: bool, dread: &mut [f32]) {
    for (dread, dx) in dread.chunks_exact_mut(width).zip(dx.chunks_exact(width + neurons)) {
        for (dread, dx) in dread.iter_mut().zip(dx) {
            *dread = if add { *dread + dx } else { *dx };
        }
    }
}

/// What the adjoint of a tick's neuron-level models works in.
struct NeuronScratch {
    /// [ROWS][O][slot].
    dh: Vec<f32>,
    /// [ROWS][H][slot].
    g: Vec<f32>,
    /// [ROWS][2][padded].
    y: Vec<f32>,
    /// [ROWS][2][padded].
    dy: Vec<f32>,
    /// [ROWS][H][slot].
    dg: Vec<f32>,
}

impl NeuronScratch {
    fn new(shape: Shape) -> Self {
        let zeros = |size: usize| vec![0.0f32; ROWS * size];
        NeuronScratch {
            dh: zeros(shape.outputs() * shape.slot()),
            g: zeros(shape.hidden * shape.slot()),
            y: zeros(2 * shape.padded()),
            dy: zeros(2 * shape.padded()),
            dg: zeros(shape.hidden * shape.slot()),
        }
    }
}

multiversion! {
    /// (dvalue, dgate) of value × σ(gate).
    fn gate_adjoint(
        values: &[f32], gates: &[f32], dout: &[f32], dvalue: &mut [f32], dgate: &mut [f32],
    ) {
        let count = dout.len();
        let (values, gates) = (&values[..count], &gates[..count]);
        let (dvalue, dgate) = (&mut dvalue[..count], &mut dgate[..count]);
        for n in 0..count {
            let open = math::sigmoid(gates[n]);
            dvalue[n] = dout[n] * open;
            dgate[n] = dout[n] * values[n] * open * (1.0 - open);
        }
    }
}

multiversion! {
    /// The adjoint of the LayerNorm of a gate: du [2 padded] from da [D]; the norm's
    /// own gradients are added to `norms` [2D].
    fn normalised_gate_adjoint(
        neurons: usize, u: &[f32], weight: &[f32], da: &[f32], du: &mut [f32], norms: &mut [f32],
    ) {
        let (values, gates) = u.split_at(neurons);
        let (dvalues, dgates) = du.split_at_mut(du.len() / 2);
        let (dvalues, dgates) = (&mut dvalues[..neurons], &mut dgates[..neurons]);
        let (dweight, dbias) = norms.split_at_mut(neurons);
        // dvalues holds the gated values first, then x̂, then the gradient.
        for ((out, value), gate) in dvalues.iter_mut().zip(values).zip(gates) {
            *out = value * math::sigmoid(*gate);
        }
        let (mean, inverse) = moments(dvalues);
        for n in 0..neurons {
            let normal = (dvalues[n] - mean) * inverse;
            dvalues[n] = normal;
            dweight[n] += da[n] * normal;
            dbias[n] += da[n];
            dgates[n] = da[n] * weight[n];
        }
        let count = neurons as f32;
        let mean_gradient = sum(dgates, |x| x) / count;
        let mut projected = 0.0f32;
        for (normal, d) in dvalues.iter().zip(dgates.iter()) {
            projected += normal * d;
        }
        let projected = projected / count;
        for n in 0..neurons {
            let d = inverse * (dgates[n] - mean_gradient - dvalues[n] * projected);
            let open = math::sigmoid(gates[n]);
            dvalues[n] = d * open;
            dgates[n] = d * values[n] * open * (1.0 - open);
        }
    }
}
