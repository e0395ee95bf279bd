//! Synchronisation: how pairs of neurons move together over time (section 3.4
//! of the paper), as a recurrence with learned decay.
//!
//! With π_k = z_k[left]·z_k[right] for states z_0 … z_T and retention r,
//!
//! α_k = r·α_{k−1} + π_k, β_k = r·β_{k−1} + 1, s_k = α_k / √β_k, α_0 = π_0, β_0 = 1.
//!
//! Axes: B samples, T ticks, N neurons, S pairs.

use modgrad_compute::Pool;
use modgrad_compute::pool::SharedMut;

use crate::check;

/// The sizes of a synchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// T; there is a state more than ticks, that before the first.
    pub ticks: usize,
    /// N.
    pub neurons: usize,
    /// S.
    pub pairs: usize,
}

/// 1/√β_k and β_k for k = 0 … T: `[T + 1][S]`, the same for every sample.
pub(crate) struct Norms {
    pub(crate) beta: Vec<f32>,
    pub(crate) inverse_root: Vec<f32>,
}

impl Norms {
    pub(crate) fn new(retention: &[f32], ticks: usize) -> Norms {
        let pairs = retention.len();
        let mut beta = vec![1.0f32; (ticks + 1) * pairs];
        for k in 1..=ticks {
            for s in 0..pairs {
                beta[k * pairs + s] = retention[s] * beta[(k - 1) * pairs + s] + 1.0;
            }
        }
        let inverse_root = beta.iter().map(|beta| 1.0 / beta.sqrt()).collect();
        Norms { beta, inverse_root }
    }
}

/// (start [B,N], states [B,T,N], pairs, retention [S]) → s_0 … s_T [B,T+1,S].
///
/// Panics when the lengths disagree or a pair names no neuron.
pub fn synchronisation(
    pool: &Pool,
    shape: Shape,
    start: &[f32],
    states: &[f32],
    left: &[i32],
    right: &[i32],
    retention: &[f32],
    out: &mut [f32],
) {
    let Shape { batch, ticks, neurons, pairs } = shape;
    check(
        "synchronisation",
        &[
            ("start", start.len(), batch * neurons),
            ("states", states.len(), batch * ticks * neurons),
            ("left", left.len(), pairs),
            ("right", right.len(), pairs),
            ("retention", retention.len(), pairs),
            ("out", out.len(), batch * (ticks + 1) * pairs),
        ],
    );
    let norms = Norms::new(retention, ticks);
    pool.for_rows(out, (ticks + 1) * pairs, 1, |first, out| {
        let mut alpha = vec![0.0f32; pairs];
        for (offset, out) in out.chunks_mut((ticks + 1) * pairs).enumerate() {
            let start = &start[(first + offset) * neurons..][..neurons];
            let states = &states[(first + offset) * ticks * neurons..][..ticks * neurons];
            alpha.fill(0.0);
            for (k, out) in out.chunks_mut(pairs).enumerate() {
                let z = state(start, states, neurons, k);
                step(&mut alpha, retention, z, left, right);
                let root = &norms.inverse_root[k * pairs..][..pairs];
                for ((out, alpha), root) in out.iter_mut().zip(&alpha).zip(root) {
                    *out = alpha * root;
                }
            }
        }
    });
}

/// State k of a sample: that before the first tick, then those after each.
pub(crate) fn state<'a>(
    start: &'a [f32],
    states: &'a [f32],
    neurons: usize,
    k: usize,
) -> &'a [f32] {
    if k == 0 { start } else { &states[(k - 1) * neurons..][..neurons] }
}

/// α ← r·α + π(z).
#[inline(always)]
pub(crate) fn step(alpha: &mut [f32], retention: &[f32], z: &[f32], left: &[i32], right: &[i32]) {
    let pairs = left.iter().zip(right);
    for ((alpha, retention), (&left, &right)) in alpha.iter_mut().zip(retention).zip(pairs) {
        *alpha = retention * *alpha + z[left as usize] * z[right as usize];
    }
}

