//! A thought: all ticks of a Continuous Thought Machine, and its adjoint, sample by
//! sample and tick by tick.

#![allow(clippy::needless_range_loop)] // Indices as in the equations.

use super::synapse::Row;
use super::synchronisation::pairs;
use super::{Array, sigmoid};
use crate::error::Result;
use crate::shape::thought::{PROJECTIONS, SYNAPSE, level_operands, synapse_operands};

/// What one tick of one sample went through.
struct Tick {
    /// α and β of each pair, after this tick's reading.
    recurrence: Vec<(f64, f64)>,
    synchrony: Vec<f64>,
    /// Before its projection, where there is one, and after.
    query: Vec<Vec<f64>>,
    /// [heads][L].
    attention: Vec<Vec<f64>>,
    /// Before its projection, where there is one, and after.
    attended: Vec<Vec<f64>>,
    synapse: Row,
    /// [N][M], the newest last.
    traces: Vec<Vec<f64>>,
    /// [N][O].
    h: Vec<Vec<f64>>,
    /// [N][hidden].
    g: Vec<Vec<f64>>,
    /// [N][2].
    y: Vec<[f64; 2]>,
    z: Vec<f64>,
}

/// The attributes of a thought, but for its ticks.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) heads: usize,
    pub(super) hidden: usize,
    pub(super) depth: usize,
    pub(super) projected: bool,
}

/// Operands of `think` with all that follows from them.
pub(super) struct Thought<'a> {
    x: &'a [&'a Array],
    kind: Kind,
    pairs: Vec<(usize, usize)>,
    count: usize,
    /// [B][T].
    ticks: Vec<Vec<Tick>>,
}

/// (da, db) of a·σ(b).
fn gate_gradient(a: f64, b: f64, d: f64) -> (f64, f64) {
    let open = sigmoid(b);
    (d * open, d * a * open * (1.0 - open))
}

