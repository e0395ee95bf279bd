//! The loops against the equations in plain f64, and their gradients against
//! finite differences of those.

#![allow(clippy::needless_range_loop)] // Indices as in the equations.

use super::*;

/// A thought in f64, as the equations are written; operands in one list.
#[derive(Clone)]
struct Plain {
    shape: Shape,
    left: Vec<i32>,
    right: Vec<i32>,
    /// In the order of NAMES.
    tensors: Vec<Vec<f64>>,
}

const NAMES: [&str; 15] = [
    "keys",
    "values",
    "state",
    "trace",
    "retention",
    "query_weight",
    "query_bias",
    "synapse_weight",
    "synapse_bias",
    "norm_weight",
    "norm_bias",
    "level1_weight",
    "level1_bias",
    "level2_weight",
    "level2_bias",
];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Plain {
    fn new(shape: Shape, seed: u64) -> Plain {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let Shape { batch, neurons, width, tokens, memory, hidden, pairs, .. } = shape;
        let outputs = shape.outputs();
        let sizes = [
            batch * tokens * width,
            batch * tokens * width,
            batch * neurons,
            batch * neurons * memory,
            pairs,
            pairs * width,
            width,
            (width + neurons) * 2 * neurons,
            2 * neurons,
            neurons,
            neurons,
            memory * outputs * neurons,
            outputs * neurons,
            hidden * 2 * neurons,
            if hidden == 0 { 0 } else { 2 * neurons },
        ];
        let tensors = sizes
            .iter()
            .enumerate()
            .map(|(index, &size)| {
                (0..size)
                    .map(|_| match index {
                        4 => 0.2 + 0.7 * next(), // retention
                        9 => 0.5 + next(),       // the norm's weight
                        _ => f64::from((1.6 * next() - 0.8) as f32),
                    })
                    .map(|value| f64::from(value as f32))
                    .collect()
            })
            .collect();
        let index = |value: f64| ((value * neurons as f64) as usize).min(neurons - 1) as i32;
        let mut pairs_of = |_| (0..pairs).map(|_| index(next())).collect::<Vec<_>>();
        let (mut left, right) = (pairs_of(0), pairs_of(1));
        if pairs > 0 {
            left[0] = right[0]; // a neuron with itself
        }
        Plain { shape, left, right, tensors }
    }

    /// z_1 … z_T [B, T, D] and the last trace [B, D, M].
    fn results(&self) -> (Vec<f64>, Vec<f64>) {
        let Shape { batch, ticks, neurons, width, tokens, heads, memory, hidden, pairs } =
            self.shape;
        let outputs = self.shape.outputs();
        let [keys, values, start, trace0, retention, wq, bq, ws, bs, gamma, beta, w1, b1, w2, b2] =
            std::array::from_fn::<_, 15, _>(|index| &self.tensors[index]);
        let (mut all, mut last) = (Vec::new(), Vec::new());
        for b in 0..batch {
            let mut z = start[b * neurons..][..neurons].to_vec();
            let mut trace: Vec<Vec<f64>> = (0..neurons)
                .map(|n| trace0[(b * neurons + n) * memory..][..memory].to_vec())
                .collect();
            let (mut alpha, mut norm) = (vec![0.0; pairs], vec![0.0; pairs]);
            for _ in 0..ticks {
                let mut s = vec![0.0; pairs];
                for p in 0..pairs {
                    let pi = z[self.left[p] as usize] * z[self.right[p] as usize];
                    alpha[p] = retention[p] * alpha[p] + pi;
                    norm[p] = retention[p] * norm[p] + 1.0;
                    s[p] = alpha[p] / f64::sqrt(norm[p]);
                }
                let query: Vec<f64> = (0..width)
                    .map(|c| bq[c] + (0..pairs).map(|p| s[p] * wq[p * width + c]).sum::<f64>())
                    .collect();
                let mut x = vec![0.0; width];
                let channels = width / heads;
                for head in 0..heads {
                    let of_head = head * channels..(head + 1) * channels;
                    let at = |l: usize, c: usize| (b * tokens + l) * width + c;
                    let scores: Vec<f64> = (0..tokens)
                        .map(|l| {
                            let dot: f64 = of_head.clone().map(|c| query[c] * keys[at(l, c)]).sum();
                            (dot / (channels as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = scores.iter().sum();
                    for c in of_head {
                        x[c] = (0..tokens).map(|l| scores[l] / total * values[at(l, c)]).sum();
                    }
                }
                x.extend(&z);
                let u: Vec<f64> = (0..2 * neurons)
                    .map(|n| {
                        let products =
                            x.iter().enumerate().map(|(k, x)| x * ws[k * 2 * neurons + n]);
                        bs[n] + products.sum::<f64>()
                    })
                    .collect();
                let v: Vec<f64> = (0..neurons).map(|n| u[n] * sigmoid(u[neurons + n])).collect();
                let mean = v.iter().sum::<f64>() / neurons as f64;
                let variance = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / neurons as f64;
                for n in 0..neurons {
                    let normal = (v[n] - mean) / (variance + f64::from(EPSILON)).sqrt();
                    trace[n].remove(0);
                    trace[n].push(normal * gamma[n] + beta[n]);
                    let h = |o: usize| -> f64 {
                        let products =
                            (0..memory).map(|m| trace[n][m] * w1[(m * outputs + o) * neurons + n]);
                        b1[o * neurons + n] + products.sum::<f64>()
                    };
                    z[n] = if hidden == 0 {
                        h(0) * sigmoid(h(1))
                    } else {
                        let g: Vec<f64> =
                            (0..hidden).map(|o| h(o) * sigmoid(h(o + hidden))).collect();
                        let y = |j: usize| -> f64 {
                            let products =
                                (0..hidden).map(|o| g[o] * w2[(o * 2 + j) * neurons + n]);
                            b2[j * neurons + n] + products.sum::<f64>()
                        };
                        y(0) * sigmoid(y(1))
                    };
                }
                all.extend(&z);
            }
            last.extend(trace.into_iter().flatten());
        }
        (all, last)
    }

    fn narrow(&self) -> Vec<Vec<f32>> {
        self.tensors.iter().map(|t| t.iter().map(|&x| x as f32).collect()).collect()
    }
}

fn inputs(narrow: &[Vec<f32>]) -> Inputs<'_> {
    Inputs { keys: &narrow[0], values: &narrow[1], state: &narrow[2], trace: &narrow[3] }
}

fn weights<'a>(plain: &'a Plain, narrow: &'a [Vec<f32>]) -> Weights<'a> {
    Weights {
        left: &plain.left,
        right: &plain.right,
        retention: &narrow[4],
        query_weight: &narrow[5],
        query_bias: &narrow[6],
        synapse_weight: &narrow[7],
        synapse_bias: &narrow[8],
        norm_weight: &narrow[9],
        norm_bias: &narrow[10],
        level1_weight: &narrow[11],
        level1_bias: &narrow[12],
        level2_weight: &narrow[13],
        level2_bias: &narrow[14],
    }
}

/// (states, last trace, attended, synapse, hidden).
fn forward(pool: &Pool, plain: &Plain) -> [Vec<f32>; 5] {
    let shape = plain.shape;
    let rows = shape.batch * shape.ticks;
    let narrow = plain.narrow();
    let mut states = vec![0.0; rows * shape.neurons];
    let mut trace = vec![0.0; shape.batch * shape.neurons * shape.memory];
    let mut attended = vec![0.0; rows * shape.width];
    let mut synapse = vec![0.0; rows * 2 * shape.neurons];
    let mut hidden = vec![0.0; rows * shape.outputs() * shape.neurons];
    let saved = Saved {
        states: &mut states,
        trace: &mut trace,
        attended: &mut attended,
        synapse: &mut synapse,
        hidden: &mut hidden,
    };
    think(pool, shape, inputs(&narrow), &weights(plain, &narrow), saved);
    [states, trace, attended, synapse, hidden]
}

/// The gradients of Σ upstream·(states, then last trace).
fn backward(pool: &Pool, plain: &Plain, saved: &[Vec<f32>; 5], upstream: &[f32]) -> Vec<Vec<f32>> {
    let narrow = plain.narrow();
    let mut found: Vec<Vec<f32>> = narrow.iter().map(|t| vec![f32::NAN; t.len()]).collect();
    let gradients = Gradients::from_parts(found.iter_mut().map(Vec::as_mut_slice));
    let [states, _, attended, synapse, hidden] = saved;
    let read = Read { states, attended, synapse, hidden };
    let weights = weights(plain, &narrow);
    let (states, trace) = upstream.split_at(states.len());
    let upstream = Upstream { states, trace };
    think_gradient(pool, plain.shape, inputs(&narrow), &weights, read, upstream, gradients);
    found
}

/// More ticks than memory, fewer, one; shallow and deep; odd sizes and one sample.
fn shapes() -> Vec<Shape> {
    let base = Shape {
        batch: 5,
        ticks: 5,
        neurons: 6,
        width: 4,
        tokens: 4,
        heads: 2,
        memory: 3,
        hidden: 2,
        pairs: 5,
    };
    vec![
        base,
        Shape { hidden: 0, ..base },
        Shape { ticks: 2, memory: 4, batch: 1, ..base },
        Shape { ticks: 1, memory: 1, heads: 1, tokens: 1, ..base },
        Shape { neurons: 17, width: 18, heads: 3, batch: 2, hidden: 5, ..base },
        Shape { neurons: 1, pairs: 1, batch: 4, ..base },
        Shape { pairs: 0, ..base },
        Shape { tokens: 1, ..base },
        Shape { batch: 0, ..base },
    ]
}

#[test]
fn states_are_those_of_the_equations() {
    let pool = Pool::new(2);
    for shape in shapes() {
        let plain = Plain::new(shape, 3);
        let [states, trace, ..] = forward(&pool, &plain);
        let (expected, last) = plain.results();
        let expected = expected.iter().chain(&last);
        for (at, (found, expected)) in states.iter().chain(&trace).zip(expected).enumerate() {
            assert!(
                (f64::from(*found) - expected).abs() < 2e-5,
                "{shape:?} {at}: {found} {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let pool = Pool::new(2);
    for shape in shapes() {
        let plain = Plain::new(shape, 4);
        let saved = forward(&pool, &plain);
        let upstream: Vec<f32> = (0..saved[0].len() + saved[1].len())
            .map(|i| ((i * 7919) % 23) as f32 / 23.0 - 0.4)
            .collect();
        let loss = |plain: &Plain| -> f64 {
            let (states, trace) = plain.results();
            let found = states.iter().chain(&trace);
            found.zip(&upstream).map(|(z, d)| z * f64::from(*d)).sum()
        };
        let found = backward(&pool, &plain, &saved, &upstream);
        for (tensor, name) in NAMES.iter().enumerate() {
            let count = plain.tensors[tensor].len();
            for at in (0..count).step_by(count.div_ceil(25).max(1)) {
                let moved = |by: f64| {
                    let mut moved = plain.clone();
                    moved.tensors[tensor][at] += by;
                    loss(&moved)
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let error = (f64::from(found[tensor][at]) - expected).abs();
                let given = found[tensor][at];
                assert!(
                    error < 2e-4 * (1.0 + expected.abs()),
                    "{name}[{at}] of {shape:?}: {given}, differences say {expected}"
                );
            }
        }
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let shape = Shape {
        batch: 7,
        ticks: 6,
        neurons: 33,
        width: 20,
        tokens: 9,
        heads: 2,
        memory: 4,
        hidden: 3,
        pairs: 8,
    };
    let plain = Plain::new(shape, 5);
    let one = forward(&Pool::new(1), &plain);
    let upstream = vec![0.3f32; one[0].len() + one[1].len()];
    let gradients = backward(&Pool::new(1), &plain, &one, &upstream);
    for threads in [2, 3] {
        let pool = Pool::new(threads);
        let saved = forward(&pool, &plain);
        assert_eq!(saved, one);
        assert_eq!(backward(&pool, &plain, &saved, &upstream), gradients);
    }
    // A sample alone has the states that it has among others.
    for sample in [0, 3, 4, 6] {
        let mut alone = plain.clone();
        alone.shape.batch = 1;
        let tokens = shape.tokens * shape.width;
        let sizes = [tokens, tokens, shape.neurons, shape.neurons * shape.memory];
        for (tensor, size) in sizes.into_iter().enumerate() {
            alone.tensors[tensor] = plain.tensors[tensor][sample * size..][..size].to_vec();
        }
        let size = shape.ticks * shape.neurons;
        let states = &forward(&Pool::new(1), &alone)[0];
        assert_eq!(states[..], one[0][sample * size..][..size]);
    }
}

/// With one token the softmax is 1 whatever the query, so nothing reaches it.
#[test]
fn a_single_token_leaves_the_query_without_effect() {
    let shape = Shape { tokens: 1, ..shapes()[0] };
    let plain = Plain::new(shape, 6);
    let pool = Pool::new(1);
    let saved = forward(&pool, &plain);
    let found = backward(&pool, &plain, &saved, &vec![1.0; saved[0].len() + saved[1].len()]);
    for name in ["keys", "query_weight", "query_bias"] {
        let index = NAMES.iter().position(|one| *one == name).unwrap();
        assert!(found[index].iter().all(|d| d.abs() < 1e-6), "{name}");
    }
}
