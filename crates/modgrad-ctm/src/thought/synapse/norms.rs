//! LayerNorms of one row, with the activations around them.

use modgrad_compute::thin::LANES;
use modgrad_compute::{math, multiversion};

use crate::thought::EPSILON;

multiversion! {
    /// LayerNorm of the `width` values of u, each through its gate; zeros behind them.
    pub(super) fn normalised_gate(
        width: usize, u: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32],
    ) {
        let (values, gates) = u.split_at(u.len() / 2);
        for ((out, value), gate) in out[..width].iter_mut().zip(values).zip(gates) {
            *out = value * math::sigmoid(*gate);
        }
        let (mean, inverse) = moments(&out[..width]);
        for ((out, weight), bias) in out[..width].iter_mut().zip(weight).zip(bias) {
            *out = (*out - mean) * inverse * weight + bias;
        }
    }
}

multiversion! {
    /// SiLU of the LayerNorm of the first `width` of u; zeros behind them.
    pub(super) fn norm_silu(
        width: usize, u: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32],
    ) {
        let u = &u[..width];
        let (mean, inverse) = moments(u);
        for (((out, u), weight), bias) in out.iter_mut().zip(u).zip(weight).zip(bias) {
            *out = math::silu((u - mean) * inverse * weight + bias);
        }
    }
}

multiversion! {
    /// LayerNorm of the first `width` of u; zeros behind them.
    pub(super) fn norm(width: usize, u: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let u = &u[..width];
        let (mean, inverse) = moments(u);
        for (((out, u), weight), bias) in out.iter_mut().zip(u).zip(weight).zip(bias) {
            *out = (u - mean) * inverse * weight + bias;
        }
    }
}

/// (mean, 1/√(variance + ε)), summed in lanes.
#[inline(always)]
fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len() as f32;
    let mean = sum(values, |x| x) / count;
    let variance = sum(values, |x| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += of(*value);
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for value in rest {
        total += of(*value);
    }
    total
}

/// Σ a·b, summed in lanes.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (left_rest, right_rest) = (left.remainder(), right.remainder());
    for (left, right) in left.zip(right) {
        for ((lane, left), right) in lanes.iter_mut().zip(left).zip(right) {
            *lane += left * right;
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for (left, right) in left_rest.iter().zip(right_rest) {
        total += left * right;
    }
    total
}

/// dv from x̂ and dx̂, which is written over x̂: inverse·(dx̂ − mean(dx̂) − x̂·mean(dx̂·x̂)).
#[inline(always)]
fn standardised_adjoint(inverse: f32, normal: &mut [f32], dnormal: &[f32]) {
    let count = normal.len() as f32;
    let mean = sum(dnormal, |x| x) / count;
    let along = dot(normal, dnormal) / count;
    for (normal, d) in normal.iter_mut().zip(dnormal) {
        *normal = inverse * (d - mean - *normal * along);
    }
}

multiversion! {
    /// The adjoint of `norm`: du from dout, all of one length; the norm's own gradients
    /// [weight, bias] are added to. dout is written over.
    pub(super) fn norm_adjoint(
        u: &[f32], weight: &[f32], dout: &mut [f32], du: &mut [f32], own: &mut [f32],
    ) {
        let width = u.len();
        let (dweight, dbias) = own.split_at_mut(width);
        let (mean, inverse) = moments(u);
        for (du, u) in du.iter_mut().zip(u) {
            *du = (u - mean) * inverse;
        }
        for n in 0..width {
            dweight[n] += dout[n] * du[n];
            dbias[n] += dout[n];
            dout[n] *= weight[n];
        }
        standardised_adjoint(inverse, &mut du[..width], dout);
    }
}

multiversion! {
    /// The adjoint of `norm_silu`: du from dout; `row` is worked in.
    pub(super) fn norm_silu_adjoint(
        width: usize, u: &[f32], weight: &[f32], bias: &[f32], dout: &[f32], row: &mut [f32],
        du: &mut [f32], own: &mut [f32],
    ) {
        let (u, dout, row, du) = (&u[..width], &dout[..width], &mut row[..width], &mut du[..width]);
        let (weight, bias) = (&weight[..width], &bias[..width]);
        let (dweight, dbias) = own.split_at_mut(width);
        let (mean, inverse) = moments(u);
        for n in 0..width {
            let normal = (u[n] - mean) * inverse;
            let (_, slope) = math::silu_with_derivative(normal * weight[n] + bias[n]);
            let d = dout[n] * slope;
            du[n] = normal;
            dweight[n] += d * normal;
            dbias[n] += d;
            row[n] = d * weight[n];
        }
        standardised_adjoint(inverse, du, row);
    }
}

multiversion! {
    /// The adjoint of `normalised_gate`: du from da; the norm's own gradients [weight,
    /// bias] are added to.
    pub(super) fn normalised_gate_adjoint(
        width: usize, u: &[f32], weight: &[f32], da: &[f32], du: &mut [f32], own: &mut [f32],
    ) {
        let (values, gates) = u.split_at(u.len() / 2);
        let (values, gates, da) = (&values[..width], &gates[..width], &da[..width]);
        let (dvalues, dgates) = du.split_at_mut(du.len() / 2);
        let (dvalues, dgates) = (&mut dvalues[..width], &mut dgates[..width]);
        let (dweight, dbias) = own.split_at_mut(width);
        // dvalues holds the gated values first, then x̂, then their gradient; dgates
        // that of x̂ meanwhile.
        for n in 0..width {
            dvalues[n] = values[n] * math::sigmoid(gates[n]);
        }
        let (mean, inverse) = moments(dvalues);
        for n in 0..width {
            let normal = (dvalues[n] - mean) * inverse;
            dvalues[n] = normal;
            dweight[n] += da[n] * normal;
            dbias[n] += da[n];
            dgates[n] = da[n] * weight[n];
        }
        standardised_adjoint(inverse, dvalues, dgates);
        for n in 0..width {
            let (d, open) = (dvalues[n], math::sigmoid(gates[n]));
            dvalues[n] = d * open;
            dgates[n] = d * values[n] * open * (1.0 - open);
        }
    }
}
