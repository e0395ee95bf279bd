//! The loops against the equations in plain f64, and their gradients against
//! finite differences of those.

#![allow(clippy::needless_range_loop)] // Indices as in the equations.

use super::*;

/// A thought in f64, as the equations are written; operands in one list.
#[derive(Clone)]
struct Plain {
    shape: Shape,
    /// Empty: one layer with a gate.
    below: Widths,
    left: Vec<i32>,
    right: Vec<i32>,
    /// In the order of NAMES.
    tensors: Vec<Vec<f64>>,
}

/// The operands, but for those of the synapse, which follow.
const NAMES: [&str; 16] = [
    "keys",
    "values",
    "state",
    "trace",
    "retention",
    "query_weight",
    "query_bias",
    "level1_weight",
    "level1_bias",
    "level2_weight",
    "level2_bias",
    "the query's projection",
    "the query's projection's bias",
    "the reading's projection",
    "the reading's projection's bias",
    "temperatures",
];

/// The widths of a synapse: those downwards, the first the neurons'.
type Widths = &'static [usize];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// x·w + b, w [inputs, columns].
fn affine(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    let columns = b.len();
    let sum = |n: usize| x.iter().enumerate().map(|(k, x)| x * w[k * columns + n]).sum::<f64>();
    (0..columns).map(|n| b[n] + sum(n)).collect()
}

fn normalised(v: Vec<f64>, weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let count = v.len() as f64;
    let mean = v.iter().sum::<f64>() / count;
    let variance = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    (0..v.len()).map(|n| (v[n] - mean) * inverse * weight[n] + bias[n]).collect()
}

