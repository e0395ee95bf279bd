//! An online mixer: softmax of weighted logarithms of all experts' rows, its weights
//! moved after each byte along the gradient of that byte's logarithm.
//!
//! One set of weights is chosen at each position (Mahoney's context mixing, in the
//! form of logistic mixing over 256 symbols). Weights begin each window as training
//! has left them.

use modgrad_compute::{math, multiversion};

use super::MemoryConfig;
use super::mix::dot;

pub(super) struct Mixer {
    rate: f32,
    experts: usize,
    /// [sets, experts], of this window.
    weights: Vec<f32>,
    set: usize,
    /// The mixed row.
    row: [f32; 256],
}

/// The weights that mixers begin with: an even share for each expert.
pub(super) fn first_weights(config: &MemoryConfig) -> Vec<f32> {
    let experts = config.counted_experts();
    vec![1.0 / experts as f32; config.sets().sum::<usize>() * experts]
}

impl Mixer {
    pub(super) fn new(config: &MemoryConfig, sets: usize) -> Mixer {
        let experts = config.counted_experts();
        Mixer {
            rate: config.mixer_rate,
            experts,
            weights: vec![0.0; sets * experts],
            set: 0,
            row: [0.0; 256],
        }
    }

    /// Takes its weights from the front of `weights`.
    pub(super) fn begin(&mut self, weights: &mut &[f32]) {
        let (own, rest) = weights.split_at(self.weights.len());
        self.weights.copy_from_slice(own);
        *weights = rest;
    }

    /// How far the window has moved the weights that it began with, `begun`.
    pub(super) fn moved(&self, begun: &mut &[f32], moves: &mut &mut [f32]) {
        let (begun_here, rest) = begun.split_at(self.weights.len());
        let (moved_here, later) = std::mem::take(moves).split_at_mut(self.weights.len());
        for ((moved, now), before) in moved_here.iter_mut().zip(&self.weights).zip(begun_here) {
            *moved = now - before;
        }
        (*begun, *moves) = (rest, later);
    }

    /// p of the last mix.
    pub(super) fn row(&self) -> &[f32; 256] {
        &self.row
    }

    /// Mixes the experts' rows: `difference` [experts, E] at the first entries `bytes`, which
    /// hold all that differ. Returns the multiple of the base, and the mixed difference in
    /// `mixed` [E].
    pub(super) fn mix(
        &mut self,
        set: usize,
        base: &[f32],
        bytes: &[i32],
        difference: &[f32],
        mixed: &mut [f32],
    ) -> f32 {
        self.set = set;
        let weights = &self.weights[set * self.experts..][..self.experts];
        mixed.fill(0.0);
        weighted(weights, difference, &mut mixed[..bytes.len()]);
        let multiple: f32 = weights.iter().sum();
        scaled(multiple, base, &mut self.row);
        for (byte, difference) in bytes.iter().zip(&*mixed) {
            self.row[*byte as usize] += difference;
        }
        softmax(&mut self.row);
        multiple
    }

    /// Moves the weights of the last mix towards the byte that came.
    pub(super) fn learn(&mut self, next: u8, base: &[f32], bytes: &[i32], difference: &[f32]) {
        let mut at_entries = [0.0f32; 256];
        let at_entries = &mut at_entries[..bytes.len()];
        for (at, byte) in at_entries.iter_mut().zip(bytes) {
            *at = -self.row[*byte as usize];
        }
        // An entry that is left over has a difference of 0, so its byte does not matter.
        for (at, byte) in at_entries.iter_mut().zip(bytes) {
            *at += f32::from(*byte == i32::from(next));
        }
        let weights = &mut self.weights[self.set * self.experts..][..self.experts];
        let likely = base[usize::from(next)];
        move_weights(self.rate, likely, &self.row, base, at_entries, difference, weights);
    }
}

multiversion! {
    fn weighted(weights: &[f32], difference: &[f32], mixed: &mut [f32]) {
        let entries = difference.len() / weights.len();
        for (weight, row) in weights.iter().zip(difference.chunks_exact(entries)) {
            for (mixed, difference) in mixed.iter_mut().zip(row) {
                *mixed += weight * difference;
            }
        }
    }
}

multiversion! {
    fn scaled(multiple: f32, base: &[f32], out: &mut [f32]) {
        for (out, base) in out.iter_mut().zip(base) {
            *out = multiple * base;
        }
    }
}

multiversion! {
    /// In place.
    fn softmax(row: &mut [f32]) {
        let mut lanes = [f32::NEG_INFINITY; 16];
        for chunk in row.chunks_exact(16) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = lane.max(*x);
            }
        }
        let highest = lanes.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut sums = [0.0f32; 16];
        for chunk in row.chunks_exact_mut(16) {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *x = math::exp(*x - highest);
                *sum += *x;
            }
        }
        let inverse = 1.0 / sums.iter().sum::<f32>();
        row.iter_mut().for_each(|x| *x *= inverse);
    }
}

multiversion! {
    fn move_weights(
        rate: f32, likely: f32, row: &[f32], base: &[f32], error: &[f32], difference: &[f32],
        weights: &mut [f32],
    ) {
        let entries = difference.len() / weights.len();
        let common = likely - dot(row, base);
        for (weight, row) in weights.iter_mut().zip(difference.chunks_exact(entries)) {
            *weight += rate * (common + dot(error, &row[..error.len()]));
        }
    }
}
