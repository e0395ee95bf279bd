//! Synchronisation of pairs of neurons over time.

use super::Array;
use crate::error::Result;

/// The pairs as indices below `neurons`.
pub(super) fn pairs(
    left: &Array,
    right: &Array,
    neurons: usize,
    op: &'static str,
) -> Result<Vec<(usize, usize)>> {
    (0..left.data.len())
        .map(|p| Ok((left.index_at(p, neurons, op)?, right.index_at(p, neurons, op)?)))
        .collect()
}

/// (start, states, left, right, retention) → α_k/√β_k for k = 0 … T.
pub(super) fn forward(x: &[&Array]) -> Result<Array> {
    let (start, states, retention) = (x[0], x[1], x[4]);
    let (batch, ticks, neurons) = (states.shape[0], states.shape[1], states.shape[2]);
    let pairs = pairs(x[2], x[3], neurons, "synchronisation")?;
    let mut out = Array::zeros(&[batch, ticks + 1, pairs.len()]);
    for b in 0..batch {
        for (p, &pair) in pairs.iter().enumerate() {
            let mut recurrence = (0.0, 0.0);
            for k in 0..=ticks {
                let z =
                    |n: usize| if k == 0 { start.at(&[b, n]) } else { states.at(&[b, k - 1, n]) };
                let r = retention.data[p];
                recurrence = (r * recurrence.0 + z(pair.0) * z(pair.1), r * recurrence.1 + 1.0);
                *out.at_mut(&[b, k, p]) = recurrence.0 / recurrence.1.sqrt();
            }
        }
    }
    Ok(out)
}

/// From the direct form: s_k = Σ_j r^{k−j}·π_j / √Σ_j r^{k−j}.
pub(super) fn gradient(x: &[&Array]) -> Result<Vec<Array>> {
    let (start, states, retention, dout) = (x[0], x[1], x[4], x[5]);
    let (batch, ticks, neurons) = (states.shape[0], states.shape[1], states.shape[2]);
    let pairs = pairs(x[2], x[3], neurons, "synchronisation_gradient")?;
    let mut dstart = Array::zeros(&start.shape);
    let mut dstates = Array::zeros(&states.shape);
    let mut dretention = Array::zeros(&retention.shape);
    for b in 0..batch {
        let z =
            |k: usize, n: usize| if k == 0 { start.at(&[b, n]) } else { states.at(&[b, k - 1, n]) };
        for (p, &(left, right)) in pairs.iter().enumerate() {
            let r = retention.data[p];
            for k in 0..=ticks {
                let d = dout.at(&[b, k, p]);
                let power = |j: usize| r.powi((k - j) as i32);
                let slope = |j: usize| {
                    let e = (k - j) as i32;
                    if e == 0 { 0.0 } else { f64::from(e) * r.powi(e - 1) }
                };
                let total: f64 = (0..=k).map(|j| power(j) * z(j, left) * z(j, right)).sum();
                let norm: f64 = (0..=k).map(power).sum();
                let total_slope: f64 = (0..=k).map(|j| slope(j) * z(j, left) * z(j, right)).sum();
                let norm_slope: f64 = (0..=k).map(slope).sum();
                dretention.data[p] +=
                    d * (total_slope / norm.sqrt() - 0.5 * total * norm_slope / norm.powf(1.5));
                for j in 0..=k {
                    let share = d * power(j) / norm.sqrt();
                    for (n, other) in [(left, right), (right, left)] {
                        let place = if j == 0 {
                            dstart.at_mut(&[b, n])
                        } else {
                            dstates.at_mut(&[b, j - 1, n])
                        };
                        *place += share * z(j, other);
                    }
                }
            }
        }
    }
    Ok(vec![dstart, dstates, dretention])
}
