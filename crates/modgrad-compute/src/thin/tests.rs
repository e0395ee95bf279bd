//! Thin products against plain loops in f64.

use super::*;
use crate::testing::values;

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-4 * (1.0 + expected.abs()), "{what}: {found} for {expected} at {at}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[test]
fn products_and_their_adjoint() {
    let pool = Pool::new(2);
    for inner in [0, 1, 2, 3, 7, 33, 64] {
        for (part, parts) in
            [(0usize, 1), (16, 1), (16, 2), (5, 2), (48, 1), (17, 2), (80, 2), (200, 1)]
        {
            let (padded, given) = (part.next_multiple_of(LANES), part * parts);
            let width = padded * parts;
            let rows = inner - inner / 4; // the others are zeros
            let x: Vec<f32> = values(1, ROWS * inner, -1.0, 1.0);
            let w: Vec<f32> = values(2, rows * given, -1.0, 1.0);
            let bias: Vec<f32> = values(3, width, -1.0, 1.0);
            let y: Vec<f32> = values(4, ROWS * width, -1.0, 1.0);
            let weight = |k: usize, n: usize| {
                let within = n % padded;
                if k >= rows || within >= part {
                    return 0.0;
                }
                f64::from(w[k * given + n / padded * part + within])
            };
            let mut expected = wide(&bias.repeat(ROWS));
            let mut back = vec![0.0f64; ROWS * inner];
            for r in 0..ROWS {
                for n in 0..width {
                    for k in 0..inner {
                        expected[r * width + n] += f64::from(x[r * inner + k]) * weight(k, n);
                        back[r * inner + k] += f64::from(y[r * width + n]) * weight(k, n);
                    }
                }
            }
            let panels = Panels::new(&pool, &w, inner, part, parts);
            let mut found = vec![f32::NAN; ROWS * width];
            product(&x, &panels, &bias, &mut found);
            close(&found, &expected, &format!("product {inner} {part} {parts}"));
            let mut found = vec![f32::NAN; ROWS * inner];
            product_adjoint(&y, &panels, &mut found);
            close(&found, &back, &format!("adjoint {inner} {part} {parts}"));
        }
    }
}