impl<'a> Thought<'a> {
    pub(super) fn new(x: &'a [&'a Array], ticks: usize, kind: Kind) -> Result<Self> {
        let pairs = pairs(x[4], x[5], x[2].shape[1], "think")?;
        let mut thought = Thought { x, kind, pairs, count: ticks, ticks: Vec::new() };
        for sample in 0..x[0].shape[0] {
            let mut done: Vec<Tick> = Vec::new();
            for _ in 0..ticks {
                let next = thought.tick(sample, done.last());
                done.push(next);
            }
            thought.ticks.push(done);
        }
        Ok(thought)
    }

    fn neurons(&self) -> usize {
        self.x[3].shape[1]
    }

    /// The state that a sample comes with.
    fn state(&self, b: usize) -> &[f64] {
        &self.x[2].data[b * self.neurons()..][..self.neurons()]
    }

    /// The operands of the neuron-level models.
    fn levels(&self) -> &'a [&'a Array] {
        &self.x[SYNAPSE + synapse_operands(self.kind.depth)..]
    }

    /// Where the operands of projections begin.
    fn projections(&self) -> usize {
        SYNAPSE + synapse_operands(self.kind.depth) + level_operands(self.kind.hidden)
    }

    /// What weights and biases of a level are multiplied by.
    fn inverse_temperature(&self, level: usize) -> f64 {
        if self.kind.projected { 1.0 / self.x[self.projections() + 4].data[level] } else { 1.0 }
    }

    /// `row`, and behind it its projection, where there is one: the first or the second.
    fn projected(&self, row: Vec<f64>, which: usize) -> Vec<Vec<f64>> {
        if !self.kind.projected {
            return vec![row];
        }
        let [weight, bias] = [0, 1].map(|part| self.x[self.projections() + 2 * which + part]);
        let sum =
            |n: usize| row.iter().enumerate().map(|(k, v)| v * weight.at(&[n, k])).sum::<f64>();
        let out = (0..row.len()).map(|n| bias.data[n] + sum(n)).collect();
        vec![row, out]
    }

    /// The adjoint of `projected`: the gradient of its row.
    fn projected_adjoint(
        &self,
        row: &[f64],
        which: usize,
        dout: &[f64],
        d: &mut [Array],
    ) -> Vec<f64> {
        if !self.kind.projected {
            return dout.to_vec();
        }
        let at = self.projections() + 2 * which;
        let mut drow = vec![0.0; row.len()];
        for (n, dout) in dout.iter().enumerate() {
            d[at + 1].data[n] += dout;
            for (k, value) in row.iter().enumerate() {
                drow[k] += dout * self.x[at].at(&[n, k]);
                *d[at].at_mut(&[n, k]) += dout * value;
            }
        }
        drow
    }

    fn outputs(&self) -> usize {
        if self.kind.hidden == 0 { 2 } else { 2 * self.kind.hidden }
    }

    /// The channels of a head.
    fn channels(&self) -> usize {
        self.x[0].shape[2] / self.kind.heads
    }

    fn tick(&self, b: usize, before: Option<&Tick>) -> Tick {
        let x = self.x;
        let (neurons, channels, levels) = (self.neurons(), self.channels(), self.levels());
        let (tokens, width, memory) = (x[0].shape[1], x[0].shape[2], x[3].shape[2]);
        let z = before.map_or(self.state(b), |tick| &tick.z);
        let mut recurrence = Vec::new();
        for (p, &(left, right)) in self.pairs.iter().enumerate() {
            let (alpha, beta) = before.map_or((0.0, 0.0), |tick| tick.recurrence[p]);
            let r = x[6].data[p];
            recurrence.push((r * alpha + z[left] * z[right], r * beta + 1.0));
        }
        let synchrony: Vec<f64> = recurrence.iter().map(|(a, b)| a / b.sqrt()).collect();
        let query: Vec<f64> = (0..width)
            .map(|c| {
                let products = synchrony.iter().enumerate().map(|(p, s)| s * x[7].at(&[c, p]));
                x[8].data[c] + products.sum::<f64>()
            })
            .collect();
        let queries = self.projected(query, 0);
        let query = &queries[queries.len() - 1];
        let mut attention = Vec::new();
        let mut joined = vec![0.0; width];
        for head in 0..self.kind.heads {
            let own = head * channels..(head + 1) * channels;
            let score = |l: usize| -> f64 {
                let dot: f64 = own.clone().map(|c| query[c] * x[0].at(&[b, l, c])).sum();
                dot / (channels as f64).sqrt()
            };
            let most = (0..tokens).map(score).fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = (0..tokens).map(|l| (score(l) - most).exp()).collect();
            let total: f64 = powers.iter().sum();
            let weights: Vec<f64> = powers.iter().map(|power| power / total).collect();
            for c in own {
                joined[c] = (0..tokens).map(|l| weights[l] * x[1].at(&[b, l, c])).sum();
            }
            attention.push(weights);
        }
        let attended = self.projected(joined, 1);
        let mut joined = attended[attended.len() - 1].clone();
        joined.extend(z);
        let synapse = Row::new(&x[SYNAPSE..], self.kind.depth, joined);
        let mut traces = Vec::new();
        let (mut h, mut g, mut y, mut states) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for n in 0..neurons {
            let older = |m: usize| before.map_or(x[3].at(&[b, n, m]), |tick| tick.traces[n][m]);
            let mut trace: Vec<f64> = (1..memory).map(older).collect();
            trace.push(synapse.result()[n]);
            let layer: Vec<f64> = (0..self.outputs())
                .map(|o| {
                    let products =
                        trace.iter().enumerate().map(|(m, a)| a * levels[0].at(&[m, o, n]));
                    (levels[1].at(&[o, n]) + products.sum::<f64>()) * self.inverse_temperature(0)
                })
                .collect();
            let gated: Vec<f64> = (0..self.kind.hidden)
                .map(|o| layer[o] * sigmoid(layer[o + self.kind.hidden]))
                .collect();
            let last = if self.kind.hidden == 0 {
                [layer[0], layer[1]]
            } else {
                [0, 1].map(|j| {
                    let products =
                        gated.iter().enumerate().map(|(o, g)| g * levels[2].at(&[o, j, n]));
                    (levels[3].at(&[j, n]) + products.sum::<f64>()) * self.inverse_temperature(1)
                })
            };
            states.push(last[0] * sigmoid(last[1]));
            traces.push(trace);
            h.push(layer);
            g.push(gated);
            y.push(last);
        }
        Tick {
            recurrence,
            synchrony,
            query: queries,
            attention,
            attended,
            synapse,
            traces,
            h,
            g,
            y,
            z: states,
        }
    }

    /// (states, last trace, attended, query, attention, products of the synapse).
    pub(super) fn results(&self) -> Vec<Array> {
        let (batch, neurons, width) = (self.ticks.len(), self.neurons(), self.x[0].shape[2]);
        let ticks = self.count;
        let kept = if self.kind.projected { 2 * width } else { width };
        let unasked = self.projected(self.x[8].data.clone(), 0);
        let products: Vec<Vec<Vec<f64>>> = self
            .ticks
            .iter()
            .map(|ticks| ticks.iter().map(|tick| tick.synapse.products()).collect())
            .collect();
        let bias = |layer: usize| {
            self.x[SYNAPSE
                + 4 * layer.min(self.kind.depth)
                + 6 * layer.saturating_sub(self.kind.depth)
                + 1]
        };
        let columns = (0..2 * self.kind.depth - 1).map(|layer| bias(layer).data.len()).sum();
        let all = |shape: &[usize], value: &dyn Fn(&Tick, &[usize]) -> f64| {
            let shape = [&[batch, ticks], shape].concat();
            Array::from_fn(&shape, |index| value(&self.ticks[index[0]][index[1]], &index[2..]))
        };
        vec![
            all(&[neurons], &|tick, at| tick.z[at[0]]),
            Array::from_fn(&self.x[3].shape, |at| {
                self.ticks[at[0]][ticks - 1].traces[at[1]][at[2]]
            }),
            all(&[kept], &|tick, at| tick.attended[at[0] / width][at[0] % width]),
            // Over one token the query has no effect, and is not formed.
            all(&[kept], &|tick, at| match self.x[0].shape[1] {
                1 => unasked[at[0] / width][at[0] % width],
                _ => tick.query[at[0] / width][at[0] % width],
            }),
            all(&[self.kind.heads, self.x[0].shape[1]], &|tick, at| tick.attention[at[0]][at[1]]),
            Array::from_fn(&[batch, ticks, columns], |at| products[at[0]][at[1]][at[2]]),
        ]
    }

    /// The gradients of the float operands, in order.
    pub(super) fn gradients(&self, dstates: &Array, dtrace: &Array) -> Vec<Array> {
        let operands = self.projections() + if self.kind.projected { PROJECTIONS } else { 0 };
        let mut d: Vec<Array> =
            self.x[..operands].iter().map(|operand| Array::zeros(&operand.shape)).collect();
        for (b, ticks) in self.ticks.iter().enumerate() {
            self.sample(b, ticks, dstates, dtrace, &mut d);
        }
        d.drain(4..6);
        d
    }

    fn sample(&self, b: usize, ticks: &[Tick], dstates: &Array, dtrace: &Array, d: &mut [Array]) {
        let x = self.x;
        let (neurons, memory) = (self.neurons(), x[3].shape[2]);
        // Carried from tick to tick: of the state, of each trace's slots, of α and β.
        let mut dz_next = vec![0.0; neurons];
        let mut dtraces: Vec<Vec<f64>> =
            (0..neurons).map(|n| (0..memory).map(|m| dtrace.at(&[b, n, m])).collect()).collect();
        let mut drecurrence = vec![(0.0, 0.0); self.pairs.len()];
        for (t, tick) in ticks.iter().enumerate().rev() {
            let mut da = vec![0.0; neurons];
            for n in 0..neurons {
                let dz = dz_next[n] + dstates.at(&[b, t, n]);
                let slots = self.neuron(tick, n, dz, d);
                for (slot, more) in dtraces[n].iter_mut().zip(slots) {
                    *slot += more;
                }
                da[n] = dtraces[n].pop().unwrap_or(0.0);
                dtraces[n].insert(0, 0.0);
            }
            // Slot m of this tick was slot m + 1 of the one before.
            let dx = tick.synapse.adjoint(&x[SYNAPSE..], self.kind.depth, da, &mut d[SYNAPSE..]);
            let width = x[0].shape[2];
            dz_next = dx[width..].to_vec();
            let dread = self.projected_adjoint(&tick.attended[0], 1, &dx[..width], d);
            let dsynchrony = self.attention(b, tick, &dread, d);
            let z = if t == 0 { self.state(b) } else { &ticks[t - 1].z };
            for (p, &(left, right)) in self.pairs.iter().enumerate() {
                let (alpha, beta) = tick.recurrence[p];
                let (mut dalpha, mut dbeta) = drecurrence[p];
                dalpha += dsynchrony[p] / beta.sqrt();
                dbeta -= 0.5 * dsynchrony[p] * alpha / beta.powf(1.5);
                let (before_alpha, before_beta) =
                    if t == 0 { (0.0, 0.0) } else { ticks[t - 1].recurrence[p] };
                d[6].data[p] += dalpha * before_alpha + dbeta * before_beta;
                dz_next[left] += dalpha * z[right];
                dz_next[right] += dalpha * z[left];
                drecurrence[p] = (dalpha * x[6].data[p], dbeta * x[6].data[p]);
            }
        }
        for n in 0..neurons {
            *d[2].at_mut(&[b, n]) += dz_next[n];
            for m in 0..memory {
                *d[3].at_mut(&[b, n, m]) += dtraces[n][m];
            }
        }
    }

    /// The model of one neuron: the gradient of its trace.
    fn neuron(&self, tick: &Tick, n: usize, dz: f64, d: &mut [Array]) -> Vec<f64> {
        let levels = self.levels();
        let (level_one, projections) =
            (SYNAPSE + synapse_operands(self.kind.depth), self.projections());
        let inverse = [0, 1].map(|level| {
            if level == 1 && self.kind.hidden == 0 { 1.0 } else { self.inverse_temperature(level) }
        });
        let (mut first, mut second) = gate_gradient(tick.y[n][0], tick.y[n][1], dz);
        let mut dh = vec![first, second];
        if self.kind.hidden > 0 {
            dh = vec![0.0; 2 * self.kind.hidden];
            // y is what it was before the temperature, times its inverse.
            if self.kind.projected {
                let along = first * tick.y[n][0] + second * tick.y[n][1];
                d[projections + 4].data[1] -= along * inverse[1];
            }
            (first, second) = (first * inverse[1], second * inverse[1]);
            let d = &mut d[level_one..];
            for o in 0..self.kind.hidden {
                let mut dg = 0.0;
                for (j, dy) in [first, second].into_iter().enumerate() {
                    dg += dy * levels[2].at(&[o, j, n]);
                    *d[2].at_mut(&[o, j, n]) += dy * tick.g[n][o];
                }
                let h = &tick.h[n];
                (dh[o], dh[o + self.kind.hidden]) =
                    gate_gradient(h[o], h[o + self.kind.hidden], dg);
            }
            for (j, dy) in [first, second].into_iter().enumerate() {
                *d[3].at_mut(&[j, n]) += dy;
            }
        }
        let mut slots = vec![0.0; tick.traces[n].len()];
        if self.kind.projected {
            let along: f64 = dh.iter().zip(&tick.h[n]).map(|(dh, h)| dh * h).sum();
            d[projections + 4].data[0] -= along * inverse[0];
        }
        dh.iter_mut().for_each(|dh| *dh *= inverse[0]);
        let d = &mut d[level_one..];
        for (o, dh) in dh.iter().enumerate() {
            *d[1].at_mut(&[o, n]) += dh;
            for (m, slot) in slots.iter_mut().enumerate() {
                *slot += dh * levels[0].at(&[m, o, n]);
                *d[0].at_mut(&[m, o, n]) += dh * tick.traces[n][m];
            }
        }
        slots
    }

    /// Attention and query: the gradient of the synchronisation.
    fn attention(&self, b: usize, tick: &Tick, dout: &[f64], d: &mut [Array]) -> Vec<f64> {
        let (x, channels) = (self.x, self.channels());
        let query = &tick.query[tick.query.len() - 1];
        let mut dquery = vec![0.0; dout.len()];
        for (head, weights) in tick.attention.iter().enumerate() {
            let own = head * channels..(head + 1) * channels;
            let slope =
                |l: usize| -> f64 { own.clone().map(|c| dout[c] * x[1].at(&[b, l, c])).sum() };
            let mean: f64 = weights.iter().enumerate().map(|(l, w)| w * slope(l)).sum();
            for (l, weight) in weights.iter().enumerate() {
                let dscore = weight * (slope(l) - mean) / (channels as f64).sqrt();
                for c in own.clone() {
                    *d[1].at_mut(&[b, l, c]) += weight * dout[c];
                    *d[0].at_mut(&[b, l, c]) += dscore * query[c];
                    dquery[c] += dscore * x[0].at(&[b, l, c]);
                }
            }
        }
        let dquery = self.projected_adjoint(&tick.query[0], 0, &dquery, d);
        let mut dsynchrony = vec![0.0; tick.synchrony.len()];
        for (c, dquery) in dquery.iter().enumerate() {
            d[8].data[c] += dquery;
            for (p, ds) in dsynchrony.iter_mut().enumerate() {
                *ds += dquery * x[7].at(&[c, p]);
                *d[7].at_mut(&[c, p]) += dquery * tick.synchrony[p];
            }
        }
        dsynchrony
    }
}
