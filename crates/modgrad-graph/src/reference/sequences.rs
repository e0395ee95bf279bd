//! Ops along time: rotary embedding, causal convolution, linear recurrence.

use super::{Array, sigmoid};

/// Channels i and i + rotated/2, for i below rotated/2, turn together by
/// t·base^(−2i/rotated); by minus that where `inverse`.
pub(super) fn rope(base: f32, rotated: usize, inverse: bool, x: &Array) -> Array {
    let half = rotated / 2;
    Array::from_fn(&x.shape, |index| {
        let [b, t, h, d] = *index else { unreachable!("the shape rule wants four axes") };
        if d >= rotated {
            return x.at(index);
        }
        let i = d % half;
        let angle = t as f64 * f64::from(base).powf(-2.0 * i as f64 / rotated as f64);
        let (sin, cos) = if inverse { -angle } else { angle }.sin_cos();
        let (first, second) = (x.at(&[b, t, h, i]), x.at(&[b, t, h, i + half]));
        if d < half { first * cos - second * sin } else { first * sin + second * cos }
    })
}

/// y[b, t, c] = Σ_j weight[j, c]·x[b, t − j, c].
pub(super) fn causal_convolution(x: &Array, weight: &Array) -> Array {
    Array::from_fn(&x.shape, |index| {
        let [b, t, c] = *index else { unreachable!("the shape rule wants three axes") };
        (0..weight.shape[0].min(t + 1)).map(|j| weight.at(&[j, c]) * x.at(&[b, t - j, c])).sum()
    })
}

/// dx[b, s, c] = Σ_j weight[j, c]·dy[b, s + j, c],
/// dweight[j, c] = Σ_b Σ_t dy[b, t, c]·x[b, t − j, c].
pub(super) fn causal_convolution_gradient(x: &Array, weight: &Array, dy: &Array) -> Vec<Array> {
    let (batch, time, taps) = (x.shape[0], x.shape[1], weight.shape[0]);
    let dx = Array::from_fn(&x.shape, |index| {
        let [b, s, c] = *index else { unreachable!("the shape rule wants three axes") };
        (0..taps.min(time - s)).map(|j| weight.at(&[j, c]) * dy.at(&[b, s + j, c])).sum()
    });
    let dweight = Array::from_fn(&weight.shape, |index| {
        let [j, c] = *index else { unreachable!("the shape rule wants two axes") };
        let sum_over_time =
            |b| -> f64 { (j..time).map(|t| dy.at(&[b, t, c]) * x.at(&[b, t - j, c])).sum() };
        (0..batch).map(sum_over_time).sum()
    });
    vec![dx, dweight]
}

/// h[t] = a[t]·h[t−1] + b[t], with h[−1] = 0.
pub(super) fn linear_scan(a: &Array, b: &Array) -> Array {
    let mut h = Array::zeros(&a.shape);
    for (window, t, c) in steps(&a.shape) {
        let before = if t == 0 { 0.0 } else { h.at(&[window, t - 1, c]) };
        *h.at_mut(&[window, t, c]) = a.at(&[window, t, c]) * before + b.at(&[window, t, c]);
    }
    h
}

/// db[t] = dh[t] + a[t+1]·db[t+1], da[t] = db[t]·h[t−1].
pub(super) fn linear_scan_gradient(a: &Array, h: &Array, dh: &Array) -> Vec<Array> {
    let mut da = Array::zeros(&a.shape);
    let mut db = Array::zeros(&a.shape);
    for (window, t, c) in steps(&a.shape).into_iter().rev() {
        let mut total = dh.at(&[window, t, c]);
        if t + 1 < a.shape[1] {
            total += a.at(&[window, t + 1, c]) * db.at(&[window, t + 1, c]);
        }
        *db.at_mut(&[window, t, c]) = total;
        let before = if t == 0 { 0.0 } else { h.at(&[window, t - 1, c]) };
        *da.at_mut(&[window, t, c]) = total * before;
    }
    vec![da, db]
}

/// A minGRU (arXiv 2410.01201) with a gate on its output.
pub(super) fn gated_recurrence(x: &Array, retention: &Array) -> Array {
    let (h, open) = (states(x, retention), part(x, 2));
    Array::from_fn(&h.shape, |index| h.at(index) * open.at(index) * sigmoid(open.at(index)))
}

/// With g = silu(gate) and D[t] = dy[t]·g[t] + a[t+1]·D[t+1], the whole gradient of h[t]:
/// dvalue = (1 − a)·D, dretain = a·(1 − a)·(h[t−1] − value)·D, dgate = dy·h·silu′(gate),
/// and dretention = Σ dretain over windows and time.
pub(super) fn gated_recurrence_gradient(x: &Array, retention: &Array, dy: &Array) -> Vec<Array> {
    let h = states(x, retention);
    let [retain, value, gate] = [0, 1, 2].map(|index| part(x, index));
    let (mut dx, mut dretention) = (Array::zeros(&x.shape), Array::zeros(&retention.shape));
    let mut carried = Array::zeros(&h.shape);
    let channels = h.shape[2];
    for (window, t, c) in steps(&h.shape).into_iter().rev() {
        let at = [window, t, c];
        let (a, s) = (sigmoid(retain.at(&at) + retention.at(&[c])), sigmoid(gate.at(&at)));
        let later = if t + 1 < h.shape[1] { carried.at(&[window, t + 1, c]) } else { 0.0 };
        let whole = dy.at(&at) * gate.at(&at) * s + later;
        let before = if t == 0 { 0.0 } else { h.at(&[window, t - 1, c]) };
        let dretain = a * (1.0 - a) * (before - value.at(&at)) * whole;
        *carried.at_mut(&at) = a * whole;
        *dx.at_mut(&at) = dretain;
        *dx.at_mut(&[window, t, channels + c]) = (1.0 - a) * whole;
        *dx.at_mut(&[window, t, 2 * channels + c]) =
            dy.at(&at) * h.at(&at) * (s + gate.at(&at) * s * (1.0 - s));
        *dretention.at_mut(&[c]) += dretain;
    }
    vec![dx, dretention]
}

/// h[t] = a·h[t−1] + (1 − a)·value, a = σ(retain + retention).
fn states(x: &Array, retention: &Array) -> Array {
    let (retain, value) = (part(x, 0), part(x, 1));
    let keep = |index: &[usize]| sigmoid(retain.at(index) + retention.at(&[index[2]]));
    let a = Array::from_fn(&retain.shape, keep);
    let b = Array::from_fn(&retain.shape, |index| (1.0 - keep(index)) * value.at(index));
    linear_scan(&a, &b)
}

/// A third of the channels of x [B, T, 3C].
fn part(x: &Array, index: usize) -> Array {
    let channels = x.shape[2] / 3;
    Array::from_fn(&[x.shape[0], x.shape[1], channels], |at| {
        x.at(&[at[0], at[1], index * channels + at[2]])
    })
}

/// Every (window, time, channel), times of a window in order.
fn steps(shape: &[usize]) -> Vec<(usize, usize, usize)> {
    let mut steps = Vec::new();
    for window in 0..shape[0] {
        for t in 0..shape[1] {
            steps.extend((0..shape[2]).map(|c| (window, t, c)));
        }
    }
    steps
}
