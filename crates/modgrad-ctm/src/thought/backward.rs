//! All ticks of a few samples, last to first: gradients of what flows, and what
//! the gradients of weights are formed from.
//!
//! Groups of samples form up to [`UNITS`] units, which sum into parts of their own:
//! the order of sums does not depend on the threads.

use modgrad_compute::Pool;
use modgrad_compute::pool::{SharedMut, share};
use modgrad_compute::thin::lanewise::{self, SLOT};
use modgrad_compute::thin::tokens::outer_sum;
use modgrad_compute::thin::{Buffer, LANES, copy_lanes};

use super::attention::Tokens;
use super::forward::advance;
use super::neurons::{self, Scratch, Second, add_rows};
use super::packed::Packed;
use super::traces::Traces;
use super::{Gradients, Inputs, ROWS, Read, Shape, Upstream};
use crate::synchronisation::{Adjoint, Pairs, state};

/// Parts that the sums over samples are formed in.
const UNITS: usize = 16;
/// Ticks whose hidden layers' gradients are kept before they go into the weights'.
const CHUNK: usize = 8;

/// What the gradients of weights are formed from.
pub(super) struct Found {
    /// Of each layer of the synapse, rows of samples and ticks: its inputs and the
    /// gradients of its products.
    pub(super) layers: Vec<[Buffer; 2]>,
    /// [B][T][S].
    pub(super) synchrony: Buffer,
    /// Of the query, and where it is projected of its projection [B][T][d or 2d].
    pub(super) dquery: Buffer,
    /// Of the projection of what was read [B][T][d], or empty.
    pub(super) dtold: Buffer,
    /// To be summed.
    pub(super) units: Vec<Unit>,
}

/// One unit's sums.
pub(super) struct Unit {
    /// [S].
    pub(super) retention: Vec<f32>,
    /// Of each layer of the synapse: weight, bias, and those of the skip.
    pub(super) norms: Vec<Vec<f32>>,
    /// [blocks][M][O][LANES].
    pub(super) level1: Buffer,
    /// [blocks][O][LANES].
    pub(super) level1_bias: Vec<f32>,
    /// [blocks][H][2][LANES].
    pub(super) level2: Buffer,
    /// [blocks][2][LANES].
    pub(super) level2_bias: Vec<f32>,
}

impl Unit {
    fn new(shape: Shape, packed: &Packed<'_>) -> Unit {
        Unit {
            retention: vec![0.0; shape.pairs],
            norms: packed.synapse.sizes().map(|[_, _, width]| vec![0.0; 4 * width]).collect(),
            level1: Buffer::zeros(packed.level1.len()),
            level1_bias: vec![0.0; packed.level1_bias.len()],
            level2: Buffer::zeros(packed.level2.len()),
            level2_bias: vec![0.0; packed.level2_bias.len()],
        }
    }
}

