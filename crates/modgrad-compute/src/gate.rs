//! Gated linear units over rows of 2h: the first half is the value, the second
//! the gate, and the output is value * activation(gate).

use crate::elementwise::{expect_length, expect_whole_rows, rows_per_thread};
use crate::function::{GateActivation, specialise};
use crate::{Element, Pool, multiversion};

/// y = value * activation(gate) for each row [value, gate] of `x`.
pub fn gated_linear_unit<X: Element, Y: Element>(
    pool: &Pool,
    activation: GateActivation,
    x: &[X],
    h: usize,
    y: &mut [Y],
) {
    expect_length("gated_linear_unit", "x", x.len(), 2 * y.len());
    expect_whole_rows("gated_linear_unit", "y", y.len(), h);
    pool.for_rows(y, h, rows_per_thread(h), |first, y| {
        let start = first * 2 * h;
        gated_linear_unit_rows(activation, &x[start..start + 2 * y.len()], h, y);
    });
}

multiversion! {
    fn gated_linear_unit_rows[X: Element, Y: Element](
        activation: GateActivation,
        x: &[X],
        h: usize,
        y: &mut [Y],
    ) {
        specialise!(GateActivation, activation, ACTIVATION => {
            for (x, y) in x.chunks_exact(2 * h).zip(y.chunks_exact_mut(h)) {
                let (value, gate) = x.split_at(h);
                for ((y, value), gate) in y.iter_mut().zip(value).zip(gate) {
                    *y = Y::from_f32(value.to_f32() * ACTIVATION.value(gate.to_f32()));
                }
            }
        })
    }
}

/// The gradient of [`gated_linear_unit`]: rows [dvalue, dgate] of `dx`.
pub fn gated_linear_unit_gradient<X: Element, D: Element, G: Element>(
    pool: &Pool,
    activation: GateActivation,
    x: &[X],
    dy: &[D],
    h: usize,
    dx: &mut [G],
) {
    expect_length("gated_linear_unit_gradient", "x", x.len(), 2 * dy.len());
    expect_length("gated_linear_unit_gradient", "dx", dx.len(), x.len());
    expect_whole_rows("gated_linear_unit_gradient", "dy", dy.len(), h);
    pool.for_rows(dx, 2 * h, rows_per_thread(2 * h), |first, dx| {
        let range = first * 2 * h..first * 2 * h + dx.len();
        let dy = &dy[range.start / 2..range.end / 2];
        gated_linear_unit_gradient_rows(activation, &x[range], dy, h, dx);
    });
}

multiversion! {
    fn gated_linear_unit_gradient_rows[X: Element, D: Element, G: Element](
        activation: GateActivation,
        x: &[X],
        dy: &[D],
        h: usize,
        dx: &mut [G],
    ) {
        specialise!(GateActivation, activation, ACTIVATION => {
            let rows = x.chunks_exact(2 * h).zip(dy.chunks_exact(h));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * h)) {
                let (value, gate) = x.split_at(h);
                let (dvalue, dgate) = dx.split_at_mut(h);
                let operands = value.iter().zip(gate).zip(dy);
                for (((value, gate), dy), (dvalue, dgate)) in
                    operands.zip(dvalue.iter_mut().zip(dgate))
                {
                    let (value, gate, dy) = (value.to_f32(), gate.to_f32(), dy.to_f32());
                    let (activated, slope) = ACTIVATION.value_with_derivative(gate);
                    *dvalue = G::from_f32(dy * activated);
                    *dgate = G::from_f32(dy * value * slope);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
