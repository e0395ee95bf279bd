//! The arms of `ops` along time: attention, rotary positions, convolutions, scans and
//! recurrences.

use modgrad_compute::attention::{self, AttentionShape};
use modgrad_compute::{Pool, bf16, convolution, recurrence, rope, scan};

use super::HostMemory;
use super::ops::{arity, into_float, stored_as, two, windows, with_floats};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::storage::Storage;

type Input<'a> = crate::backend::Operand<'a, HostMemory>;
type Out<'a> = crate::backend::OperandMut<'a, HostMemory>;

pub(super) fn run(pool: &Pool, op: &Op, x: &[Input<'_>], out: &mut [Out<'_>]) -> Result<()> {
    match op {
        Op::CausalAttention { window } => {
            let (y, logsumexp) = two(out);
            attention::causal_attention(
                pool,
                heads(x[0].shape),
                *window,
                x[0].slice(),
                x[1].slice(),
                x[2].slice(),
                y.slice_mut(),
                logsumexp.slice_mut(),
            );
        }
        Op::CausalAttentionGradient { window } => {
            let [dq, dk, dv] = out else {
                return Err(arity(op));
            };
            attention::causal_attention_gradient(
                pool,
                heads(x[0].shape),
                *window,
                x[0].slice(),
                x[1].slice(),
                x[2].slice(),
                x[3].slice(),
                x[4].slice(),
                x[5].slice(),
                dq.slice_mut(),
                dk.slice_mut(),
                dv.slice_mut(),
            );
        }
        Op::Rope { base, rotated, inverse } => {
            let shape = heads(x[0].shape);
            rope::rope(pool, shape, *base, *rotated, *inverse, x[0].slice(), out[0].slice_mut());
        }
        Op::CausalConvolution => {
            let (batch, time, channels) = windows(x[0].shape);
            let (width, a, weight) = (x[1].shape[0], x[0].slice(), x[1].slice());
            let y = out[0].slice_mut();
            convolution::causal_convolution(pool, batch, time, channels, width, a, weight, y);
        }
        Op::CausalConvolutionGradient => {
            let (batch, time, channels) = windows(x[0].shape);
            let (dx, dweight) = two(out);
            convolution::causal_convolution_gradient(
                pool,
                batch,
                time,
                channels,
                x[1].shape[0],
                x[0].slice(),
                x[1].slice(),
                x[2].slice(),
                dx.slice_mut(),
                dweight.slice_mut(),
            );
        }
        Op::LinearScan => {
            let (batch, time, channels) = windows(x[0].shape);
            let (a, b, h) = (x[0].slice(), x[1].slice(), out[0].slice_mut());
            scan::linear_scan(pool, batch, time, channels, a, b, h);
        }
        Op::LinearScanGradient => {
            let (batch, time, channels) = windows(x[0].shape);
            let (da, db) = two(out);
            scan::linear_scan_gradient(
                pool,
                batch,
                time,
                channels,
                x[0].slice(),
                x[1].slice(),
                x[2].slice(),
                da.slice_mut(),
                db.slice_mut(),
            );
        }

        Op::GatedRecurrence => {
            let sizes = recurrence_sizes(out[0].shape);
            let retention = x[1].slice();
            with_floats!(
                [a = x[0]],
                into_float!(y = out[0], recurrence::gated_recurrence(pool, sizes, a, retention, y))
            );
        }
        Op::GatedRecurrenceGradient => {
            let sizes = recurrence_sizes(x[2].shape);
            let retention = x[1].slice();
            let (dx, dretention) = two(out);
            with_floats!(
                [a = x[0], dy = x[2]],
                into_float!(
                    dx = dx,
                    recurrence::gated_recurrence_gradient(
                        pool,
                        sizes,
                        a,
                        retention,
                        dy,
                        dx,
                        dretention.slice_mut(),
                    )
                )
            );
        }
        _ => return Err(Error::malformed(format!("`{}` is not along time", op.name()))),
    }
    Ok(())
}

fn recurrence_sizes(shape: &[usize]) -> recurrence::Sizes {
    let (batch, time, channels) = windows(shape);
    recurrence::Sizes { batch, time, channels }
}

fn heads(shape: &[usize]) -> AttentionShape {
    AttentionShape { batch: shape[0], time: shape[1], heads: shape[2], head_width: shape[3] }
}