impl Plain {
    fn new((shape, below): (Shape, Widths), seed: u64) -> Plain {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let Shape { batch, neurons, width, tokens, memory, hidden, pairs, projected, .. } = shape;
        let outputs = shape.outputs();
        let sizes = [
            batch * tokens * width,
            batch * tokens * width,
            batch * neurons,
            batch * neurons * memory,
            pairs,
            pairs * width,
            width,
            memory * outputs * neurons,
            outputs * neurons,
            hidden * 2 * neurons,
            if hidden == 0 { 0 } else { 2 * neurons },
            if projected { width * width } else { 0 },
            if projected { width } else { 0 },
            if projected { width * width } else { 0 },
            if projected { width } else { 0 },
            if !projected {
                0
            } else if hidden == 0 {
                1
            } else {
                2
            },
        ];
        let mut sizes = sizes.to_vec();
        // (size, whether it is around 1)
        let mut ones = Vec::new();
        let mut inner = width + neurons;
        let down = std::iter::once(neurons).chain(below.iter().copied());
        let up = down.clone().take(below.len()).collect::<Vec<_>>().into_iter().rev();
        for (index, wide) in down.chain(up).enumerate() {
            let columns = if below.is_empty() { 2 * wide } else { wide };
            sizes.extend([inner * columns, columns, wide, wide]);
            ones.push(sizes.len() - 2);
            if index > below.len() {
                sizes.extend([wide, wide]);
                ones.push(sizes.len() - 2);
            }
            inner = wide;
        }
        let tensors = sizes
            .iter()
            .enumerate()
            .map(|(index, &size)| {
                (0..size)
                    .map(|_| match index {
                        4 => 0.2 + 0.7 * next(),                    // retention
                        15 => 0.7 + next(),                         // temperatures
                        one if ones.contains(&one) => 0.5 + next(), // a norm's weight
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
        Plain { shape, below, left, right, tensors }
    }

    /// z_1 … z_T [B, T, D] and the last trace [B, D, M].
    fn results(&self) -> (Vec<f64>, Vec<f64>) {
        let Shape { batch, ticks, neurons, width, tokens, heads, memory, hidden, pairs, .. } =
            self.shape;
        let outputs = self.shape.outputs();
        let [keys, values, start, trace0, retention, wq, bq, w1, b1, w2, b2, rest @ ..] =
            std::array::from_fn::<_, 16, _>(|index| &self.tensors[index]);
        let [project_query, query_bias, project_read, read_bias, temperatures] = rest;
        let projected = |x: Vec<f64>, w: &[f64], b: &[f64]| -> Vec<f64> {
            let sum = |n: usize| (0..width).map(|k| x[k] * w[n * width + k]).sum::<f64>();
            if b.is_empty() { x.clone() } else { (0..width).map(|n| b[n] + sum(n)).collect() }
        };
        let cooled = |level: usize| temperatures.get(level).map_or(1.0, |t| 1.0 / t);
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
                    .map(|c| bq[c] + (0..pairs).map(|p| s[p] * wq[c * pairs + p]).sum::<f64>())
                    .collect();
                let query = projected(query, project_query, query_bias);
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
                let mut x = projected(x, project_read, read_bias);
                x.extend(&z);
                let pushed = self.synapse(&x);
                for n in 0..neurons {
                    trace[n].remove(0);
                    trace[n].push(pushed[n]);
                    let h = |o: usize| -> f64 {
                        let products =
                            (0..memory).map(|m| trace[n][m] * w1[(m * outputs + o) * neurons + n]);
                        (b1[o * neurons + n] + products.sum::<f64>()) * cooled(0)
                    };
                    z[n] = if hidden == 0 {
                        h(0) * sigmoid(h(1))
                    } else {
                        let g: Vec<f64> =
                            (0..hidden).map(|o| h(o) * sigmoid(h(o + hidden))).collect();
                        let y = |j: usize| -> f64 {
                            let products =
                                (0..hidden).map(|o| g[o] * w2[(o * 2 + j) * neurons + n]);
                            (b2[j * neurons + n] + products.sum::<f64>()) * cooled(1)
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

    fn synapse(&self, x: &[f64]) -> Vec<f64> {
        let mut rest = self.tensors[NAMES.len()..].iter();
        let mut next = || rest.next().unwrap();
        if self.below.is_empty() {
            let u = affine(x, next(), next());
            let (values, gates) = u.split_at(u.len() / 2);
            let gated = values.iter().zip(gates).map(|(v, g)| v * sigmoid(*g)).collect();
            return normalised(gated, next(), next());
        }
        let mut down: Vec<Vec<f64>> = Vec::new();
        for index in 0..=self.below.len() {
            let u = affine(if index == 0 { x } else { &down[index - 1] }, next(), next());
            down.push(normalised(u, next(), next()).into_iter().map(silu).collect());
        }
        let mut e = down.pop().unwrap();
        while let Some(h) = down.pop() {
            let u = affine(&e, next(), next());
            let up = normalised(u, next(), next()).into_iter().map(silu);
            e = normalised(up.zip(h).map(|(up, h)| up + h).collect(), next(), next());
        }
        e
    }

    fn narrow(&self) -> Vec<Vec<f32>> {
        self.tensors.iter().map(|t| t.iter().map(|&x| x as f32).collect()).collect()
    }
}

fn inputs(narrow: &[Vec<f32>]) -> Inputs<'_> {
    Inputs { keys: &narrow[0], values: &narrow[1], state: &narrow[2], trace: &narrow[3] }
}

fn layers<'a>(plain: &Plain, narrow: &'a [Vec<f32>]) -> Vec<Layer<'a>> {
    let mut rest = narrow[NAMES.len()..].iter().map(Vec::as_slice);
    let mut next = || rest.next().unwrap();
    (0..2 * plain.below.len() + 1)
        .map(|index| Layer {
            weight: next(),
            bias: next(),
            norm_weight: next(),
            norm_bias: next(),
            skip: (index > plain.below.len()).then(|| [next(), next()]),
        })
        .collect()
}

fn weights<'a>(plain: &'a Plain, narrow: &'a [Vec<f32>], synapse: &'a [Layer<'a>]) -> Weights<'a> {
    Weights {
        left: &plain.left,
        right: &plain.right,
        retention: &narrow[4],
        query_weight: &narrow[5],
        query_bias: &narrow[6],
        projections: plain.shape.projected.then(|| Projections {
            query_weight: &narrow[11],
            query_bias: &narrow[12],
            read_weight: &narrow[13],
            read_bias: &narrow[14],
            temperatures: &narrow[15],
        }),
        synapse,
        level1_weight: &narrow[7],
        level1_bias: &narrow[8],
        level2_weight: &narrow[9],
        level2_bias: &narrow[10],
    }
}

/// In the order of the fields of `Saved`.
type Kept = [Vec<f32>; 6];

fn forward(pool: &Pool, plain: &Plain) -> Kept {
    let shape = plain.shape;
    let narrow = plain.narrow();
    let synapse = layers(plain, &narrow);
    let columns: usize = synapse.iter().map(|one| one.bias.len()).sum();
    let rows = |size: usize| vec![f32::NAN; shape.batch * size];
    let mut kept = [
        rows(shape.ticks * shape.neurons),
        rows(shape.neurons * shape.memory),
        rows(shape.ticks * shape.kept_width()),
        rows(shape.ticks * shape.kept_width()),
        rows(shape.ticks * shape.heads * shape.tokens),
        rows(shape.ticks * columns),
    ];
    let [states, trace, attended, query, attention, synapse_kept] = &mut kept;
    let saved = Saved { states, trace, attended, query, attention, synapse: synapse_kept };
    think(pool, shape, inputs(&narrow), &weights(plain, &narrow, &synapse), saved);
    kept
}

/// The gradients of Σ upstream·(states, then last trace).
fn backward(pool: &Pool, plain: &Plain, kept: &Kept, upstream: &[f32]) -> Vec<Vec<f32>> {
    let narrow = plain.narrow();
    let mut found: Vec<Vec<f32>> = narrow.iter().map(|t| vec![f32::NAN; t.len()]).collect();
    // The synapse's come after the query's.
    let (before, after) = found.split_at_mut(7);
    let (levels, synapse) = after.split_at_mut(NAMES.len() - 7);
    // A second level that is not there is no part.
    let levels = levels.iter_mut().filter(|level| !level.is_empty());
    let ordered = before.iter_mut().chain(synapse).chain(levels).map(Vec::as_mut_slice);
    let gradients = Gradients::from_parts(plain.shape, plain.below.len() + 1, ordered);
    let [states, _, attended, query, attention, synapse] = kept;
    let read = Read { states, attended, query, attention, synapse };
    let (of_states, of_trace) = upstream.split_at(states.len());
    let upstream = Upstream { states: of_states, trace: of_trace };
    let layers = layers(plain, &narrow);
    let weights = weights(plain, &narrow, &layers);
    think_gradient(pool, plain.shape, inputs(&narrow), &weights, read, upstream, gradients);
    found
}

/// More ticks than memory, fewer, one; shallow and deep; odd sizes and one sample.
fn shapes() -> Vec<(Shape, Widths)> {
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
        projected: false,
    };
    let published = Shape { projected: true, ..base };
    vec![
        (base, &[]),
        (published, &[]),
        (Shape { neurons: 17, width: 18, heads: 3, pairs: 33, ..published }, &[]),
        (Shape { hidden: 0, tokens: 1, ..published }, &[]),
        (Shape { pairs: 0, batch: 4, ..published }, &[4]),
        (Shape { batch: 0, ..published }, &[]),
        (Shape { hidden: 0, ..base }, &[]),
        (Shape { ticks: 2, memory: 4, batch: 1, ..base }, &[]),
        (Shape { ticks: 1, memory: 1, heads: 1, tokens: 1, ..base }, &[]),
        (Shape { neurons: 17, width: 18, heads: 3, batch: 2, hidden: 5, ..base }, &[]),
        (Shape { neurons: 33, width: 32, heads: 2, batch: 9, ticks: 10, ..base }, &[]),
        (Shape { neurons: 1, pairs: 1, batch: 4, ..base }, &[]),
        (Shape { pairs: 0, ..base }, &[]),
        (Shape { tokens: 1, ..base }, &[]),
        (Shape { batch: 0, ..base }, &[]),
        (base, &[4]),
        (Shape { hidden: 0, ticks: 2, ..base }, &[5, 4, 3]),
        (Shape { neurons: 40, pairs: 0, ..base }, &[33, 18]),
    ]
}

#[test]
fn states_are_those_of_the_equations() {
    let pool = Pool::new(2);
    for case in shapes() {
        let shape = case.0;
        let plain = Plain::new(case, 3);
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
    for case in shapes() {
        let shape = case.0;
        let plain = Plain::new(case, 4);
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
        let names = NAMES.iter().chain(std::iter::repeat(&"of the synapse"));
        for (tensor, name) in names.enumerate().take(plain.tensors.len()) {
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
        projected: true,
    };
    let plain = Plain::new((shape, &[9]), 5);
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
    let shape = Shape { tokens: 1, ..shapes()[0].0 };
    let plain = Plain::new((shape, &[]), 6);
    let pool = Pool::new(1);
    let saved = forward(&pool, &plain);
    let found = backward(&pool, &plain, &saved, &vec![1.0; saved[0].len() + saved[1].len()]);
    for name in ["keys", "query_weight", "query_bias"] {
        let index = NAMES.iter().position(|one| *one == name).unwrap();
        assert!(found[index].iter().all(|d| d.abs() < 1e-6), "{name}");
    }
}
