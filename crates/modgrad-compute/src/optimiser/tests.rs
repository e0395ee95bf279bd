//! Each optimiser for several steps beside the textbook form in f64.

use super::*;
use crate::testing::*;

const STEPS: u64 = 5;

fn gradient(step: u64, length: usize) -> Vec<f32> {
    values(100 + step, length, -2.0, 2.0)
}

/// Bit for bit the bf16 rounding of the parameter.
#[track_caller]
fn assert_shadow(parameter: &[f32], shadow: &[f32]) {
    for (parameter, shadow) in parameter.iter().zip(shadow) {
        assert_eq!(bf16::from_f32(*parameter).to_f32(), *shadow);
    }
}

#[test]
fn adamw_follows_its_definition() {
    for (&length, with_shadow) in LENGTHS.iter().flat_map(|n| [(n, true), (n, false)]) {
        let settings = AdamW {
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: 0,
            gradient_scale: 0.5,
        };
        let start: Vec<f32> = values(1, length, -1.0, 1.0);
        let ours = for_threads(|pool| {
            let mut parameter = start.clone();
            let (mut first, mut second) = (vec![0.0; length], vec![0.0; length]);
            let mut shadow = vec![bf16::ZERO; length];
            for step in 1..=STEPS {
                let settings = AdamW { step, ..settings };
                let shadow = with_shadow.then_some(&mut shadow[..]);
                let gradient = gradient(step, length);
                adamw(pool, settings, &mut parameter, &gradient, &mut first, &mut second, shadow);
            }
            let shadow = shadow.into_iter().map(bf16::to_f32).collect();
            [parameter, first, second, shadow].concat()
        });
        let mut parameter = exact(&start);
        let (mut first, mut second) = (vec![0.0f64; length], vec![0.0f64; length]);
        let (beta1, beta2) = (settings.beta1 as f64, settings.beta2 as f64);
        let rate = settings.learning_rate as f64;
        for step in 1..=STEPS {
            for (i, g) in gradient(step, length).into_iter().enumerate() {
                let g = g as f64 * settings.gradient_scale as f64;
                first[i] = beta1 * first[i] + (1.0 - beta1) * g;
                second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
                let first = first[i] / (1.0 - beta1.powi(step as i32));
                let second = second[i] / (1.0 - beta2.powi(step as i32));
                parameter[i] -= rate * settings.weight_decay as f64 * parameter[i];
                parameter[i] -= rate * first / (second.sqrt() + settings.epsilon as f64);
            }
        }
        assert_close("parameter", &ours[..length], &parameter, 1e-6, 1e-6);
        assert_close("first", &ours[length..2 * length], &first, 1e-6, 1e-6);
        assert_close("second", &ours[2 * length..3 * length], &second, 2e-6, 1e-7);
        if with_shadow {
            assert_shadow(&ours[..length], &ours[3 * length..]);
        }
    }
}

#[test]
fn sgd_follows_its_definition() {
    for (&length, nesterov) in LENGTHS.iter().flat_map(|n| [(n, true), (n, false)]) {
        let settings = Sgd {
            learning_rate: 0.05,
            momentum: 0.9,
            nesterov,
            weight_decay: 0.01,
            gradient_scale: 0.5,
        };
        let start: Vec<f32> = values(2, length, -1.0, 1.0);
        let ours = for_threads(|pool| {
            let (mut parameter, mut velocity) = (start.clone(), vec![0.0; length]);
            let mut shadow = vec![bf16::ZERO; length];
            for step in 1..=STEPS {
                let shadow = nesterov.then_some(&mut shadow[..]);
                let gradient = gradient(step, length);
                sgd(pool, settings, &mut parameter, &gradient, &mut velocity, shadow);
            }
            let shadow = shadow.into_iter().map(bf16::to_f32).collect();
            [parameter, velocity, shadow].concat()
        });
        let (mut parameter, mut velocity) = (exact(&start), vec![0.0f64; length]);
        let momentum = settings.momentum as f64;
        for step in 1..=STEPS {
            for (i, g) in gradient(step, length).into_iter().enumerate() {
                let g = g as f64 * 0.5 + settings.weight_decay as f64 * parameter[i];
                velocity[i] = momentum * velocity[i] + g;
                let direction = if nesterov { g + momentum * velocity[i] } else { velocity[i] };
                parameter[i] -= settings.learning_rate as f64 * direction;
            }
        }
        assert_close("parameter", &ours[..length], &parameter, 1e-6, 1e-6);
        assert_close("velocity", &ours[length..2 * length], &velocity, 1e-6, 1e-6);
        if nesterov {
            assert_shadow(&ours[..length], &ours[2 * length..]);
        }
    }
}

