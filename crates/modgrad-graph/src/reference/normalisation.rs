//! Normalisation of rows of C channels.
//!
//! In the gradients g = dy·weight is the gradient of the normalised row.

use super::Array;

/// y = x·weight / √(mean(x²) + ε); also returns 1/rms.
pub(super) fn rms_norm(epsilon: f32, x: &Array, weight: &Array) -> Vec<Array> {
    let mut y = Array::zeros(&x.shape);
    let mut inverse_rms = Array::zeros(x.leading());
    for row in 0..x.rows() {
        let square = mean(x.row(row).iter().map(|x| x * x));
        let r = 1.0 / (square + f64::from(epsilon)).sqrt();
        inverse_rms.data[row] = r;
        for (c, y) in y.row_mut(row).iter_mut().enumerate() {
            *y = x.row(row)[c] * r * weight.data[c];
        }
    }
    vec![y, inverse_rms]
}

/// With r = 1/rms: dx = r·g − x·r³·mean(g·x), dweight = Σ_rows dy·x·r.
pub(super) fn rms_norm_gradient(
    x: &Array,
    weight: &Array,
    inverse_rms: &Array,
    dy: &Array,
) -> Vec<Array> {
    let mut dx = Array::zeros(&x.shape);
    let mut dweight = Array::zeros(&weight.shape);
    for row in 0..x.rows() {
        let (x, dy, r) = (x.row(row), dy.row(row), inverse_rms.data[row]);
        let g: Vec<f64> = products(dy, &weight.data);
        let projection = mean(g.iter().zip(x).map(|(g, x)| g * x));
        for (c, dx) in dx.row_mut(row).iter_mut().enumerate() {
            *dx = r * g[c] - x[c] * r.powi(3) * projection;
            dweight.data[c] += dy[c] * x[c] * r;
        }
    }
    vec![dx, dweight]
}

/// y = (x − mean)·weight / √(variance + ε) + bias; also returns mean and
/// 1/deviation. The variance is the mean square from the mean.
pub(super) fn layer_norm(epsilon: f32, x: &Array, weight: &Array, bias: &Array) -> Vec<Array> {
    let mut y = Array::zeros(&x.shape);
    let mut means = Array::zeros(x.leading());
    let mut inverse_deviations = Array::zeros(x.leading());
    for row in 0..x.rows() {
        let average = mean(x.row(row).iter().copied());
        let variance = mean(x.row(row).iter().map(|x| (x - average).powi(2)));
        let r = 1.0 / (variance + f64::from(epsilon)).sqrt();
        means.data[row] = average;
        inverse_deviations.data[row] = r;
        for (c, y) in y.row_mut(row).iter_mut().enumerate() {
            *y = (x.row(row)[c] - average) * r * weight.data[c] + bias.data[c];
        }
    }
    vec![y, means, inverse_deviations]
}

/// With n = (x − mean)/deviation: dx = (g − mean(g) − n·mean(g·n))/deviation,
/// dweight = Σ_rows dy·n, dbias = Σ_rows dy.
pub(super) fn layer_norm_gradient(
    x: &Array,
    weight: &Array,
    means: &Array,
    inverse_deviations: &Array,
    dy: &Array,
) -> Vec<Array> {
    let mut dx = Array::zeros(&x.shape);
    let mut dweight = Array::zeros(&weight.shape);
    let mut dbias = Array::zeros(&weight.shape);
    for row in 0..x.rows() {
        let (average, r) = (means.data[row], inverse_deviations.data[row]);
        let (x, dy) = (x.row(row), dy.row(row));
        let normalised: Vec<f64> = x.iter().map(|x| (x - average) * r).collect();
        let g: Vec<f64> = products(dy, &weight.data);
        let mean_g = mean(g.iter().copied());
        let projection = mean(g.iter().zip(&normalised).map(|(g, n)| g * n));
        for (c, dx) in dx.row_mut(row).iter_mut().enumerate() {
            *dx = r * (g[c] - mean_g - normalised[c] * projection);
            dweight.data[c] += dy[c] * normalised[c];
            dbias.data[c] += dy[c];
        }
    }
    vec![dx, dweight, dbias]
}

fn products(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x * y).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
