//! Gated linear units over rows of 2h: the first half is the value, the second
//! the gate, and the output is value * activation(gate).

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::element::{as_bf16, as_bf16_mut};
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
        let x = &x[first * 2 * h..][..2 * y.len()];
        #[cfg(target_arch = "x86_64")]
        if activation == GateActivation::Silu
            && Isa::active() >= Isa::Avx512Bf16
            && let (Some(x), Some(y)) = (as_bf16(x), as_bf16_mut(y))
        {
            // SAFETY: the active set is at most what was detected.
            return unsafe { avx512::swiglu_rows(x, h, y) };
        }
        gated_linear_unit_rows(activation, x, h, y);
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
        let x = &x[range];
        #[cfg(target_arch = "x86_64")]
        if activation == GateActivation::Silu
            && Isa::active() >= Isa::Avx512Bf16
            && let (Some(x), Some(dy), Some(dx)) = (as_bf16(x), as_bf16(dy), as_bf16_mut(dx))
        {
            // SAFETY: the active set is at most what was detected.
            return unsafe { avx512::swiglu_gradient_rows(x, dy, h, dx) };
        }
        gated_linear_unit_gradient_rows(activation, x, dy, h, dx);
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
