//! All kept ticks of one sample after another, last to first.

use std::ops::Range;

use modgrad_compute::Pool;
use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::{slab_outer, slab_product};

use super::forward::{hear, sample_sizes};
use super::{BLOCK, Gradients, Read, Shape, Weights, norms, stages, target};

/// What does not change from sample to sample.
struct Fixed<'a> {
    shape: Shape,
    weights: &'a Weights<'a>,
    /// The synapse the other way round.
    transposed: Vec<f32>,
    reads: &'a [usize],
    last: usize,
    beta: Vec<f32>,
    beta_slope: Vec<f32>,
}

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    weights: &Weights<'_>,
    reads: &[usize],
    read: Read<'_>,
    dreadings: &[f32],
    gradients: Gradients<'_>,
) {
    let (cells, pairs) = (shape.cells(), shape.pairs());
    let last = reads.iter().copied().max().unwrap_or(0);
    let (beta, beta_slope) = norms(weights.retention, last);
    let transposed = transposed(weights.synapse, pairs);
    let fixed = Fixed { shape, weights, transposed, reads, last, beta, beta_slope };
    let outs = [
        gradients.synapse,
        gradients.neuron,
        gradients.neuron_bias,
        gradients.retention,
        gradients.start,
    ];
    let lengths = outs.each_ref().map(|out| out.len());
    let total = lengths.iter().sum();
    let mut partial = vec![0.0f32; shape.batch * total];
    let [readings_size, activations_size, gates_size, sums_size] = sample_sizes(shape);
    {
        let partial = SharedMut::new(&mut partial);
        let drive = SharedMut::new(gradients.drive);
        pool.for_ranges(shape.batch, 1, |samples| {
            let mut state = State::new(shape);
            for sample in samples {
                let stretch = |size: usize| sample * size..(sample + 1) * size;
                // SAFETY: a sample's own stretches.
                let (mut rest, ddrive) =
                    unsafe { (partial.slice(stretch(total)), drive.slice(stretch(cells * pairs))) };
                let [synapse, neuron, neuron_bias, retention, start] = lengths.map(|length| {
                    let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
                    rest = behind;
                    part
                });
                ddrive.fill(0.0);
                let out =
                    Gradients { drive: ddrive, start, synapse, neuron, neuron_bias, retention };
                let read = Read {
                    readings: &read.readings[stretch(readings_size)],
                    activations: &read.activations[stretch(activations_size)],
                    gates: &read.gates[stretch(gates_size)],
                    sums: &read.sums[stretch(sums_size)],
                };
                state.think_back(&fixed, read, &dreadings[stretch(readings_size)], out);
            }
        });
    }
    let mut from = 0;
    for out in outs {
        let (length, at) = (out.len(), from);
        from += length;
        let out = SharedMut::new(out);
        pool.for_ranges(length, 64, |range| {
            // SAFETY: ranges of different threads do not overlap.
            let out = unsafe { out.slice(range.clone()) };
            out.fill(0.0);
            for sample in partial.chunks_exact(total) {
                for (out, part) in out.iter_mut().zip(&sample[at..][range.clone()]) {
                    *out += part;
                }
            }
        });
    }
}

fn transposed(matrix: &[f32], size: usize) -> Vec<f32> {
    (0..size * size).map(|at| matrix[at % size * size + at / size]).collect()
}

struct State {
    /// The neuron-level models' value and σ(gate) [cells][2C].
    parts: Vec<f32>,
    /// z [cells][C].
    states: Vec<f32>,
    /// Gradient of (u, g) at the tick that follows [cells][2C].
    dsynapse: Vec<f32>,
    /// Gradient of [z ; heard] [cells][2C].
    dheard: Vec<f32>,
    /// Ring of M + 1 slots [cells][C]: that of the activations of tick t stands in
    /// slot t % (M + 1).
    dtraces: Vec<f32>,
    /// ᾱ and κ [cells][2C], where κ_t = Σ_{k>t} r^{k−t−1}·ᾱ_k: a product at tick t
    /// takes κ_t times itself to the gradient of r.
    dalpha: Vec<f32>,
    kappa: Vec<f32>,
    // Of a block of rows.
    heard: Vec<f32>,
    dstates: Vec<f32>,
}

impl State {
    fn new(shape: Shape) -> State {
        let (cells, channels, pairs) = (shape.cells(), shape.channels, shape.pairs());
        let (grid, block) = (vec![0.0; cells * pairs], vec![0.0; BLOCK * pairs]);
        State {
            parts: grid.clone(),
            states: vec![0.0; cells * channels],
            dsynapse: grid.clone(),
            dheard: grid.clone(),
            dtraces: vec![0.0; (shape.memory + 1) * cells * channels],
            dalpha: grid.clone(),
            kappa: grid,
            heard: block.clone(),
            dstates: block,
        }
    }