/// One group's part of `Found` and of the gradients that are a sample's own.
struct Parts<'a> {
    layers: Vec<[&'a mut [f32]; 2]>,
    synchrony: &'a mut [f32],
    dquery: &'a mut [f32],
    dtold: &'a mut [f32],
    dkeys: &'a mut [f32],
    dvalues: &'a mut [f32],
    dstate: &'a mut [f32],
    dtrace: &'a mut [f32],
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
    let Shape { batch, ticks, neurons, width, tokens, memory, .. } = shape;
    let (pairs, kept) = (packed.pairs, shape.kept_width());
    let told = kept - width;
    let (shares, columns) = (shape.heads * tokens, packed.synapse.columns());
    let rows = |size: usize| Buffer::any(batch * ticks * size);
    let sizes: Vec<[usize; 3]> = packed.synapse.sizes().collect();
    let mut layers: Vec<[Buffer; 2]> =
        sizes.iter().map(|&[inner, columns, _]| [rows(inner), rows(columns)]).collect();
    let (mut synchrony, mut dquery, mut dtold) = (rows(pairs), rows(kept), rows(told));
    if shape.reads_once() {
        // All ticks but the first have none of their own.
        dquery.fill(0.0);
    }
    let groups = batch.div_ceil(ROWS);
    let count = groups.min(UNITS);
    let mut units: Vec<Option<Unit>> = (0..count).map(|_| None).collect();
    {
        let layers: Vec<[SharedMut<'_, f32>; 2]> =
            layers.iter_mut().map(|[x, dy]| [SharedMut::new(x), SharedMut::new(dy)]).collect();
        let synchrony = SharedMut::new(&mut synchrony);
        let dquery = SharedMut::new(&mut dquery);
        let dtold = SharedMut::new(&mut dtold);
        let dkeys = SharedMut::new(gradients.keys);
        let dvalues = SharedMut::new(gradients.values);
        let dstate = SharedMut::new(gradients.state);
        let dtrace = SharedMut::new(gradients.trace);
        let units = SharedMut::new(&mut units);
        let run = |which: usize| {
            let mut unit = Unit::new(shape, packed);
            for group in share(groups, 1, which, count) {
                let rows = group * ROWS..batch.min((group + 1) * ROWS);
                let of = |size: usize| rows.start * size..rows.end * size;
                let of_ticks = |size: usize| of(ticks * size);
                // SAFETY: a group's own samples.
                let mut parts = unsafe {
                    Parts {
                        layers: layers
                            .iter()
                            .zip(&sizes)
                            .map(|([x, dy], &[inner, columns, _])| {
                                [x.slice(of_ticks(inner)), dy.slice(of_ticks(columns))]
                            })
                            .collect(),
                        synchrony: synchrony.slice(of_ticks(pairs)),
                        dquery: dquery.slice(of_ticks(kept)),
                        dtold: dtold.slice(of_ticks(told)),
                        dkeys: dkeys.slice(of(tokens * width)),
                        dvalues: dvalues.slice(of(tokens * width)),
                        dstate: dstate.slice(of(neurons)),
                        dtrace: dtrace.slice(of(neurons * memory)),
                    }
                };
                let read = Read {
                    states: &read.states[of_ticks(neurons)],
                    attended: &read.attended[of_ticks(kept)],
                    query: &read.query[of_ticks(kept)],
                    attention: &read.attention[of_ticks(shares)],
                    synapse: &read.synapse[of_ticks(columns)],
                };
                let upstream = Upstream {
                    states: &upstream.states[of_ticks(neurons)],
                    trace: &upstream.trace[of(neurons * memory)],
                };
                let inputs = inputs.of(shape, rows.clone());
                Group { shape, packed, inputs, read }.run(upstream, &mut parts, &mut unit);
            }
            // SAFETY: this unit's own place.
            let place = unsafe { units.slice(which..which + 1) };
            place[0] = Some(unit);
        };
        pool.for_ranges(count, shape.groups_a_thread(), |range| range.for_each(&run));
    }
    Found { layers, synchrony, dquery, dtold, units: units.into_iter().flatten().collect() }
}

struct Group<'a> {
    shape: Shape,
    packed: &'a Packed<'a>,
    inputs: Inputs<'a>,
    read: Read<'a>,
}

