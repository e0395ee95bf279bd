//! Shapes along time: attention, rotary positions, convolutions, scans and recurrences.

use super::{Operands, one, without_last};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::tensor::TensorSpec;

pub(super) fn rule(given: &Operands<'_>, op: &Op) -> Result<Vec<TensorSpec>> {
    match op {
        Op::CausalAttention { window } => {
            let [q, k, v] = given.floats()?;
            attention_shapes(given, q, &[k, v], *window)?;
            Ok(vec![q.clone(), TensorSpec::f32(without_last(&q.shape))])
        }
        Op::CausalAttentionGradient { window } => {
            let [q, k, v, out, logsumexp, dout] = given.floats()?;
            attention_shapes(given, q, &[k, v, out, dout], *window)?;
            given.shaped(logsumexp, &without_last(&q.shape), "a logsumexp")?;
            Ok(vec![q.clone(), k.clone(), v.clone()])
        }
        Op::Rope { base, rotated, .. } => {
            let [x] = given.floats()?;
            given.rank(x, 4, "[B, T, H, D]")?;
            given.attribute(rotated % 2 == 0 && *rotated <= x.shape[3], || {
                format!("{rotated} rotated channels are not an even number up to {}", x.shape[3])
            })?;
            given.attribute(base.is_finite() && *base > 0.0, || {
                format!("the base must be positive, not {base}")
            })?;
            Ok(vec![x.clone()])
        }
        Op::CausalConvolution => {
            let [x, weight] = given.floats()?;
            convolution_shapes(given, x, weight)?;
            Ok(vec![x.clone()])
        }
        Op::CausalConvolutionGradient => {
            let [x, weight, dy] = given.floats()?;
            convolution_shapes(given, x, weight)?;
            given.shaped(dy, &x.shape, "a gradient")?;
            Ok(vec![x.clone(), weight.clone()])
        }
        Op::LinearScan => {
            let [a, b] = given.floats()?;
            given.rank(a, 3, "[B, T, C]")?;
            given.shaped(b, &a.shape, "an increment")?;
            Ok(vec![a.clone()])
        }
        Op::LinearScanGradient => {
            let [a, h, dh] = given.floats()?;
            given.rank(a, 3, "[B, T, C]")?;
            given.shaped(h, &a.shape, "a state")?;
            given.shaped(dh, &a.shape, "a gradient")?;
            Ok(vec![a.clone(), a.clone()])
        }
        Op::GatedRecurrence => {
            let [x, retention] = given.floats()?;
            one(recurrence_shape(given, x, retention)?)
        }
        Op::GatedRecurrenceGradient => {
            let [x, retention, dy] = given.floats()?;
            let y = recurrence_shape(given, x, retention)?;
            given.shaped(dy, &y, "a gradient")?;
            Ok(vec![x.clone(), retention.clone()])
        }
        _ => Err(Error::malformed(format!("`{}` is not along time", op.name()))),
    }
}

fn attention_shapes(
    given: &Operands<'_>,
    q: &TensorSpec,
    others: &[&TensorSpec],
    window: Option<usize>,
) -> Result<()> {
    given.rank(q, 4, "[B, T, H, D]")?;
    given.attribute(window != Some(0), || "the window must be at least 1".into())?;
    given.attribute(q.shape[3] > 0, || format!("heads of no width in {q}"))?;
    others.iter().try_for_each(|other| given.shaped(other, &q.shape, "an operand"))
}

/// The shape of y, where x and retention fit each other.
fn recurrence_shape(
    given: &Operands<'_>,
    x: &TensorSpec,
    retention: &TensorSpec,
) -> Result<Vec<usize>> {
    given.rank(x, 3, "[B, T, 3C]")?;
    given.rank(retention, 1, "[C]")?;
    let channels = retention.shape[0];
    given.require(
        channels.checked_mul(3) == Some(x.shape[2]),
        || format!("x [B, T, {}] for a retention of {channels}", channels.saturating_mul(3)),
        || x.to_string(),
    )?;
    Ok(vec![x.shape[0], x.shape[1], channels])
}

fn convolution_shapes(given: &Operands<'_>, x: &TensorSpec, weight: &TensorSpec) -> Result<()> {
    given.rank(x, 3, "[B, T, C]")?;
    given.rank(weight, 2, "[K, C]")?;
    given.require(
        weight.shape[1] == x.shape[2] && weight.shape[0] > 0,
        || format!("a weight [K, {}] for x of {x}", x.shape[2]),
        || weight.to_string(),
    )
}
