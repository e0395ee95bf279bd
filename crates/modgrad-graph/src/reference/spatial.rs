//! Thoughts on a lattice, and walks on it, neuron by neuron.
//!
//! Letters: A activations, Z states, P the two parts of a neuron-level model, U the
//! synapse after its functions; t a tick, i a cell, c a channel.

#![allow(clippy::needless_range_loop)] // Indices as in the equations.

use super::{Array, sigmoid};
use crate::error::{Error, Result};

/// One sample's ticks; each field is [tick][cell][channel].
struct Sample {
    /// From tick 1 − M on.
    a: Vec<Vec<Vec<f64>>>,
    /// Value and σ(gate) [2C].
    p: Vec<Vec<Vec<f64>>>,
    /// What a cell hears, its own first [2C].
    heard: Vec<Vec<Vec<f64>>>,
    /// tanh(u), σ(g) [2C], from tick 1 on.
    u: Vec<Vec<Vec<f64>>>,
    /// α [2C].
    alpha: Vec<Vec<Vec<f64>>>,
}

pub(super) struct Thought<'a> {
    x: &'a [&'a Array],
    kept: usize,
    reads: Vec<usize>,
    last: usize,
    samples: Vec<Sample>,
}

impl<'a> Thought<'a> {
    pub(super) fn new(
        x: &'a [&'a Array],
        ticks: usize,
        kept: usize,
        op: &'static str,
    ) -> Result<Self> {
        let reads: Vec<usize> = match x.get(6) {
            None => vec![ticks],
            Some(reads) => (0..reads.data.len())
                .map(|r| reads.index_at(r, ticks + 1, op))
                .collect::<Result<_>>()?,
        };
        let last = reads
            .iter()
            .copied()
            .max()
            .ok_or_else(|| Error::shape(op, "at least one tick to read", "none"))?;
        let mut thought = Thought { x, kept, reads, last, samples: Vec::new() };
        thought.samples = (0..x[0].shape[0]).map(|b| thought.think(b)).collect();
        Ok(thought)
    }

    fn grid(&self) -> (usize, usize) {
        (self.x[0].shape[1], self.x[0].shape[2])
    }

    fn channels(&self) -> usize {
        self.x[1].shape[1]
    }

    fn memory(&self) -> usize {
        self.x[1].shape[0]
    }

    /// The first tick whose state is a constant to the gradient, or 0.
    fn given(&self) -> usize {
        self.last.saturating_sub(self.kept)
    }

    /// The cell that cell `i` hears channel `c` of.
    fn source(&self, i: usize, c: usize) -> Option<usize> {
        let (height, width) = self.grid();
        let (dy, dx) = [(-1, 0), (1, 0), (0, -1), (0, 1)][c / (self.channels() / 4)];
        let (y, x) = ((i / width) as isize + dy, (i % width) as isize + dx);
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        inside.then(|| y as usize * width + x as usize)
    }

    /// The two members of pair `s`, as places in what a cell hears.
    fn pair(&self, s: usize) -> (usize, usize) {
        let channels = self.channels();
        if s < channels { (s, (s + channels / 4) % channels) } else { (s - channels, s) }
    }

    fn think(&self, b: usize) -> Sample {
        let (height, width) = self.grid();
        let (cells, channels, memory) = (height * width, self.channels(), self.memory());
        let [drive, start, synapse, neuron, bias, retention] =
            [0, 1, 2, 3, 4, 5].map(|operand| self.x[operand]);
        let row = |m| (0..channels).map(|c| start.at(&[m, c])).collect::<Vec<f64>>();
        let mut sample = Sample {
            a: (0..memory).map(|m| vec![row(m); cells]).collect(),
            p: Vec::new(),
            heard: Vec::new(),
            u: vec![Vec::new()],
            alpha: Vec::new(),
        };
        for t in 0..=self.last {
            if t > 0 {
                let (mut u, mut a) = (Vec::new(), Vec::new());
                for i in 0..cells {
                    let sum = |n: usize| {
                        let heard = &sample.heard[t - 1][i];
                        let products = (0..2 * channels).map(|k| heard[k] * synapse.at(&[k, n]));
                        products.sum::<f64>() + drive.at(&[b, i / width, i % width, n])
                    };
                    let values = (0..channels).map(|c| sum(c).tanh());
                    let gates = (channels..2 * channels).map(|n| sigmoid(sum(n)));
                    let row: Vec<f64> = values.chain(gates).collect();
                    let before = &sample.a[t + memory - 2][i];
                    let moved = |c: usize| before[c] + row[channels + c] * (row[c] - before[c]);
                    a.push((0..channels).map(moved).collect());
                    u.push(row);
                }
                sample.u.push(u);
                sample.a.push(a);
            }
            let part = |i: usize, which: usize, c: usize| {
                let terms = (0..memory).map(|m| sample.a[t + m][i][c] * neuron.at(&[m, which, c]));
                terms.sum::<f64>() + bias.at(&[which, c])
            };
            let parts: Vec<Vec<f64>> = (0..cells)
                .map(|i| {
                    let values = (0..channels).map(|c| part(i, 0, c));
                    values.chain((0..channels).map(|c| sigmoid(part(i, 1, c)))).collect()
                })
                .collect();
            let z = |i: usize, c: usize| parts[i][c] * parts[i][channels + c];
            let heard: Vec<Vec<f64>> = (0..cells)
                .map(|i| {
                    let heard = |c| self.source(i, c).map_or(0.0, |source| z(source, c));
                    (0..channels).map(|c| z(i, c)).chain((0..channels).map(heard)).collect()
                })
                .collect();
            let alpha = (0..cells)
                .map(|i| {
                    (0..2 * channels)
                        .map(|s| {
                            let (left, right) = self.pair(s);
                            let before = if t == 0 { 0.0 } else { sample.alpha[t - 1][i][s] };
                            retention.data[s] * before + heard[i][left] * heard[i][right]
                        })
                        .collect()
                })
                .collect();
            sample.p.push(parts);
            sample.heard.push(heard);
            sample.alpha.push(alpha);
        }
        sample
    }

    /// β of pair `s` at tick `t` and its derivative by r: Σ_{k≤t} r^k.
    fn beta(&self, s: usize, t: usize) -> (f64, f64) {
        let r = self.x[5].data[s];
        let slope = (1..=t as i32).map(|k| f64::from(k) * r.powi(k - 1)).sum();
        ((0..=t as i32).map(|k| r.powi(k)).sum(), slope)
    }

    pub(super) fn results(&self) -> Vec<Array> {
        let (batch, (height, width)) = (self.x[0].shape[0], self.grid());
        let (channels, memory, given) = (self.channels(), self.memory(), self.given());
        let at = |index: &[usize]| index[2] * width + index[3];
        let shape = [batch, self.reads.len(), height, width, 2 * channels];
        let readings = Array::from_fn(&shape, |index| {
            let (t, s) = (self.reads[index[1]], index[4]);
            self.samples[index[0]].alpha[t][at(index)][s] / self.beta(s, t).0.sqrt()
        });
        let slots = if self.kept == 0 { 0 } else { self.kept + memory };
        let activations = Array::from_fn(&[batch, slots, height, width, channels], |index| {
            let slot = self.samples[index[0]].a.get(given + index[1]);
            slot.map_or(0.0, |slot| slot[at(index)][index[4]])
        });
        let gates = Array::from_fn(&[batch, self.kept, height, width, 2 * channels], |index| {
            let slot = self.samples[index[0]].u.get(given + 1 + index[1]);
            slot.map_or(0.0, |slot| slot[at(index)][index[4]])
        });
        let sums = if self.kept == 0 { 0 } else { batch };
        let sums = Array::from_fn(&[sums, height, width, 2 * channels], |index| {
            self.samples[index[0]].alpha[given][index[1] * width + index[2]][index[3]]
        });
        vec![readings, activations, gates, sums]
    }

    pub(super) fn gradients(&self, dreadings: &Array) -> Vec<Array> {
        let mut d: Vec<Array> =
            (0..6).map(|operand| Array::zeros(&self.x[operand].shape)).collect();
        for b in 0..self.samples.len() {
            self.add_gradients(b, dreadings, &mut d);
        }
        d
    }

    /// Backpropagation through one sample: each adjoint is that of one line above.
    fn add_gradients(&self, b: usize, dreadings: &Array, d: &mut [Array]) {
        let sample = &self.samples[b];
        let (height, width) = self.grid();
        let (cells, channels, memory) = (height * width, self.channels(), self.memory());
        let (synapse, neuron, retention) = (self.x[2], self.x[3], self.x[5]);
        let given = self.given();
        let mut da = vec![vec![vec![0.0; channels]; cells]; sample.a.len()];
        let mut dheard = vec![vec![0.0; 2 * channels]; cells];
        let mut dalpha = vec![vec![0.0; 2 * channels]; cells];
        for t in (given..=self.last).rev() {
            for (r, _) in self.reads.iter().enumerate().filter(|(_, read)| **read == t) {
                for i in 0..cells {
                    for s in 0..2 * channels {
                        let dreading = dreadings.at(&[b, r, i / width, i % width, s]);
                        let (beta, slope) = self.beta(s, t);
                        dalpha[i][s] += dreading / beta.sqrt();
                        d[5].data[s] -=
                            0.5 * dreading * sample.alpha[t][i][s] * slope / beta.powf(1.5);
                    }
                }
            }
            if t == given && t > 0 {
                break;
            }
            let heard = &sample.heard[t];
            for i in 0..cells {
                for s in 0..2 * channels {
                    let (left, right) = self.pair(s);
                    dheard[i][left] += dalpha[i][s] * heard[i][right];
                    dheard[i][right] += dalpha[i][s] * heard[i][left];
                    if t > 0 {
                        d[5].data[s] += dalpha[i][s] * sample.alpha[t - 1][i][s];
                    }
                    dalpha[i][s] *= retention.data[s];
                }
            }
            let mut dz = vec![vec![0.0; channels]; cells];
            for i in 0..cells {
                for c in 0..channels {
                    dz[i][c] += dheard[i][c];
                    if let Some(source) = self.source(i, c) {
                        dz[source][c] += dheard[i][channels + c];
                    }
                }
            }
            for i in 0..cells {
                for c in 0..channels {
                    let (value, gate) = (sample.p[t][i][c], sample.p[t][i][channels + c]);
                    let dparts = [dz[i][c] * gate, dz[i][c] * value * gate * (1.0 - gate)];
                    for (which, dpart) in dparts.into_iter().enumerate() {
                        *d[4].at_mut(&[which, c]) += dpart;
                        for m in 0..memory {
                            *d[3].at_mut(&[m, which, c]) += dpart * sample.a[t + m][i][c];
                            da[t + m][i][c] += dpart * neuron.at(&[m, which, c]);
                        }
                    }
                }
            }
            if t == 0 {
                break;
            }
            for i in 0..cells {
                let mut du = vec![0.0; 2 * channels];
                for c in 0..channels {
                    let (value, gate) = (sample.u[t][i][c], sample.u[t][i][channels + c]);
                    let now = da[t + memory - 1][i][c];
                    da[t + memory - 2][i][c] += now * (1.0 - gate);
                    let before = sample.a[t + memory - 2][i][c];
                    du[c] = now * gate * (1.0 - value * value);
                    du[channels + c] = now * (value - before) * gate * (1.0 - gate);
                }
                for k in 0..2 * channels {
                    dheard[i][k] = (0..2 * channels).map(|n| du[n] * synapse.at(&[k, n])).sum();
                    for n in 0..2 * channels {
                        *d[2].at_mut(&[k, n]) += du[n] * sample.heard[t - 1][i][k];
                    }
                }
                for n in 0..2 * channels {
                    *d[0].at_mut(&[b, i / width, i % width, n]) += du[n];
                }
            }
        }
        if given == 0 {
            for (m, da) in da[..memory].iter().enumerate() {
                for c in 0..channels {
                    *d[1].at_mut(&[m, c]) += da.iter().map(|da| da[c]).sum::<f64>();
                }
            }
        }
    }
}

/// (policy [B, Y, X, 5], start [B, Y, X]) → what a walk finds [B, steps, 5].
pub(super) fn walk(steps: usize, policy: &Array, start: &Array) -> Array {
    let [batch, height, width] = start.shape[..] else { unreachable!("checked by the shape rule") };
    let last_largest = |values: &[f64]| {
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values.iter().rposition(|&value| value == largest).unwrap_or(0)
    };
    let mut out = Array::zeros(&[batch, steps, 5]);
    for b in 0..batch {
        let place = last_largest(&start.data[b * height * width..][..height * width]);
        let (mut y, mut x) = (place / width, place % width);
        for step in 0..steps {
            let logits: Vec<f64> = (0..5).map(|m| policy.at(&[b, y, x, m])).collect();
            for (m, logit) in logits.iter().enumerate() {
                *out.at_mut(&[b, step, m]) = *logit;
            }
            match last_largest(&logits) {
                0 => y = y.saturating_sub(1),
                1 => y = (y + 1).min(height - 1),
                2 => x = x.saturating_sub(1),
                3 => x = (x + 1).min(width - 1),
                _ => {}
            }
        }
    }
    out
}