impl Group<'_> {
    fn run(&self, upstream: Upstream<'_>, parts: &mut Parts<'_>, unit: &mut Unit) {
        let Shape { ticks, neurons, width, memory, heads, tokens, .. } = self.shape;
        let (shape, packed) = (self.shape, self.packed);
        let (padded_width, sizes) = (shape.padded_width(), shape.sizes());
        let (stride, pairs) = (sizes.stride(), packed.pairs);
        let padded_pairs = pairs.next_multiple_of(LANES);
        let (kept, stages) = (shape.kept_width(), shape.kept_width() / width);
        let reads_once = shape.reads_once();
        let samples = self.inputs.state.len() / neurons;
        let columns = packed.synapse.columns();
        let mut working = packed.synapse.working();
        let traces = self.remember(parts, &mut working);
        let all_tokens = Tokens::all(shape, self.inputs, true);
        let start = |r: usize| &self.inputs.state[r * neurons..][..neurons];
        let states = |r: usize| &self.read.states[r * ticks * neurons..][..ticks * neurons];
        let recurrence = Pairs {
            left: packed.weights.left,
            right: packed.weights.right,
            retention: packed.weights.retention,
            norms: &packed.norms,
        };
        // Ticks read the states before them: z_0 … z_{T−1}.
        let mut adjoints: Vec<Adjoint<'_>> = (0..if reads_once { 0 } else { samples })
            .map(|r| Adjoint::new(&recurrence, start(r), states(r), neurons, ticks - 1))
            .collect();
        let mut dtraces = Traces::new(shape);
        for r in 0..samples {
            dtraces.begin_last(r, &upstream.trace[r * neurons * memory..][..neurons * memory]);
        }
        // Of the state that tick t reads; upstream is added when tick t − 1 is come to.
        let mut dz = vec![0.0f32; ROWS * neurons];
        let mut da = vec![0.0f32; ROWS * neurons];
        let mut scratch = Scratch::new(shape);
        let mut dhidden = Buffer::any(shape.blocks() * CHUNK * shape.outputs() * SLOT);
        let mut dx = Buffer::zeros(ROWS * (width + neurons));
        // Of what was read: of one tick, or of all where it is read once.
        let mut dqueries = [(); 2].map(|()| Buffer::zeros(ROWS * padded_width));
        let mut dreads = [(); 2].map(|()| Buffer::zeros(ROWS * padded_width));
        let mut dsynchrony = Buffer::zeros(ROWS * padded_pairs);
        let readings = if reads_once { 1 } else { ticks };
        let reading = readings * heads * stride;
        let mut weights = Buffer::zeros(ROWS * reading);
        let mut dscores = Buffer::zeros(ROWS * reading);
        let mut dread = Buffer::zeros(ROWS * readings * width);
        for r in 0..samples {
            for head in 0..readings * heads {
                let from = &self.read.attention[(r * ticks * heads + head) * tokens..][..tokens];
                weights[r * reading + head * stride..][..tokens].copy_from_slice(from);
            }
        }

        for t in (0..ticks).rev() {
            for r in 0..samples {
                let given = &upstream.states[(r * ticks + t) * neurons..][..neurons];
                for (dz, given) in dz[r * neurons..][..neurons].iter_mut().zip(given) {
                    *dz += given;
                }
            }
            self.neurons(t, &dz, &traces, &mut dtraces, &mut dhidden, &mut scratch, unit);
            for r in 0..samples {
                dtraces.pushed(t, r, &mut da[r * neurons..][..neurons]);
            }
            let saved = |r: usize| &self.read.synapse[(r * ticks + t) * columns..][..columns];
            packed.synapse.recall(samples, saved, &mut working);
            let of_row = |r: usize| &da[r * neurons..][..neurons];
            packed.synapse.adjoint(samples, of_row, &mut working, &mut unit.norms, &mut dx);
            for (layer, [inputs, dproducts]) in parts.layers.iter_mut().enumerate() {
                for r in 0..samples {
                    packed.synapse.keep(&working, layer, r, r * ticks + t, inputs, dproducts);
                }
            }
            for r in 0..samples {
                let dx = &dx[r * (width + neurons)..][..width + neurons];
                dz[r * neurons..][..neurons].copy_from_slice(&dx[width..]);
                dreads[stages - 1][r * padded_width..][..width].copy_from_slice(&dx[..width]);
                if stages > 1 {
                    let at = (r * ticks + t) * width;
                    parts.dtold[at..][..width].copy_from_slice(&dx[..width]);
                }
            }
            if let Some([_, of_read]) = &packed.projections {
                let [dread, dtold] = &mut dreads;
                of_read.adjoint(dtold, dread);
            }
            for r in 0..samples {
                let of_tick = if reads_once { 0 } else { t };
                let dread = &mut dread[(r * readings + of_tick) * width..][..width];
                for (sum, more) in dread.iter_mut().zip(&dreads[0][r * padded_width..]) {
                    *sum += more;
                }
            }
            if reads_once && t > 0 {
                continue;
            }
            for (r, one) in all_tokens.iter().enumerate() {
                let at = r * reading + t * heads * stride;
                let dquery = &mut dqueries[stages - 1][r * padded_width..][..width];
                one.adjoint(
                    &weights[at..][..heads * stride],
                    &dread[(r * readings + t) * width..][..width],
                    &mut dscores[at..][..heads * stride],
                    dquery,
                );
            }
            if let Some([of_query, _]) = &packed.projections {
                let [dasked, dquery] = &mut dqueries;
                of_query.adjoint(dquery, dasked);
            }
            for r in 0..samples {
                for (stage, dquery) in dqueries[..stages].iter().enumerate() {
                    parts.dquery[(r * ticks + t) * kept + stage * width..][..width]
                        .copy_from_slice(&dquery[r * padded_width..][..width]);
                }
            }
            if reads_once {
                continue;
            }
            packed.query.adjoint(&dqueries[0], &mut dsynchrony);
            for (r, adjoint) in adjoints.iter_mut().enumerate() {
                let z = state(start(r), states(r), neurons, t);
                let dz = &mut dz[r * neurons..][..neurons];
                adjoint.step(t, &dsynchrony[r * padded_pairs..][..pairs], z, dz);
            }
        }
        for r in 0..samples {
            let own = r * tokens * width..(r + 1) * tokens * width;
            let of_reading = r * reading..(r + 1) * reading;
            let mut queries = Vec::with_capacity(readings * width);
            for query in self.read.query[r * ticks * kept..].chunks_exact(kept).take(readings) {
                queries.extend_from_slice(&query[kept - width..]);
            }
            let dread = &dread[r * readings * width..][..readings * width];
            let (dkeys, dvalues) = (&mut parts.dkeys[own.clone()], &mut parts.dvalues[own]);
            outer_sum(sizes, readings, &dscores[of_reading.clone()], &queries, dkeys);
            outer_sum(sizes, readings, &weights[of_reading], dread, dvalues);
            let dz = &dz[r * neurons..][..neurons];
            parts.dstate[r * neurons..][..neurons].copy_from_slice(dz);
            let dtrace = &mut parts.dtrace[r * neurons * memory..][..neurons * memory];
            dtraces.copy(0, r, dtrace);
        }
        for adjoint in &adjoints {
            for (sum, d) in unit.retention.iter_mut().zip(&adjoint.dretention) {
                *sum += d;
            }
        }
    }

    /// Forms traces and synchronisations again from what was saved, and joins what the
    /// synapse read.
    fn remember(&self, parts: &mut Parts<'_>, working: &mut super::synapse::Working) -> Traces {
        let Shape { ticks, neurons, width, memory, .. } = self.shape;
        let (packed, pairs, kept) = (self.packed, self.packed.pairs, self.shape.kept_width());
        let (samples, columns) = (self.inputs.state.len() / neurons, packed.synapse.columns());
        let mut traces = Traces::new(self.shape);
        let mut alpha = vec![0.0f32; pairs];
        for t in 0..ticks {
            let saved = |r: usize| &self.read.synapse[(r * ticks + t) * columns..][..columns];
            packed.synapse.recall(samples, saved, working);
            for r in 0..samples {
                traces.push(t, r, packed.synapse.result(working, r));
            }
        }
        for r in 0..samples {
            traces.begin(r, &self.inputs.trace[r * neurons * memory..][..neurons * memory]);
            let start = &self.inputs.state[r * neurons..][..neurons];
            let states = &self.read.states[r * ticks * neurons..][..ticks * neurons];
            alpha.fill(0.0);
            for t in 0..ticks {
                let (row, z) = (r * ticks + t, state(start, states, neurons, t));
                let synchrony = &mut parts.synchrony[row * pairs..][..pairs];
                advance(packed, t, z, &mut alpha, synchrony);
                let x = &mut parts.layers[0][0][row * (width + neurons)..][..width + neurons];
                x[..width]
                    .copy_from_slice(&self.read.attended[(row + 1) * kept - width..][..width]);
                x[width..].copy_from_slice(z);
            }
        }
        traces
    }

    /// The adjoint of the neuron-level models of tick t: into `dtraces`, and kept for
    /// the weights, which get a chunk of ticks at a time.
    fn neurons(
        &self,
        t: usize,
        dz: &[f32],
        traces: &Traces,
        dtraces: &mut Traces,
        dhidden: &mut [f32],
        scratch: &mut Scratch,
        unit: &mut Unit,
    ) {
        let Shape { ticks, neurons, memory, .. } = self.shape;
        let (shape, blocks, outputs) = (self.shape, self.shape.blocks(), self.shape.outputs());
        let steps = if t.is_multiple_of(CHUNK) { CHUNK.min(ticks - t) } else { 0 };
        let mut dz_slot = [0.0f32; SLOT];
        for block in 0..blocks {
            let start = block * LANES;
            let lanes = LANES.min(neurons - start);
            for r in 0..ROWS {
                let from = &dz[r * neurons + start..][..lanes];
                copy_lanes(from, &mut dz_slot[r * LANES..][..lanes]);
            }
            if lanes < LANES {
                (0..ROWS).for_each(|r| dz_slot[r * LANES + lanes..(r + 1) * LANES].fill(0.0));
            }
            let part = |sums: &[f32]| {
                let size = sums.len() / blocks;
                block * size..(block + 1) * size
            };
            let (level2, level2_bias) = (part(&unit.level2), part(&unit.level2_bias));
            let second = Second {
                weight: &mut unit.level2[level2],
                bias: &mut unit.level2_bias[level2_bias],
            };
            let dhidden = &mut dhidden[block * CHUNK * outputs * SLOT..][..CHUNK * outputs * SLOT];
            let dh = &mut dhidden[t % CHUNK * outputs * SLOT..][..outputs * SLOT];
            let (last, dlast) = (traces.last(t, block), dtraces.last_mut(t, block));
            let packed = self.packed;
            neurons::adjoint(shape, packed, block, last, &dz_slot, scratch, second, dh, dlast);
            let bias = part(&unit.level1_bias);
            add_rows(dh, &mut unit.level1_bias[bias]);
            if steps > 0 {
                let level1 = part(&unit.level1);
                lanewise::outer(steps, memory, outputs, last, dhidden, &mut unit.level1[level1]);
            }
        }
    }
}