#[test]
fn slabs_and_their_outer_sum() {
    for rows in [0, 1, 2, 5, 6, 9, 13] {
        for inner in [0, 1, 2, 3, 7, 13, 64] {
            for width in [1, 4, 8, 16, 24, 33, 64, 80, 130] {
                let x: Vec<f32> = values(1, rows * inner, -1.0, 1.0);
                let w: Vec<f32> = values(2, inner * width, -1.0, 1.0);
                let y: Vec<f32> = values(3, rows * width, -1.0, 1.0);
                let (mut product, mut outer) = (wide(&y), wide(&w));
                for r in 0..rows {
                    for k in 0..inner {
                        for n in 0..width {
                            let (x, y) = (f64::from(x[r * inner + k]), f64::from(y[r * width + n]));
                            product[r * width + n] += x * f64::from(w[k * width + n]);
                            outer[k * width + n] += x * y;
                        }
                    }
                }
                let what = format!("{rows} {inner} {width}");
                let mut found = y.clone();
                slab_product(inner, width, &x, &w, &mut found);
                close(&found, &product, &format!("slab product {what}"));
                let mut found = w.clone();
                slab_outer(inner, width, &x, &y, &mut found);
                close(&found, &outer, &format!("slab outer {what}"));
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (inner, width) = (37, 112);
    let x: Vec<f32> = values(4, ROWS * inner, -1.0, 1.0);
    let w: Vec<f32> = values(5, inner * width, -1.0, 1.0);
    let panels = Panels::new(&Pool::new(1), &w, inner, width, 1);
    let (mut together, bias) = (vec![0.0; ROWS * width], vec![0.5; width]);
    product(&x, &panels, &bias, &mut together);
    for r in 0..ROWS {
        let mut alone = vec![0.0; ROWS * inner];
        alone[..inner].copy_from_slice(&x[r * inner..][..inner]);
        let mut y = vec![0.0; ROWS * width];
        product(&alone, &panels, &bias, &mut y);
        assert_eq!(y[..width], together[r * width..][..width]);
    }
}

#[test]
fn lanewise_products_their_adjoint_and_their_outer_sum() {
    use lanewise::SLOT;
    const STEPS: usize = 3;
    for (inputs, outputs) in [(1, 1), (3, 2), (4, 4), (5, 9), (8, 16), (16, 6), (2, 7)] {
        let x: Vec<f32> = values(6, (inputs + STEPS - 1) * SLOT, -1.0, 1.0);
        let y: Vec<f32> = values(7, STEPS * outputs * SLOT, -1.0, 1.0);
        let w: Vec<f32> = values(8, inputs * outputs * LANES, -1.0, 1.0);
        let bias: Vec<f32> = values(9, outputs * LANES, -1.0, 1.0);
        let mut forward = vec![0.0f64; outputs * SLOT];
        let (mut back, mut outer) = (wide(&x[..inputs * SLOT]), wide(&w));
        for r in 0..ROWS {
            for o in 0..outputs {
                for lane in 0..LANES {
                    forward[o * SLOT + r * LANES + lane] += f64::from(bias[o * LANES + lane]);
                    for m in 0..inputs {
                        let at = |slot: usize| slot * SLOT + r * LANES + lane;
                        let w_at = lanewise::place(inputs, outputs, m, o) * LANES + lane;
                        let dw_at = (m * outputs + o) * LANES + lane;
                        forward[at(o)] += f64::from(x[at(m)]) * f64::from(w[w_at]);
                        back[at(m)] += f64::from(y[at(o)]) * f64::from(w[w_at]);
                        for step in 0..STEPS {
                            outer[dw_at] +=
                                f64::from(x[at(step + m)]) * f64::from(y[at(step * outputs + o)]);
                        }
                    }
                }
            }
        }
        let mut found = vec![f32::NAN; outputs * SLOT];
        lanewise::product(inputs, outputs, &x, &w, &bias, &mut found);
        close(&found, &forward, "lanewise product");
        let mut found = x[..inputs * SLOT].to_vec();
        lanewise::adjoint(inputs, outputs, &y, &w, &mut found);
        close(&found, &back, "lanewise adjoint");
        let mut found = w.clone();
        lanewise::outer(STEPS, inputs, outputs, &x, &y, &mut found);
        close(&found, &outer, "lanewise outer");
    }
}

#[test]
fn sums_over_tokens() {
    use tokens::{Sizes, by_channel, outer_sum, scores, weighted_sum};
    const STEPS: usize = 3;
    for (tokens, heads, channels) in
        [(1, 1, 1), (3, 2, 5), (16, 4, 16), (17, 1, 48), (121, 4, 32), (140, 2, 16), (6, 3, 4)]
    {
        let sizes = Sizes { tokens, heads, channels };
        let (width, stride) = (heads * channels, sizes.stride());
        let rows: Vec<f32> = values(1, tokens * width, -1.0, 1.0);
        let vectors: Vec<f32> = values(2, STEPS * width, -1.0, 1.0);
        let weights: Vec<f32> = values(3, STEPS * heads * stride, -1.0, 1.0);
        let mut found = vec![f32::NAN; heads * stride];
        scores(sizes, 0.5, &vectors[..width], &by_channel(sizes, &rows), &mut found);
        for head in 0..heads {
            let own = head * channels..(head + 1) * channels;
            let expected: Vec<f64> = (0..tokens)
                .map(|l| {
                    let products =
                        own.clone().map(|c| f64::from(rows[l * width + c]) * f64::from(vectors[c]));
                    0.5 * products.sum::<f64>()
                })
                .collect();
            close(&found[head * stride..][..tokens], &expected, "scores");
        }
        let weight = |t: usize, c: usize, l: usize| {
            f64::from(weights[(t * heads + c / channels) * stride + l])
        };
        let expected: Vec<f64> = (0..width)
            .map(|c| (0..tokens).map(|l| weight(0, c, l) * f64::from(rows[l * width + c])).sum())
            .collect();
        let mut found = vec![f32::NAN; width];
        weighted_sum(sizes, &weights[..heads * stride], &rows, &mut found);
        close(&found, &expected, "weighted sum");
        let expected: Vec<f64> = (0..tokens * width)
            .map(|at| {
                let (l, c) = (at / width, at % width);
                (0..STEPS).map(|t| weight(t, c, l) * f64::from(vectors[t * width + c])).sum()
            })
            .collect();
        let mut found = vec![f32::NAN; tokens * width];
        outer_sum(sizes, STEPS, &weights, &vectors, &mut found);
        close(&found, &expected, "outer sum");
    }
}