/// The exact adjoint of [`synchronisation`]: (dstart [B,N], dstates [B,T,N],
/// dretention [S]) from dout [B,T+1,S].
pub fn synchronisation_gradient(
    pool: &Pool,
    shape: Shape,
    start: &[f32],
    states: &[f32],
    left: &[i32],
    right: &[i32],
    retention: &[f32],
    dout: &[f32],
    dstart: &mut [f32],
    dstates: &mut [f32],
    dretention: &mut [f32],
) {
    let Shape { batch, ticks, neurons, pairs } = shape;
    check(
        "synchronisation_gradient",
        &[
            ("dout", dout.len(), batch * (ticks + 1) * pairs),
            ("dstart", dstart.len(), batch * neurons),
            ("dstates", dstates.len(), batch * ticks * neurons),
            ("dretention", dretention.len(), pairs),
        ],
    );
    let norms = Norms::new(retention, ticks);
    // Each sample's share, added up in order afterwards: threads change nothing.
    let mut retentions = vec![0.0f32; batch * pairs];
    {
        let (starts, retentions) = (SharedMut::new(dstart), SharedMut::new(&mut retentions));
        let dstates = SharedMut::new(dstates);
        pool.for_ranges(batch, 1, |samples| {
            for sample in samples {
                // SAFETY: a sample's own stretch.
                let (dstates, dstart, dretention) = unsafe {
                    (
                        dstates.slice(sample * ticks * neurons..(sample + 1) * ticks * neurons),
                        starts.slice(sample * neurons..(sample + 1) * neurons),
                        retentions.slice(sample * pairs..(sample + 1) * pairs),
                    )
                };
                dstart.fill(0.0);
                dstates.fill(0.0);
                let start = &start[sample * neurons..][..neurons];
                let states = &states[sample * ticks * neurons..][..ticks * neurons];
                let dout = &dout[sample * (ticks + 1) * pairs..][..(ticks + 1) * pairs];
                let pairs = Pairs { left, right, retention, norms: &norms };
                let mut adjoint = Adjoint::new(&pairs, start, states, neurons, ticks);
                for k in (0..=ticks).rev() {
                    let dz = if k == 0 {
                        &mut *dstart
                    } else {
                        &mut dstates[(k - 1) * neurons..][..neurons]
                    };
                    let z = state(start, states, neurons, k);
                    adjoint.step(k, &dout[k * pairs.left.len()..], z, dz);
                }
                dretention.copy_from_slice(&adjoint.dretention);
            }
        });
    }
    sum_rows(&retentions, dretention);
}

/// out = the sum of the rows of `rows`, in order.
pub(crate) fn sum_rows(rows: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    if out.is_empty() {
        return;
    }
    for row in rows.chunks(out.len()) {
        for (out, value) in out.iter_mut().zip(row) {
            *out += value;
        }
    }
}

/// What the recurrence of some pairs needs.
pub(crate) struct Pairs<'a> {
    pub(crate) left: &'a [i32],
    pub(crate) right: &'a [i32],
    pub(crate) retention: &'a [f32],
    pub(crate) norms: &'a Norms,
}

/// The recurrence of one sample, run backwards.
pub(crate) struct Adjoint<'a> {
    pairs: &'a Pairs<'a>,
    /// α_0 … α_T.
    alphas: Vec<f32>,
    dalpha: Vec<f32>,
    dbeta: Vec<f32>,
    pub(crate) dretention: Vec<f32>,
}

impl<'a> Adjoint<'a> {
    pub(crate) fn new(
        pairs: &'a Pairs<'a>,
        start: &[f32],
        states: &[f32],
        neurons: usize,
        ticks: usize,
    ) -> Self {
        let count = pairs.left.len();
        let mut alphas = vec![0.0f32; (ticks + 1) * count];
        for k in 0..=ticks {
            if k > 0 {
                alphas.copy_within((k - 1) * count..k * count, k * count);
            }
            let z = state(start, states, neurons, k);
            let alpha = &mut alphas[k * count..][..count];
            step(alpha, pairs.retention, z, pairs.left, pairs.right);
        }
        Adjoint {
            pairs,
            alphas,
            dalpha: vec![0.0; count],
            dbeta: vec![0.0; count],
            dretention: vec![0.0; count],
        }
    }

