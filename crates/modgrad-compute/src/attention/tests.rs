use proptest::prelude::*;

use super::*;

const SHAPES: [(usize, usize, usize, usize); 14] = [
    (0, 3, 1, 4),
    (2, 0, 1, 4),
    (1, 3, 0, 4),
    (1, 1, 1, 1),
    (2, 5, 1, 3),
    (1, 7, 3, 8),
    (1, 8, 2, 16),
    (2, 9, 1, 33),
    (1, 31, 2, 32),
    (1, 64, 1, 20),
    (1, 65, 1, 32),
    (2, 130, 1, 17),
    (1, 200, 2, 64),
    (1, 257, 1, 5),
];
const WINDOWS: [Option<usize>; 7] =
    [None, Some(1), Some(2), Some(9), Some(64), Some(65), Some(1000)];

fn shape((batch, time, heads, head_width): (usize, usize, usize, usize)) -> AttentionShape {
    AttentionShape { batch, time, heads, head_width }
}

/// Repeatable values between -1 and 1 (an LCG's high bits).
fn values(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..length).map(|_| next() * 1.5).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Softmax weights of one query, and the logsumexp, in f64.
fn weights(
    s: AttentionShape,
    window: Option<usize>,
    head: usize,
    t: usize,
    q: &[f64],
    k: &[f64],
) -> (usize, Vec<f64>, f64) {
    let from = (t + 1).saturating_sub(window.unwrap_or(usize::MAX));
    let dot = |key: usize| -> f64 {
        (0..s.head_width).map(|d| q[s.offset(head, t) + d] * k[s.offset(head, key) + d]).sum()
    };
    let scores: Vec<f64> = (from..=t).map(|key| dot(key) / (s.head_width as f64).sqrt()).collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    let logsumexp = highest + total.ln();
    (from, scores.iter().map(|score| (score - logsumexp).exp()).collect(), logsumexp)
}

fn naive(
    s: AttentionShape,
    window: Option<usize>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut logsumexp) = (vec![0.0; s.elements()], vec![0.0; s.rows()]);
    for head in 0..s.batch * s.heads {
        for t in 0..s.time {
            let (from, weights, total) = weights(s, window, head, t, q, k);
            logsumexp[s.row(head, t)] = total;
            for (i, weight) in weights.iter().enumerate() {
                for d in 0..s.head_width {
                    out[s.offset(head, t) + d] += weight * v[s.offset(head, from + i) + d];
                }
            }
        }
    }
    (out, logsumexp)
}

/// dq, dk, dv by the chain rule on the formula, in f64.
fn naive_gradient(
    s: AttentionShape,
    window: Option<usize>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    dout: &[f64],
) -> [Vec<f64>; 3] {
    let [mut dq, mut dk, mut dv] = [(); 3].map(|_| vec![0.0; s.elements()]);
    for head in 0..s.batch * s.heads {
        for t in 0..s.time {
            let (from, weights, _) = weights(s, window, head, t, q, k);
            let here = s.offset(head, t);
            let dweights: Vec<f64> = (0..weights.len())
                .map(|i| {
                    let there = s.offset(head, from + i);
                    (0..s.head_width).map(|d| dout[here + d] * v[there + d]).sum()
                })
                .collect();
            let mean: f64 = weights.iter().zip(&dweights).map(|(w, dw)| w * dw).sum();
            for (i, weight) in weights.iter().enumerate() {
                let there = s.offset(head, from + i);
                let dscore = weight * (dweights[i] - mean) / (s.head_width as f64).sqrt();
                for d in 0..s.head_width {
                    dq[here + d] += dscore * k[there + d];
                    dk[there + d] += dscore * q[here + d];
                    dv[there + d] += weight * dout[here + d];
                }
            }
        }
    }
    [dq, dk, dv]
}

fn assert_close(name: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "{name}[{i}]: {found}, expected {expected}"
        );
    }
}

struct Results {
    out: Vec<f32>,
    logsumexp: Vec<f32>,
    gradient: [Vec<f32>; 3],
}

fn compute(
    threads: usize,
    s: AttentionShape,
    window: Option<usize>,
    [q, k, v, dout]: &[Vec<f32>; 4],
) -> Results {
    let pool = Pool::new(threads);
    // Filled with a wrong value: every element must be written.
    let mut out = vec![7.0; s.elements()];
    let mut logsumexp = vec![7.0; s.rows()];
    causal_attention(&pool, s, window, q, k, v, &mut out, &mut logsumexp);
    let [mut dq, mut dk, mut dv] = [(); 3].map(|_| vec![7.0; s.elements()]);
    causal_attention_gradient(
        &pool, s, window, q, k, v, &out, &logsumexp, dout, &mut dq, &mut dk, &mut dv,
    );
    Results { out, logsumexp, gradient: [dq, dk, dv] }
}

fn inputs(s: AttentionShape, seed: u64) -> [Vec<f32>; 4] {
    [1, 2, 3, 4].map(|i| values(s.elements(), seed * 4 + i))
}

