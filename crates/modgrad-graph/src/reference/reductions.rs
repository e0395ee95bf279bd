//! Reductions of one axis.

use modgrad_compute::reduce::Reduction;

use super::Array;

/// `shape` with `axis` removed.
fn without(shape: &[usize], axis: usize) -> Vec<usize> {
    [&shape[..axis], &shape[axis + 1..]].concat()
}

/// The elements of `x` along `axis` at `index` of the other axes.
fn along(x: &Array, axis: usize, index: &[usize]) -> Vec<f64> {
    let mut full = index.to_vec();
    full.insert(axis, 0);
    (0..x.shape[axis])
        .map(|i| {
            full[axis] = i;
            x.at(&full)
        })
        .collect()
}

pub(super) fn reduce(kind: Reduction, axis: usize, x: &Array) -> Array {
    Array::from_fn(&without(&x.shape, axis), |index| {
        let values = along(x, axis, index);
        match kind {
            Reduction::Sum => values.iter().sum(),
            Reduction::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Reduction::Maximum => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    })
}

/// dx = dy / (how many of the axis reach the maximum), where x is one of them.
pub(super) fn maximum_gradient(axis: usize, x: &Array, y: &Array, dy: &Array) -> Array {
    Array::from_fn(&x.shape, |index| {
        let outer = without(index, axis);
        let maximum = y.at(&outer);
        if x.at(index) != maximum {
            return 0.0;
        }
        let ties = along(x, axis, &outer).into_iter().filter(|&value| value == maximum).count();
        dy.at(&outer) / ties as f64
    })
}

/// 1 where x is the first of the axis that no other exceeds; a NaN exceeds all.
pub(super) fn one_hot_max(axis: usize, x: &Array) -> Array {
    Array::from_fn(&x.shape, |index| {
        let exceeds = |a: f64, b: f64| a > b || (a.is_nan() && !b.is_nan());
        let values = along(x, axis, &without(index, axis));
        let first = (0..values.len())
            .find(|&i| values.iter().all(|&other| !exceeds(other, values[i])))
            .expect("an axis is not empty");
        if index[axis] == first { 1.0 } else { 0.0 }
    })
}
