//! All ticks of one sample after another, first to last.

use modgrad_compute::Pool;
use modgrad_compute::pool::SharedMut;
use modgrad_compute::thin::slab_product;

use super::{BLOCK, Saved, Shape, Weights, norms, source, stages};

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    drive: &[f32],
    weights: &Weights<'_>,
    reads: &[usize],
    saved: Saved<'_>,
) {
    let last = reads.iter().copied().max().unwrap_or(0);
    let (beta, _) = norms(weights.retention, last);
    let (cells, pairs) = (shape.cells(), shape.pairs());
    let sizes = sample_sizes(shape);
    let [readings, activations, gates, sums] =
        [saved.readings, saved.activations, saved.gates, saved.sums].map(SharedMut::new);
    pool.for_ranges(shape.batch, 1, |samples| {
        let mut state = State::new(shape);
        for sample in samples {
            let stretch = |size: usize| sample * size..(sample + 1) * size;
            // SAFETY: a sample's own stretches.
            let saved = unsafe {
                Saved {
                    readings: readings.slice(stretch(sizes[0])),
                    activations: activations.slice(stretch(sizes[1])),
                    gates: gates.slice(stretch(sizes[2])),
                    sums: sums.slice(stretch(sizes[3])),
                }
            };
            let drive = &drive[stretch(cells * pairs)];
            state.think(shape, drive, weights, &beta, reads, last, saved);
        }
    });
}

/// Elements a sample has of each field of `Saved`.
pub(super) fn sample_sizes(shape: Shape) -> [usize; 4] {
    let (cells, channels, pairs) = (shape.cells(), shape.channels, shape.pairs());
    let (slots, sums) = if shape.kept == 0 { (0, 0) } else { (shape.kept + shape.memory, 1) };
    [
        shape.reads * cells * pairs,
        slots * cells * channels,
        shape.kept * cells * pairs,
        sums * cells * pairs,
    ]
}

/// What a sample's thought needs, made once for all samples of a thread.
struct State {
    /// Ring of M slots [cells][C]: activations of tick t stand in slot t % M.
    traces: Vec<f32>,
    /// z [cells][C] of this tick and of the next.
    states: [Vec<f32>; 2],
    /// α [cells][2C].
    alpha: Vec<f32>,
    // Of a block of rows.
    heard: Vec<f32>,
    before: Vec<f32>,
    synapse: Vec<f32>,
    parts: Vec<f32>,
}

impl State {
    fn new(shape: Shape) -> State {
        let (cells, channels, pairs) = (shape.cells(), shape.channels, shape.pairs());
        let block = vec![0.0; BLOCK * pairs];
        State {
            traces: vec![0.0; shape.memory * cells * channels],
            states: [vec![0.0; cells * channels], vec![0.0; cells * channels]],
            alpha: vec![0.0; cells * pairs],
            heard: block.clone(),
            before: block.clone(),
            synapse: block.clone(),
            parts: block,
        }
    }