    /// Takes s_k's gradient in and adds what follows for z_k to `dz`. Steps go from
    /// the last k down to 0, without leaving one out.
    pub(crate) fn step(&mut self, k: usize, dout: &[f32], z: &[f32], dz: &mut [f32]) {
        let count = self.pairs.left.len();
        let at = k * count;
        for (s, &dout) in dout.iter().enumerate().take(count) {
            let retention = self.pairs.retention[s];
            let root = self.pairs.norms.inverse_root[at + s];
            let alpha = self.alphas[at + s];
            let dalpha = dout * root + retention * self.dalpha[s];
            let dbeta = -0.5 * dout * alpha * root * root * root + retention * self.dbeta[s];
            if k > 0 {
                self.dretention[s] += dalpha * self.alphas[at - count + s]
                    + dbeta * self.pairs.norms.beta[at - count + s];
            }
            let (left, right) = (self.pairs.left[s] as usize, self.pairs.right[s] as usize);
            dz[left] += dalpha * z[right];
            dz[right] += dalpha * z[left];
            (self.dalpha[s], self.dbeta[s]) = (dalpha, dbeta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(retention: f32, ticks: usize) -> (Vec<f32>, Vec<f32>) {
        let (start, left, right) = ([0.5f32, -1.0, 2.0], [0, 1], [2, 1]);
        let shape = Shape { batch: 1, ticks, neurons: 3, pairs: 2 };
        let states: Vec<f32> = (0..ticks * 3).map(|i| ((i * 37) % 11) as f32 / 7.0 - 0.6).collect();
        let mut out = vec![0.0; (ticks + 1) * 2];
        let pool = Pool::new(1);
        synchronisation(&pool, shape, &start, &states, &left, &right, &[retention; 2], &mut out);
        let products = (0..=ticks)
            .flat_map(|k| {
                let z = state(&start, &states, 3, k);
                [z[0] * z[2], z[1] * z[1]]
            })
            .collect();
        (out, products)
    }

    #[test]
    fn the_recurrence_is_the_weighted_sum_that_it_stands_for() {
        for retention in [1e-6f32, 0.37, 1.0] {
            let (out, products) = run(retention, 9);
            for k in 0..=9 {
                for pair in 0..2 {
                    let weight = |j: usize| f64::from(retention).powi((k - j) as i32);
                    let sum: f64 =
                        (0..=k).map(|j| weight(j) * f64::from(products[j * 2 + pair])).sum();
                    let norm: f64 = (0..=k).map(weight).sum();
                    let expected = sum / norm.sqrt();
                    assert!((f64::from(out[k * 2 + pair]) - expected).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn the_first_value_is_the_product_and_without_retention_every_one_is() {
        let (out, products) = run(0.0, 6);
        assert_eq!(out, products);
        assert_eq!(run(0.7, 3).0[..2], products[..2]);
    }

    #[test]
    fn gradients_agree_with_differences() {
        let shape = Shape { batch: 3, ticks: 4, neurons: 5, pairs: 4 };
        let (left, right) = ([0, 1, 4, 2], [3, 1, 0, 2]);
        let value = |i: usize| ((i * 7919) % 31) as f32 / 31.0 - 0.45;
        let start: Vec<f32> = (0..15).map(value).collect();
        let states: Vec<f32> = (15..75).map(value).collect();
        let retention = [0.2f32, 0.9, 1.0, 0.5];
        let dout: Vec<f32> = (0..60).map(|i| value(i * 3 + 1)).collect();
        let pool = Pool::new(2);
        let loss = |start: &[f32], states: &[f32], retention: &[f32]| -> f64 {
            let mut out = vec![0.0; 60];
            synchronisation(&pool, shape, start, states, &left, &right, retention, &mut out);
            out.iter().zip(&dout).map(|(s, d)| f64::from(*s) * f64::from(*d)).sum()
        };
        let (mut dstart, mut dstates, mut dretention) =
            (vec![0.0; 15], vec![0.0; 60], vec![0.0; 4]);
        synchronisation_gradient(
            &pool,
            shape,
            &start,
            &states,
            &left,
            &right,
            &retention,
            &dout,
            &mut dstart,
            &mut dstates,
            &mut dretention,
        );
        const STEP: f32 = 1e-2;
        let moved = |values: &[f32], at: usize, by: f32| {
            let mut moved = values.to_vec();
            moved[at] += by;
            moved
        };
        let close = |found: f32, up: f64, down: f64| {
            let expected = (up - down) / (2.0 * f64::from(STEP));
            assert!((f64::from(found) - expected).abs() < 2e-3, "{found} {expected}");
        };
        for (at, &found) in dstart.iter().enumerate() {
            let by = |by| loss(&moved(&start, at, by), &states, &retention);
            close(found, by(STEP), by(-STEP));
        }
        for (at, &found) in dstates.iter().enumerate() {
            let by = |by| loss(&start, &moved(&states, at, by), &retention);
            close(found, by(STEP), by(-STEP));
        }
        for (at, &found) in dretention.iter().enumerate() {
            let by = |by| loss(&start, &states, &moved(&retention, at, by));
            close(found, by(STEP), by(-STEP));
        }
    }
}
