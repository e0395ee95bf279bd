//! Functions of one element and of two.

use modgrad_compute::elementwise::dropout_keeps;
use modgrad_compute::function::{BinaryFunction, UnaryFunction};

use super::Array;
use super::movement::broadcast_index;
use crate::shape;

pub(super) fn unary(function: UnaryFunction, x: &Array) -> Array {
    x.map(|x| function.value_f64(x))
}

/// dx = dy·f'(x).
pub(super) fn unary_gradient(function: UnaryFunction, x: &Array, dy: &Array) -> Array {
    let products = x.data.iter().zip(&dy.data).map(|(&x, dy)| dy * function.derivative_f64(x));
    Array::new(&x.shape, products.collect())
}

pub(super) fn binary(function: BinaryFunction, x: &Array, y: &Array) -> Array {
    let shape = shape::broadcast(&x.shape, &y.shape).expect("the shape rule broadcasts them");
    Array::from_fn(&shape, |index| {
        let x = x.at(&broadcast_index(index, &x.shape));
        let y = y.at(&broadcast_index(index, &y.shape));
        function.value_f64(x, y)
    })
}

pub(super) fn dropout(probability: f32, key: u64, x: &Array) -> Array {
    let keep = 1.0 - probability;
    let kept = |(index, x): (usize, &f64)| {
        if dropout_keeps(key, index as u64, keep) { x / f64::from(keep) } else { 0.0 }
    };
    Array::new(&x.shape, x.data.iter().enumerate().map(kept).collect())
}