fn check(s: AttentionShape, window: Option<usize>, seed: u64) {
    let inputs = inputs(s, seed);
    let [q, k, v, dout] = inputs.each_ref().map(|x| wide(x));
    let found = compute(1, s, window, &inputs);
    let (out, logsumexp) = naive(s, window, &q, &k, &v);
    assert_close("out", &found.out, &out, 3e-6);
    assert_close("logsumexp", &found.logsumexp, &logsumexp, 3e-6);
    let gradient = naive_gradient(s, window, &q, &k, &v, &dout);
    for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
        assert_close(name, &found.gradient[i], &gradient[i], 2e-5);
    }
}

#[test]
fn agrees_with_the_reference() {
    for (seed, sizes) in SHAPES.into_iter().enumerate() {
        for window in WINDOWS {
            check(shape(sizes), window, seed as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees_with_the_reference_anywhere(
        sizes in (1..3usize, 0..150usize, 1..3usize, 1..40usize),
        window in proptest::option::of(1..160usize),
        seed in any::<u32>(),
    ) {
        check(shape(sizes), window, u64::from(seed));
    }
}

/// The reference gradient itself against central differences of the reference.
#[test]
fn the_gradient_is_the_slope() {
    for (sizes, window) in [((1, 5, 2, 3), None), ((2, 6, 1, 2), Some(3))] {
        let s = shape(sizes);
        let [q, k, v, dout] = inputs(s, 9).map(|x| wide(&x));
        let loss = |x: &[Vec<f64>; 3]| -> f64 {
            let (out, _) = naive(s, window, &x[0], &x[1], &x[2]);
            out.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
        };
        let gradient = naive_gradient(s, window, &q, &k, &v, &dout);
        let found = compute(1, s, window, &inputs(s, 9)).gradient;
        let point = [q, k, v];
        for which in 0..3 {
            for i in 0..s.elements() {
                let at = |step: f64| {
                    let mut moved = point.clone();
                    moved[which][i] += step;
                    loss(&moved)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - gradient[which][i]).abs() < 1e-8);
                assert!((slope - f64::from(found[which][i])).abs() < 2e-6);
            }
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn threads_do_not_change_a_bit() {
    for sizes in [(1, 200, 1, 20), (3, 70, 2, 32)] {
        for window in [None, Some(50)] {
            let s = shape(sizes);
            let inputs = inputs(s, 5);
            let one = compute(1, s, window, &inputs);
            for threads in [2, 3] {
                let more = compute(threads, s, window, &inputs);
                assert_eq!(bits(&one.out), bits(&more.out));
                assert_eq!(bits(&one.logsumexp), bits(&more.logsumexp));
                for i in 0..3 {
                    assert_eq!(bits(&one.gradient[i]), bits(&more.gradient[i]));
                }
            }
        }
    }
}

/// Later rows may hold anything, infinities and NaN too, and the window may
/// end anywhere: earlier results stay the same to the last bit.
#[test]
fn nothing_looks_ahead() {
    for window in [None, Some(5), Some(70)] {
        for width in [3, 32] {
            let s = shape((1, 150, 2, width));
            let [q, k, v, dout] = inputs(s, 6);
            let before = compute(2, s, window, &[q.clone(), k.clone(), v.clone(), dout.clone()]);
            for t in [0, 1, 6, 7, 30, 63, 64, 100, 127, 148] {
                let seen = (t + 1) * s.heads * width;
                for poison in [f32::NAN, f32::INFINITY, 1e30, -0.0] {
                    let spoil = |x: &Vec<f32>| {
                        let mut x = x.clone();
                        x[seen..].fill(poison);
                        x
                    };
                    let inputs = [spoil(&q), spoil(&k), spoil(&v), dout.clone()];
                    let after = compute(1, s, window, &inputs);
                    assert_eq!(bits(&before.out[..seen]), bits(&after.out[..seen]));
                    let rows = (t + 1) * s.heads;
                    assert_eq!(bits(&before.logsumexp[..rows]), bits(&after.logsumexp[..rows]));
                }
                let shorter = AttentionShape { time: t + 1, ..s };
                let inputs = [&q, &k, &v, &dout].map(|x| x[..seen].to_vec());
                assert_eq!(
                    bits(&before.out[..seen]),
                    bits(&compute(1, shorter, window, &inputs).out)
                );
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let s = shape((1, 40, 1, 4));
    let [mut q, k, v, dout] = inputs(s, 8);
    q.iter_mut().for_each(|q| *q *= 1e4);
    let found = compute(1, s, None, &[q.clone(), k.clone(), v.clone(), dout]);
    let (out, _) = naive(s, None, &wide(&q), &wide(&k), &wide(&v));
    assert_close("out", &found.out, &out, 1e-2);
    assert!(found.gradient.iter().flatten().all(|x| x.is_finite()));
}

#[test]
#[should_panic(expected = "length of v")]
fn a_wrong_length_is_named() {
    let s = shape((1, 2, 1, 2));
    let (x, mut out, mut logsumexp) = ([0.0; 4], [0.0; 4], [0.0; 2]);
    causal_attention(&Pool::new(1), s, None, &x, &x, &x[..3], &mut out, &mut logsumexp);
}
