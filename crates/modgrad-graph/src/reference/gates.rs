//! Gated units, softmax and cross-entropy over the last axis.

use modgrad_compute::function::GateActivation;

use super::Array;
use crate::error::Result;

pub(super) fn gated_linear_unit(activation: GateActivation, x: &Array) -> Array {
    let half = x.width() / 2;
    let mut y = Array::zeros(&[x.leading(), &[half]].concat());
    for row in 0..x.rows() {
        let (value, gate) = x.row(row).split_at(half);
        for (c, y) in y.row_mut(row).iter_mut().enumerate() {
            *y = value[c] * activation.value_f64(gate[c]);
        }
    }
    y
}

pub(super) fn gated_linear_unit_gradient(
    activation: GateActivation,
    x: &Array,
    dy: &Array,
) -> Array {
    let half = x.width() / 2;
    let mut dx = Array::zeros(&x.shape);
    for row in 0..x.rows() {
        let (value, gate) = x.row(row).split_at(half);
        let dy = dy.row(row);
        for (c, dx) in dx.row_mut(row).iter_mut().enumerate() {
            *dx = match c.checked_sub(half) {
                None => dy[c] * activation.value_f64(gate[c]),
                Some(c) => dy[c] * value[c] * activation.derivative_f64(gate[c]),
            };
        }
    }
    dx
}

/// log Σ exp(x), with the maximum taken out so that it cannot overflow.
pub(super) fn logsumexp(x: &[f64]) -> f64 {
    let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    maximum + x.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln()
}

pub(super) fn softmax(x: &Array) -> Array {
    let mut y = Array::zeros(&x.shape);
    for row in 0..x.rows() {
        let logsumexp = logsumexp(x.row(row));
        for (c, y) in y.row_mut(row).iter_mut().enumerate() {
            *y = (x.row(row)[c] - logsumexp).exp();
        }
    }
    y
}

/// dx = y·(dy − Σ y·dy).
pub(super) fn softmax_gradient(y: &Array, dy: &Array) -> Array {
    let mut dx = Array::zeros(&y.shape);
    for row in 0..y.rows() {
        let (y, dy) = (y.row(row), dy.row(row));
        let projection: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
        for (c, dx) in dx.row_mut(row).iter_mut().enumerate() {
            *dx = y[c] * (dy[c] - projection);
        }
    }
    dx
}

/// loss = logsumexp(logits) − logits[target]; also returns the logsumexp.
pub(super) fn cross_entropy(logits: &Array, targets: &Array) -> Result<Vec<Array>> {
    let mut loss = Array::zeros(&targets.shape);
    let mut sums = Array::zeros(&targets.shape);
    for row in 0..logits.rows() {
        let target = targets.index_at(row, logits.width(), "cross_entropy")?;
        sums.data[row] = logsumexp(logits.row(row));
        loss.data[row] = sums.data[row] - logits.row(row)[target];
    }
    Ok(vec![loss, sums])
}

/// dlogits = dloss·(softmax(logits) − one at the target).
pub(super) fn cross_entropy_gradient(
    logits: &Array,
    targets: &Array,
    logsumexp: &Array,
    dloss: &Array,
) -> Result<Array> {
    let mut dlogits = Array::zeros(&logits.shape);
    for row in 0..logits.rows() {
        let target = targets.index_at(row, logits.width(), "cross_entropy_gradient")?;
        for (c, dlogit) in dlogits.row_mut(row).iter_mut().enumerate() {
            let probability = (logits.row(row)[c] - logsumexp.data[row]).exp();
            let hit = if c == target { 1.0 } else { 0.0 };
            *dlogit = dloss.data[row] * (probability - hit);
        }
    }
    Ok(dlogits)
}