    fn think_back(
        &mut self,
        fixed: &Fixed<'_>,
        read: Read<'_>,
        dreadings: &[f32],
        mut out: Gradients<'_>,
    ) {
        let &Fixed { shape, weights, last, .. } = fixed;
        let cells = shape.cells();
        let given = shape.given(last);
        for buffer in [
            &mut self.dsynapse,
            &mut self.dheard,
            &mut self.dtraces,
            &mut self.dalpha,
            &mut self.kappa,
        ] {
            buffer.fill(0.0);
        }
        for from in (0..cells).step_by(BLOCK) {
            self.neurons(shape, weights, read, last - given, from..cells.min(from + BLOCK));
        }
        for tick in (given..=last).rev() {
            self.readings(fixed, read, dreadings, tick, out.retention);
            let constant = tick == given && given > 0;
            for from in (0..cells).step_by(BLOCK) {
                let cells = from..cells.min(from + BLOCK);
                self.synapse(fixed, tick, cells, constant, &mut out);
            }
            if constant {
                add_products(read.sums, &self.kappa, out.retention);
                return;
            }
            for from in (0..cells).step_by(BLOCK) {
                let cells = from..cells.min(from + BLOCK);
                self.neuron_models(fixed, read, tick, cells, &mut out);
            }
        }
        for (m, out) in out.start.chunks_exact_mut(shape.channels).enumerate() {
            // Tick 1 − M + m.
            let slot = cells * shape.channels;
            let at = (m + 2) % (shape.memory + 1) * slot;
            out.fill(0.0);
            for row in self.dtraces[at..at + slot].chunks_exact(shape.channels) {
                for (sum, d) in out.iter_mut().zip(row) {
                    *sum += d;
                }
            }
        }
    }

    /// Steps ᾱ and κ back to `tick` and adds what was read there.
    fn readings(
        &mut self,
        fixed: &Fixed<'_>,
        read: Read<'_>,
        dreadings: &[f32],
        tick: usize,
        dretention: &mut [f32],
    ) {
        let shape = fixed.shape;
        let pairs = shape.pairs();
        let size = shape.cells() * pairs;
        if tick < fixed.last {
            let retention = fixed.weights.retention;
            stages::fade(shape.channels, retention, &mut self.dalpha, &mut self.kappa);
        }
        let beta = &fixed.beta[tick * pairs..][..pairs];
        let slope = &fixed.beta_slope[tick * pairs..][..pairs];
        for (reading, _) in fixed.reads.iter().enumerate().filter(|(_, read)| **read == tick) {
            let rows = dreadings[reading * size..][..size].chunks_exact(pairs);
            let values = read.readings[reading * size..][..size].chunks_exact(pairs);
            for ((d, value), dalpha) in rows.zip(values).zip(self.dalpha.chunks_exact_mut(pairs)) {
                for pair in 0..pairs {
                    dalpha[pair] += d[pair] / beta[pair].sqrt();
                    dretention[pair] -= 0.5 * d[pair] * value[pair] * slope[pair] / beta[pair];
                }
            }
        }
    }

    /// From the gradient of the next tick's synapse to that of what `cells` hear at
    /// `tick`, with the share of the pairs unless the state there is a constant.
    fn synapse(
        &mut self,
        fixed: &Fixed<'_>,
        tick: usize,
        cells: Range<usize>,
        constant: bool,
        out: &mut Gradients<'_>,
    ) {
        let shape = fixed.shape;
        let (channels, pairs) = (shape.channels, shape.pairs());
        let stretch = cells.start * pairs..cells.end * pairs;
        let heard = &mut self.heard[..stretch.len()];
        hear(shape, &self.states, cells.start, heard);
        let dheard = &mut self.dheard[stretch.clone()];
        if tick < fixed.last {
            let dsynapse = &self.dsynapse[stretch.clone()];
            slab_outer(pairs, pairs, heard, dsynapse, out.synapse);
            dheard.fill(0.0);
            slab_product(pairs, pairs, dsynapse, &fixed.transposed, dheard);
        }
        if !constant {
            let (dalpha, kappa) = (&self.dalpha[stretch.clone()], &self.kappa[stretch]);
            let dretention = &mut *out.retention;
            stages::synchronise_adjoint(channels, heard, dalpha, kappa, dheard, dretention);
        }
    }

