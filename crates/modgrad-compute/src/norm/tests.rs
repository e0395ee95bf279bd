use super::*;
use crate::bf16;
use crate::testing::*;

const EPSILON: f32 = 1e-5;

/// The outputs of one row: y and the reciprocal of the root mean square.
fn rms_reference(x: &[f64], weight: &[f64]) -> (Vec<f64>, f64) {
    let squares: f64 = x.iter().map(|x| x * x).sum();
    let rstd = (squares / x.len() as f64 + EPSILON as f64).powf(-0.5);
    (x.iter().zip(weight).map(|(x, weight)| x * rstd * weight).collect(), rstd)
}

fn layer_reference(x: &[f64], weight: &[f64], bias: &[f64]) -> (Vec<f64>, f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let rstd = (variance + EPSILON as f64).powf(-0.5);
    let scaled = x.iter().zip(weight).map(|(x, weight)| (x - mean) * rstd * weight);
    (scaled.zip(bias).map(|(y, bias)| y + bias).collect(), mean, rstd)
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// dx, dweight and dbias of a row, from the chain rule through mean and rstd.
fn norm_gradient_reference(
    x: &[f64],
    weight: &[f64],
    dy: &[f64],
    mean: f64,
    rstd: f64,
    centred: bool,
) -> (Vec<f64>, Vec<f64>) {
    let d = x.len() as f64;
    let normal: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let inner: Vec<f64> = dy.iter().zip(weight).map(|(dy, weight)| dy * weight).collect();
    let constant = if centred { inner.iter().sum::<f64>() / d } else { 0.0 };
    let along = dot(&inner, &normal) / d;
    let dx = inner.iter().zip(&normal).map(|(g, n)| rstd * (g - constant - n * along)).collect();
    (dx, dy.iter().zip(&normal).map(|(dy, normal)| dy * normal).collect())
}

#[test]
fn the_references_agree_with_finite_differences() {
    let d = 13;
    let [x, weight, bias, dy] = [1, 2, 3, 4].map(|seed| exact(&values::<f32>(seed, d, -2.0, 2.0)));
    let (_, rstd) = rms_reference(&x, &weight);
    let (dx, dweight) = norm_gradient_reference(&x, &weight, &dy, 0.0, rstd, false);
    let (_, mean, layer_rstd) = layer_reference(&x, &weight, &bias);
    let (layer_dx, layer_dweight) =
        norm_gradient_reference(&x, &weight, &dy, mean, layer_rstd, true);
    let pairs = [
        (dx, finite_differences(&x, |x| dot(&rms_reference(x, &weight).0, &dy))),
        (dweight, finite_differences(&weight, |w| dot(&rms_reference(&x, w).0, &dy))),
        (layer_dx, finite_differences(&x, |x| dot(&layer_reference(x, &weight, &bias).0, &dy))),
        (
            layer_dweight,
            finite_differences(&weight, |w| dot(&layer_reference(&x, w, &bias).0, &dy)),
        ),
    ];
    for (exact, differences) in pairs {
        for (exact, difference) in exact.iter().zip(differences) {
            assert!((exact - difference).abs() < 1e-7, "{exact} or {difference}");
        }
    }
}

fn check_rms<X: Storage, Y: Storage>((rows, d): (usize, usize)) {
    let name = format!("rms_norm of {rows} x {d}");
    let x: Vec<X> = values(5, rows * d, -2.0, 3.0);
    let dy: Vec<Y> = values(6, rows * d, -2.0, 2.0);
    let weight: Vec<f32> = values(7, d, 0.2, 2.0);
    let results = for_threads(|pool| {
        let (mut y, mut rstd) = (vec![Y::from_f32(f32::NAN); rows * d], vec![f32::NAN; rows]);
        rms_norm(pool, &x, &weight, EPSILON, &mut y, &mut rstd);
        let (mut dx, mut dweight) = (vec![Y::from_f32(f32::NAN); rows * d], vec![f32::NAN; d]);
        rms_norm_gradient(pool, &x, &weight, &rstd, &dy, &mut dx, &mut dweight);
        let floats = |values: Vec<Y>| values.into_iter().map(Y::to_f32).collect::<Vec<f32>>();
        [floats(y), rstd, floats(dx), dweight].concat()
    });
    let (mut ys, mut rstds, mut dxs, mut dweights) = (vec![], vec![], vec![], vec![0.0; d]);
    let (x, dy, weight) = (exact(&x), exact(&dy), exact(&weight));
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let (y, rstd) = rms_reference(x, &weight);
        let (dx, dweight) = norm_gradient_reference(x, &weight, dy, 0.0, rstd, false);
        ys.extend(y);
        rstds.push(rstd);
        dxs.extend(dx);
        dweights.iter_mut().zip(dweight).for_each(|(sum, dweight)| *sum += dweight);
    }
    let n = rows * d;
    assert_close(&name, &results[..n], &ys, Y::ROUNDING + 2e-6, 1e-7);
    assert_close(&name, &results[n..n + rows], &rstds, 1e-6, 0.0);
    assert_close(&name, &results[n + rows..2 * n + rows], &dxs, Y::ROUNDING, 1e-5);
    assert_close(&name, &results[2 * n + rows..], &dweights, 2e-6, 1e-6 * rows as f64 + 1e-6);
}