#[test]
fn rowwise_adagrad_follows_its_definition() {
    let shapes = [(0, 5, 3), (1, 1, 1), (40, 7, 33), (3000, 500, 16), (900, 5000, 96)];
    for (count, rows, d) in shapes {
        let settings = RowwiseAdagrad {
            learning_rate: 0.1,
            epsilon: 1e-6,
            weight_decay: 0.02,
            gradient_scale: 0.5,
        };
        let start: Vec<f32> = values(3, rows * d, -1.0, 1.0);
        let chosen = |step| -> Vec<i32> {
            indices(50 + step, count, rows).into_iter().map(|row| row as i32).collect()
        };
        let ours = for_threads(|pool| {
            let (mut table, mut state) = (start.clone(), vec![0.0; rows]);
            let mut sparse = SparseGradient::new(rows, d);
            for step in 1..=STEPS {
                sparse.clear();
                sparse.accumulate(pool, &chosen(step), 1, &gradient(step, count * d));
                rowwise_adagrad(pool, settings, &mut table, d, &mut state, &sparse);
            }
            [table, state].concat()
        });
        let (mut table, mut state) = (exact(&start), vec![0.0f64; rows]);
        let rate = settings.learning_rate as f64;
        for step in 1..=STEPS {
            let mut dense = vec![0.0f64; rows * d];
            let chosen = chosen(step);
            for (row, g) in chosen.iter().zip(gradient(step, count * d).chunks_exact(d)) {
                let sums = &mut dense[*row as usize * d..][..d];
                sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += *g as f64 * 0.5);
            }
            for row in (0..rows).filter(|row| chosen.contains(&(*row as i32))) {
                let g = &dense[row * d..(row + 1) * d];
                state[row] += g.iter().map(|g| g * g).sum::<f64>() / d as f64;
                let root = state[row].sqrt() + settings.epsilon as f64;
                for (x, g) in table[row * d..(row + 1) * d].iter_mut().zip(g) {
                    *x -= rate * settings.weight_decay as f64 * *x + rate * g / root;
                }
            }
        }
        assert_close("table", &ours[..rows * d], &table, 1e-5, 1e-5);
        assert_close("state", &ours[rows * d..], &state, 1e-5, 1e-6);
    }
}

#[test]
fn the_average_moves_towards_the_parameter() {
    for &length in LENGTHS {
        let start: Vec<f32> = values(4, length, -1.0, 1.0);
        let parameter: Vec<f32> = values(5, length, -1.0, 1.0);
        let ours = for_threads(|pool| {
            let mut average = start.clone();
            exponential_average(pool, 0.9, &parameter, &mut average);
            average
        });
        let pairs = start.iter().zip(&parameter);
        let want: Vec<f64> = pairs
            .map(|(a, p)| 0.9f32 as f64 * *a as f64 + (1.0 - 0.9f32 as f64) * *p as f64)
            .collect();
        assert_close("average", &ours, &want, 1e-6, 1e-7);
    }
}