    /// From the gradient of what was heard at `tick` back through neuron-level models
    /// and gates of `cells`, and their models of the tick before.
    fn neuron_models(
        &mut self,
        fixed: &Fixed<'_>,
        read: Read<'_>,
        tick: usize,
        cells: Range<usize>,
        out: &mut Gradients<'_>,
    ) {
        let &Fixed { shape, weights, last, .. } = fixed;
        let Shape { channels, memory, .. } = shape;
        let (given, pairs, slot) = (shape.given(last), shape.pairs(), shape.cells() * channels);
        let rows = cells.start * pairs..cells.end * pairs;
        let own = cells.start * channels..cells.end * channels;

        let dstates = &mut self.dstates[..own.len()];
        answer(shape, &self.dheard, cells.start, dstates);
        let mut ring: Vec<&mut [f32]> = self.dtraces.chunks_exact_mut(slot).collect();
        // To ticks t − M + 1 … t, then t − M.
        ring.rotate_left((tick + 2) % (memory + 1));
        // Activations of tick t − M + 1 + m.
        let activations = |m: usize| &read.activations[(tick - given + m) * slot..][..slot];
        let slots: Vec<&[f32]> = (0..memory).map(activations).collect();
        stages::neuron_adjoint(
            channels,
            &slots,
            own.start,
            weights.neuron,
            &self.parts[rows.clone()],
            dstates,
            &mut ring[..memory],
            out.neuron,
            out.neuron_bias,
        );
        if tick == 0 {
            return;
        }
        let (older, newer) = ring.split_at_mut(if memory > 1 { memory - 1 } else { 1 });
        let (now, before) = match memory {
            1 => (&mut older[0], &mut newer[0]),
            _ => (&mut newer[0], &mut older[memory - 2]),
        };
        // With a memory of 1 the activations before stand one slot further back.
        let previous = &read.activations[(tick + memory - given - 2) * slot..][..slot];
        let gates = (tick - given - 1) * shape.cells() * pairs;
        stages::gate_adjoint(
            channels,
            &read.gates[gates + rows.start..gates + rows.end],
            &previous[own.clone()],
            &mut now[own.clone()],
            &mut before[own],
            &mut self.dsynapse[rows.clone()],
            &mut out.drive[rows],
        );
        self.neurons(shape, weights, read, tick - 1 - given, cells);
    }

    /// The neuron-level models of `cells` so many ticks after the one that is given.
    fn neurons(
        &mut self,
        shape: Shape,
        weights: &Weights<'_>,
        read: Read<'_>,
        after: usize,
        cells: Range<usize>,
    ) {
        let Shape { channels, memory, .. } = shape;
        let slot = shape.cells() * channels;
        let activations = |m: usize| &read.activations[(after + m) * slot..][..slot];
        let slots: Vec<&[f32]> = (0..memory).map(activations).collect();
        let parts = &mut self.parts[cells.start * 2 * channels..cells.end * 2 * channels];
        let from = cells.start * channels;
        let states = &mut self.states[from..cells.end * channels];
        let (weight, bias) = (weights.neuron, weights.neuron_bias);
        stages::neurons(channels, &slots, from, weight, bias, parts, states);
    }
}

/// The gradient of z of the cells from `from` on: what the cell itself and those that
/// hear it found.
fn answer(shape: Shape, dheard: &[f32], from: usize, dstates: &mut [f32]) {
    match shape.channels {
        32 => answer_rows(32, shape, dheard, from, dstates),
        channels => answer_rows(channels, shape, dheard, from, dstates),
    }
}

#[inline(always)]
fn answer_rows(channels: usize, shape: Shape, dheard: &[f32], from: usize, dstates: &mut [f32]) {
    let (width, group) = (shape.width, channels / 4);
    for (cell, row) in (from..).zip(dstates.chunks_exact_mut(channels)) {
        row.copy_from_slice(&dheard[cell * 2 * channels..][..channels]);
        for (number, row) in row.chunks_exact_mut(group).enumerate() {
            if let Some(cell) = target(shape, number, cell / width, cell % width) {
                let found = &dheard[(2 * cell + 1) * channels + number * group..][..group];
                for (sum, found) in row.iter_mut().zip(found) {
                    *sum += found;
                }
            }
        }
    }
}

/// sums[n] += Σ_rows x[row, n]·y[row, n].
fn add_products(x: &[f32], y: &[f32], sums: &mut [f32]) {
    let width = sums.len().max(1);
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
}
