//! Attention of one query over the tokens of one sample.

use modgrad_compute::{math, multiversion};

use super::Shape;

/// Keys and values of a sample, with their transposes: every loop then runs along
/// memory.
pub(super) struct Tokens<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    /// [d][L].
    keys_by_channel: Vec<f32>,
    /// [d][L].
    values_by_channel: Vec<f32>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(shape: Shape, keys: &'a [f32], values: &'a [f32], adjoint: bool) -> Self {
        let empty: &[f32] = &[];
        Tokens {
            keys,
            values,
            keys_by_channel: transposed(keys, shape.tokens, shape.width),
            values_by_channel: transposed(
                if adjoint { values } else { empty },
                if adjoint { shape.tokens } else { 0 },
                shape.width,
            ),
        }
    }

    /// Softmax of q·k/√(d/h) for each head: `weights` [h][L].
    pub(super) fn weigh(&self, shape: Shape, query: &[f32], weights: &mut [f32]) {
        weigh(shape.tokens, shape.width / shape.heads, query, &self.keys_by_channel, weights);
    }

    /// out [d] = Σ_l weights[head][l]·values[l].
    pub(super) fn attend(&self, shape: Shape, weights: &[f32], out: &mut [f32]) {
        attend(shape.tokens, shape.width / shape.heads, weights, self.values, out);
    }

    /// The adjoint of both: dquery [d] from dout [d]; dkeys and dvalues [L][d] are
    /// added to.
    pub(super) fn adjoint(
        &self,
        shape: Shape,
        query: &[f32],
        weights: &[f32],
        dout: &[f32],
        scratch: &mut [f32],
        dquery: &mut [f32],
        dkeys: &mut [f32],
        dvalues: &mut [f32],
    ) {
        let channels = shape.width / shape.heads;
        let by_channel = &self.values_by_channel;
        softmax_adjoint(shape.tokens, channels, weights, dout, by_channel, scratch);
        attend(shape.tokens, channels, scratch, self.keys, dquery);
        add_outer(shape.tokens, channels, scratch, query, dkeys);
        add_outer(shape.tokens, channels, weights, dout, dvalues);
    }
}

fn transposed(rows: &[f32], count: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; rows.len()];
    for (l, row) in rows.chunks(width.max(1)).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * count + l] = value;
        }
    }
    out
}

multiversion! {
    fn weigh(tokens: usize, channels: usize, query: &[f32], by_channel: &[f32], weights: &mut [f32]) {
        let scale = 1.0 / (channels as f32).sqrt();
        for (head, weights) in weights.chunks_exact_mut(tokens).enumerate() {
            weights.fill(0.0);
            for c in head * channels..(head + 1) * channels {
                let q = query[c] * scale;
                for (weight, key) in weights.iter_mut().zip(&by_channel[c * tokens..][..tokens]) {
                    *weight += q * key;
                }
            }
            let mut most = f32::NEG_INFINITY;
            for &weight in weights.iter() {
                most = if weight > most { weight } else { most };
            }
            let mut total = 0.0f32;
            for weight in weights.iter_mut() {
                *weight = math::exp_normal(*weight - most);
            }
            for &weight in weights.iter() {
                total += weight;
            }
            let inverse = 1.0 / total;
            for weight in weights.iter_mut() {
                *weight *= inverse;
            }
        }
    }
}

multiversion! {
    /// out[c] = Σ_l weights[head of c][l]·rows[l][c].
    fn attend(tokens: usize, channels: usize, weights: &[f32], rows: &[f32], out: &mut [f32]) {
        let width = out.len();
        out.fill(0.0);
        for l in 0..tokens {
            let row = &rows[l * width..][..width];
            for head in 0..width / channels {
                let weight = weights[head * tokens + l];
                let at = head * channels..(head + 1) * channels;
                for (out, value) in out[at.clone()].iter_mut().zip(&row[at]) {
                    *out += weight * value;
                }
            }
        }
    }
}

multiversion! {
    /// dscores [h][L] (scaled) from dout [d].
    fn softmax_adjoint(
        tokens: usize, channels: usize, weights: &[f32], dout: &[f32], by_channel: &[f32],
        dscores: &mut [f32],
    ) {
        let scale = 1.0 / (channels as f32).sqrt();
        let heads = weights.chunks_exact(tokens).zip(dscores.chunks_exact_mut(tokens));
        for (head, (weights, dscores)) in heads.enumerate() {
            dscores.fill(0.0);
            for c in head * channels..(head + 1) * channels {
                let dout = dout[c];
                for (d, value) in dscores.iter_mut().zip(&by_channel[c * tokens..][..tokens]) {
                    *d += dout * value;
                }
            }
            let mut mean = 0.0f32;
            for (weight, d) in weights.iter().zip(dscores.iter()) {
                mean += weight * d;
            }
            for (weight, d) in weights.iter().zip(dscores.iter_mut()) {
                *d = weight * (*d - mean) * scale;
            }
        }
    }
}

multiversion! {
    /// rows[l][c] += weights[head of c][l]·vector[c].
    fn add_outer(tokens: usize, channels: usize, weights: &[f32], vector: &[f32], rows: &mut [f32]) {
        let width = vector.len();
        for l in 0..tokens {
            let row = &mut rows[l * width..][..width];
            for head in 0..width / channels {
                let weight = weights[head * tokens + l];
                let at = head * channels..(head + 1) * channels;
                for (row, value) in row[at.clone()].iter_mut().zip(&vector[at]) {
                    *row += weight * value;
                }
            }
        }
    }
}