#[test]
fn muon_moves_as_published() {
    for (&length, nesterov) in LENGTHS.iter().flat_map(|n| [(n, true), (n, false)]) {
        let start: Vec<f32> = values(6, length, -1.0, 1.0);
        let ours = for_threads(|pool| {
            let (mut velocity, mut update) = (vec![0.0; length], vec![f32::NAN; length]);
            let (mut parameter, mut shadow) = (start.clone(), vec![bf16::ZERO; length]);
            for step in 1..=STEPS {
                let gradient = gradient(step, length);
                muon_momentum(pool, 0.95, nesterov, &gradient, 0.5, &mut velocity, &mut update);
                let shadow = nesterov.then_some(&mut shadow[..]);
                muon_apply(pool, 0.02, 0.1, 1.5, &update, &mut parameter, shadow);
            }
            let shadow = shadow.into_iter().map(bf16::to_f32).collect();
            [velocity, update, parameter, shadow].concat()
        });
        let momentum = 0.95f32 as f64;
        let (mut velocity, mut update) = (vec![0.0f64; length], vec![0.0f64; length]);
        let mut parameter = exact(&start);
        for step in 1..=STEPS {
            for (i, g) in gradient(step, length).into_iter().enumerate() {
                let g = g as f64 * 0.5;
                velocity[i] += (1.0 - momentum) * (g - velocity[i]);
                let ahead = g + momentum * (velocity[i] - g);
                update[i] = if nesterov { ahead } else { velocity[i] };
                parameter[i] = parameter[i] * (1.0 - 0.02 * 0.1) - 0.02 * 1.5 * update[i];
            }
        }
        assert_close("velocity", &ours[..length], &velocity, 1e-6, 1e-6);
        assert_close("update", &ours[length..2 * length], &update, 1e-6, 1e-6);
        assert_close("parameter", &ours[2 * length..3 * length], &parameter, 1e-6, 1e-6);
        if nesterov {
            assert_shadow(&ours[2 * length..3 * length], &ours[3 * length..]);
        }
    }
}

#[test]
#[should_panic(expected = "`adamw`: `shadow` has 2 elements, expected 3")]
fn a_short_shadow_is_refused() {
    let settings = AdamW {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        epsilon: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_scale: 1.0,
    };
    let (mut p, mut m, mut v) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let mut shadow = [bf16::ZERO; 2];
    adamw(&Pool::new(1), settings, &mut p, &[0.0; 3], &mut m, &mut v, Some(&mut shadow));
}

#[test]
fn a_product_updates_as_it_would_if_it_were_stored() {
    use crate::gemm::{Matrix, Output, Precision, gemm};
    let settings = AdamW {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 3,
        gradient_scale: 0.25,
    };
    for (rows, columns, inner) in [(0, 5, 2), (1, 1, 1), (3, 129, 0), (700, 70, 9), (33, 8200, 5)] {
        for precision in [Precision::F32, Precision::Bf16] {
            let left: Vec<f32> = values(1, inner * rows, -1.0, 1.0);
            let right: Vec<bf16> = values(2, inner * columns, -1.0, 1.0);
            let left = Matrix::f32(&left, inner, rows).transposed();
            let right = Matrix::bf16(&right, inner, columns);
            let start: Vec<f32> = values(3, rows * columns, -1.0, 1.0);
            let moments: Vec<f32> = values(4, rows * columns, 0.0, 1.0);
            let run = |pool: &Pool, stored: bool| {
                let (mut parameter, mut shadow) = (start.clone(), vec![bf16::ZERO; start.len()]);
                let (mut first, mut second) = (moments.clone(), moments.clone());
                let (p, m, v) = (&mut parameter[..], &mut first[..], &mut second[..]);
                if stored {
                    let mut gradient = vec![0.0; start.len()];
                    let out = Output::F32(&mut gradient);
                    gemm(pool, precision, left, right, out, false, None);
                    adamw(pool, settings, p, &gradient, m, v, Some(&mut shadow));
                } else {
                    let shadow = Some(&mut shadow[..]);
                    adamw_of_product(pool, settings, precision, left, right, p, m, v, shadow);
                }
                let shadow = shadow.into_iter().map(bf16::to_f32).collect();
                [parameter, first, second, shadow].concat()
            };
            let stored = for_threads(|pool| run(pool, true));
            assert_eq!(for_threads(|pool| run(pool, false)), stored, "{rows}×{columns}×{inner}");

            let pool = Pool::new(2);
            let mut gradient = vec![0.0; start.len()];
            gemm(&pool, precision, left, right, Output::F32(&mut gradient), false, None);
            let want: f64 = gradient.iter().map(|&x| f64::from(x).powi(2)).sum();
            let sum = sum_of_squares_of_products(&pool, precision, &[(left, right); 3]);
            assert!((sum - 3.0 * want).abs() <= 1e-5 * want, "{sum} is not 3 × {want}");
        }
    }
}