    fn think(
        &mut self,
        shape: Shape,
        drive: &[f32],
        weights: &Weights<'_>,
        beta: &[f32],
        reads: &[usize],
        last: usize,
        saved: Saved<'_>,
    ) {
        let Shape { channels, memory, kept, .. } = shape;
        let (cells, pairs) = (shape.cells(), shape.pairs());
        let (given, slot) = (shape.given(last), cells * channels);
        if kept > 0 {
            saved.activations[(last - given + memory) * slot..].fill(0.0);
            saved.gates[(last - given) * cells * pairs..].fill(0.0);
        }
        // The activations of tick t stand in slot t − (given − M + 1) of those kept.
        let kept_slot = |tick: usize| (kept > 0).then(|| (tick + memory - 1).checked_sub(given))?;
        for (m, start) in weights.start.chunks_exact(channels).enumerate() {
            // Tick 1 − M + m.
            let at = (m + 1) % memory * slot;
            for row in self.traces[at..at + slot].chunks_exact_mut(channels) {
                row.copy_from_slice(start);
            }
            if let (true, Some(kept)) = (kept > 0, m.checked_sub(given)) {
                let row = &self.traces[at..at + slot];
                saved.activations[kept * slot..][..slot].copy_from_slice(row);
            }
        }
        self.alpha.fill(0.0);
        for tick in 0..=last {
            // Whoever is heard at a tick says what it was at the one before.
            if tick == 0 {
                for from in (0..cells).step_by(BLOCK) {
                    self.neurons(shape, weights, tick, from..cells.min(from + BLOCK));
                }
            }
            self.states.swap(0, 1);
            for from in (0..cells).step_by(BLOCK) {
                let to = cells.min(from + BLOCK);
                let rows = (to - from) * pairs;
                let heard = &mut self.heard[..rows];
                hear(shape, &self.states[0], from, heard);
                let alpha = &mut self.alpha[from * pairs..to * pairs];
                stages::synchronise(channels, heard, weights.retention, alpha);
                if tick == last {
                    continue;
                }
                let synapse = &mut self.synapse[..rows];
                synapse.copy_from_slice(&drive[from * pairs..to * pairs]);
                slab_product(pairs, pairs, heard, weights.synapse, synapse);
                let next = tick + 1;
                let stretch = from * channels..to * channels;
                self.before[..stretch.len()]
                    .copy_from_slice(&self.traces[tick % memory * slot..][stretch.clone()]);
                let activations = &mut self.traces[next % memory * slot..][stretch.clone()];
                let before = &self.before[..stretch.len()];
                stages::gate(channels, synapse, before, activations);
                if let Some(kept) = kept_slot(next) {
                    let at = kept * slot + from * channels;
                    saved.activations[at..at + activations.len()].copy_from_slice(activations);
                }
                if next > given {
                    let at = ((next - given - 1) * cells + from) * pairs;
                    saved.gates[at..at + rows].copy_from_slice(synapse);
                }
                self.neurons(shape, weights, next, from..to);
            }
            if tick == given && kept > 0 {
                saved.sums.copy_from_slice(&self.alpha);
            }
            for (reading, _) in reads.iter().enumerate().filter(|(_, read)| **read == tick) {
                let out = &mut saved.readings[reading * cells * pairs..][..cells * pairs];
                let beta = &beta[tick * pairs..][..pairs];
                for (out, alpha) in out.chunks_exact_mut(pairs).zip(self.alpha.chunks_exact(pairs))
                {
                    for ((out, alpha), beta) in out.iter_mut().zip(alpha).zip(beta) {
                        *out = alpha / beta.sqrt();
                    }
                }
            }
        }
    }

    /// z of `cells` at a tick, written to the states of the next.
    fn neurons(
        &mut self,
        shape: Shape,
        weights: &Weights<'_>,
        tick: usize,
        cells: std::ops::Range<usize>,
    ) {
        let Shape { channels, memory, .. } = shape;
        let slot = shape.cells() * channels;
        let parts = &mut self.parts[..cells.len() * 2 * channels];
        let slots: Vec<&[f32]> =
            (0..memory).map(|m| &self.traces[(tick + 1 + m) % memory * slot..][..slot]).collect();
        let from = cells.start * channels;
        let states = &mut self.states[1][from..cells.end * channels];
        let (weight, bias) = (weights.neuron, weights.neuron_bias);
        stages::neurons(channels, &slots, from, weight, bias, parts, states);
    }
}

/// Rows [z ; heard] of the cells from `from` on, as many as there is place for.
pub(super) fn hear(shape: Shape, states: &[f32], from: usize, rows: &mut [f32]) {
    // Copies of a known length are two instructions instead of a call.
    match shape.channels {
        32 => hear_rows(32, shape, states, from, rows),
        channels => hear_rows(channels, shape, states, from, rows),
    }
}

#[inline(always)]
fn hear_rows(channels: usize, shape: Shape, states: &[f32], from: usize, rows: &mut [f32]) {
    let (width, group) = (shape.width, channels / 4);
    for (cell, row) in (from..).zip(rows.chunks_exact_mut(2 * channels)) {
        let (own, heard) = row.split_at_mut(channels);
        own.copy_from_slice(&states[cell * channels..][..channels]);
        for (number, heard) in heard.chunks_exact_mut(group).enumerate() {
            match source(shape, number, cell / width, cell % width) {
                Some(cell) => {
                    let at = cell * channels + number * group;
                    heard.copy_from_slice(&states[at..at + group]);
                }
                None => heard.fill(0.0),
            }
        }
    }
}