#[test]
fn rms_norms_and_gradients() {
    for &shape in ROWS {
        check_rms::<f32, f32>(shape);
        check_rms::<bf16, bf16>(shape);
        check_rms::<f32, bf16>(shape);
    }
}

fn check_layer<X: Storage, Y: Storage>((rows, d): (usize, usize)) {
    let name = format!("layer_norm of {rows} x {d}");
    let x: Vec<X> = values(8, rows * d, -2.0, 3.0);
    let dy: Vec<Y> = values(9, rows * d, -2.0, 2.0);
    let weight: Vec<f32> = values(10, d, 0.2, 2.0);
    let bias: Vec<f32> = values(11, d, -1.0, 1.0);
    let results = for_threads(|pool| {
        let blank = || vec![Y::from_f32(f32::NAN); rows * d];
        let (mut y, mut dx) = (blank(), blank());
        let (mut mean, mut rstd) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
        let (mut dweight, mut dbias) = (vec![f32::NAN; d], vec![f32::NAN; d]);
        layer_norm(pool, &x, &weight, &bias, EPSILON, &mut y, &mut mean, &mut rstd);
        layer_norm_gradient(
            pool,
            &x,
            &weight,
            &mean,
            &rstd,
            &dy,
            &mut dx,
            &mut dweight,
            &mut dbias,
        );
        let floats = |values: Vec<Y>| values.into_iter().map(Y::to_f32).collect::<Vec<f32>>();
        [floats(y), mean, rstd, floats(dx), dweight, dbias].concat()
    });
    let (x, dy) = (exact(&x), exact(&dy));
    let (weight, bias) = (exact(&weight), exact(&bias));
    let (mut ys, mut means, mut rstds, mut dxs) = (vec![], vec![], vec![], vec![]);
    let (mut dweights, mut dbiases) = (vec![0.0; d], vec![0.0; d]);
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let (y, mean, rstd) = layer_reference(x, &weight, &bias);
        let (dx, dweight) = norm_gradient_reference(x, &weight, dy, mean, rstd, true);
        ys.extend(y);
        means.push(mean);
        rstds.push(rstd);
        dxs.extend(dx);
        dweights.iter_mut().zip(dweight).for_each(|(sum, dweight)| *sum += dweight);
        dbiases.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
    }
    let n = rows * d;
    // A row of one element has variance 0, so rstd is large and magnifies.
    let slack = if d == 1 { 1e-3 } else { 1e-5 };
    let mut rest = &results[..];
    let mut next = |length: usize| {
        let (part, after) = rest.split_at(length);
        rest = after;
        part
    };
    assert_close(&name, next(n), &ys, Y::ROUNDING + 2e-6, slack);
    assert_close(&name, next(rows), &means, 1e-6, 1e-6);
    assert_close(&name, next(rows), &rstds, 2e-6, 0.0);
    assert_close(&name, next(n), &dxs, Y::ROUNDING, slack);
    assert_close(&name, next(d), &dweights, 2e-6, 1e-6 * rows as f64 + slack);
    assert_close(&name, next(d), &dbiases, 2e-6, 1e-6 * rows as f64 + 1e-6);
}

#[test]
fn layer_norms_and_gradients() {
    for &shape in ROWS {
        check_layer::<f32, f32>(shape);
        check_layer::<bf16, bf16>(shape);
    }
}

#[test]
fn empty_rows_are_accepted() {
    let pool = Pool::new(2);
    rms_norm::<f32, f32>(&pool, &[], &[], EPSILON, &mut [], &mut [0.0; 3]);
    rms_norm_gradient::<f32, f32, f32>(&pool, &[], &[], &[0.0; 3], &[], &mut [], &mut []);
}
