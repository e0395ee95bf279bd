//! Causal attention over a sliding window.

use super::Array;
use super::gates::logsumexp;

/// The positions that `t` attends to: the `window` latest, its own included.
fn visible(t: usize, window: Option<usize>) -> std::ops::RangeInclusive<usize> {
    window.map_or(0, |window| (t + 1).saturating_sub(window))..=t
}

/// Row [b, t, h] of [B, T, H, D] or the element there of [B, T, H].
fn place(shape: &[usize], b: usize, t: usize, h: usize) -> usize {
    (b * shape[1] + t) * shape[2] + h
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn add_scaled(sum: &mut [f64], scale: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += scale * x);
}

/// Calls `each(b, t, h)` for every query.
fn for_queries(shape: &[usize], mut each: impl FnMut(usize, usize, usize)) {
    for b in 0..shape[0] {
        for t in 0..shape[1] {
            for h in 0..shape[2] {
                each(b, t, h);
            }
        }
    }
}

/// out[t] = Σ_s softmax_s(q[t]·k[s]/√D)·v[s]; also returns the logsumexp of
/// the scores.
pub(super) fn causal_attention(
    window: Option<usize>,
    q: &Array,
    k: &Array,
    v: &Array,
) -> Vec<Array> {
    let scale = 1.0 / (q.width() as f64).sqrt();
    let mut out = Array::zeros(&q.shape);
    let mut sums = Array::zeros(q.leading());
    for_queries(&q.shape, |b, t, h| {
        let query = place(&q.shape, b, t, h);
        let keys: Vec<usize> = visible(t, window).map(|s| place(&q.shape, b, s, h)).collect();
        let scores: Vec<f64> =
            keys.iter().map(|&key| scale * dot(q.row(query), k.row(key))).collect();
        sums.data[query] = logsumexp(&scores);
        for (&key, score) in keys.iter().zip(scores) {
            add_scaled(out.row_mut(query), (score - sums.data[query]).exp(), v.row(key));
        }
    });
    vec![out, sums]
}

/// (q, k, v, out, logsumexp, dout) → (dq, dk, dv). With p the weight of a key
/// and s its score: dv += p·dout, ds = p·(dout·v − dout·out),
/// dq += ds·k/√D, dk += ds·q/√D.
pub(super) fn causal_attention_gradient(window: Option<usize>, inputs: &[&Array]) -> Vec<Array> {
    let [q, k, v, out, sums, dout] = inputs else { unreachable!("the shape rule counts six") };
    let scale = 1.0 / (q.width() as f64).sqrt();
    let (mut dq, mut dk, mut dv) =
        (Array::zeros(&q.shape), Array::zeros(&q.shape), Array::zeros(&q.shape));
    for_queries(&q.shape, |b, t, h| {
        let query = place(&q.shape, b, t, h);
        let through_out = dot(dout.row(query), out.row(query));
        for s in visible(t, window) {
            let key = place(&q.shape, b, s, h);
            let p = (scale * dot(q.row(query), k.row(key)) - sums.data[query]).exp();
            let ds = p * (dot(dout.row(query), v.row(key)) - through_out);
            add_scaled(dv.row_mut(key), p, dout.row(query));
            add_scaled(dq.row_mut(query), ds * scale, k.row(key));
            add_scaled(dk.row_mut(key), ds * scale, q.row(query));
        }
    });
    vec![dq, dk, dv]
}
