//! Attention of one query over the tokens of one sample.

use modgrad_compute::thin::tokens::{Sizes, by_channel, scores, weighted_sum};
use modgrad_compute::thin::{Buffer, LANES};
use modgrad_compute::{math, multiversion};

use super::{Inputs, Shape};

/// Keys and values of a sample, transposed where scores are formed from them: every
/// loop then runs along memory.
pub(super) struct Tokens {
    sizes: Sizes,
    /// Values, or keys for the adjoint [L][d].
    rows: Buffer,
    /// Keys, or values for the adjoint [d][stride].
    columns: Buffer,
}

impl Tokens {
    /// Of each of the samples of `inputs`.
    pub(super) fn all(shape: Shape, inputs: Inputs<'_>, adjoint: bool) -> Vec<Tokens> {
        let (sizes, size) = (shape.sizes(), shape.tokens * shape.width);
        let samples = inputs.keys.chunks_exact(size).zip(inputs.values.chunks_exact(size));
        samples
            .map(|(keys, values)| {
                let (rows, columns) = if adjoint { (keys, values) } else { (values, keys) };
                Tokens { sizes, rows: Buffer::from(rows), columns: by_channel(sizes, columns) }
            })
            .collect()
    }

    /// weights [h][stride] = softmax of q·k/√c for each head, and what they read [d].
    pub(super) fn read(&self, query: &[f32], weights: &mut [f32], out: &mut [f32]) {
        scores(self.sizes, self.scale(), query, &self.columns, weights);
        softmax(self.sizes.tokens, self.sizes.stride(), weights);
        weighted_sum(self.sizes, weights, &self.rows, out);
    }

    /// dquery [d] and the scores' gradients [h][stride] from dout [d]. Keys and values
    /// get theirs once a call, as sums over ticks.
    pub(super) fn adjoint(
        &self,
        weights: &[f32],
        dout: &[f32],
        dscores: &mut [f32],
        dquery: &mut [f32],
    ) {
        scores(self.sizes, 1.0, dout, &self.columns, dscores);
        softmax_adjoint(self.sizes.tokens, self.sizes.stride(), self.scale(), weights, dscores);
        weighted_sum(self.sizes, dscores, &self.rows, dquery);
    }

    fn scale(&self) -> f32 {
        1.0 / (self.sizes.channels as f32).sqrt()
    }
}

multiversion! {
    fn softmax(tokens: usize, stride: usize, scores: &mut [f32]) {
        for scores in scores.chunks_exact_mut(stride) {
            let scores = &mut scores[..tokens];
            let most = greatest(scores);
            for score in scores.iter_mut() {
                *score = math::exp_normal(*score - most);
            }
            let total = in_lanes(scores, scores, |weight, _| weight);
            let inverse = 1.0 / total;
            for weight in scores.iter_mut() {
                *weight *= inverse;
            }
        }
    }
}

multiversion! {
    /// The gradients of weights become those of scores before their scale.
    fn softmax_adjoint(
        tokens: usize, stride: usize, scale: f32, weights: &[f32], dscores: &mut [f32],
    ) {
        let heads = weights.chunks_exact(stride).zip(dscores.chunks_exact_mut(stride));
        for (weights, dscores) in heads {
            let (weights, dscores) = (&weights[..tokens], &mut dscores[..tokens]);
            let mean = in_lanes(weights, dscores, |weight, d| weight * d);
            for (weight, d) in weights.iter().zip(dscores.iter_mut()) {
                *d = weight * (*d - mean) * scale;
            }
        }
    }
}

#[inline(always)]
fn greatest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// The sum of `of` over pairs, in lanes.
#[inline(always)]
fn in_lanes(left: &[f32], right: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (lefts, rights) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let (left_rest, right_rest) = (lefts.remainder(), rights.remainder());
    for (left, right) in lefts.zip(rights) {
        for ((lane, left), right) in lanes.iter_mut().zip(left).zip(right) {
            *lane += of(*left, *right);
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(a, b)| of(*a, *b)).sum();
    lanes.iter().sum::<f32>() + rest
}
