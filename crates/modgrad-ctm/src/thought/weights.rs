//! Gradients of weights: sums over samples and ticks, in order, after the loops.

use modgrad_compute::Pool;
use modgrad_compute::gemm::{self, Matrix, Output, Precision};
use modgrad_compute::pool::SharedMut;
use modgrad_compute::reduce::column_sums;
use modgrad_compute::thin::{self, LANES, Strides};

use super::backward::Found;
use super::{Gradients, Inputs, Read, Shape};
use crate::synchronisation::state;

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    read: Read<'_>,
    found: &Found,
    gradients: &mut Gradients<'_>,
) {
    let Shape { batch, ticks, neurons, width, pairs, .. } = shape;
    let (padded, rows) = (shape.padded(), batch * ticks);
    let mut joined = vec![0.0f32; rows * (width + neurons)];
    for (row, input) in joined.chunks_mut(width + neurons).enumerate() {
        let (b, t) = (row / ticks, row % ticks);
        let start = &inputs.state[b * neurons..];
        let states = &read.states[b * ticks * neurons..][..ticks * neurons];
        input[..width].copy_from_slice(&read.attended[row * width..][..width]);
        input[width..].copy_from_slice(state(&start[..neurons], states, neurons, t));
    }
    let columns = unpadded(&found.dsynapse, neurons, padded);
    product(pool, &joined, width + neurons, &columns, 2 * neurons, gradients.synapse_weight);
    column_sums(pool, &columns, rows, 2 * neurons, gradients.synapse_bias, false);

    let columns = unpadded(&found.dquery, width, shape.padded_width());
    if shape.reads_once() {
        gradients.query_weight.fill(0.0);
    } else {
        product(pool, &found.synchrony, pairs, &columns, width, gradients.query_weight);
    }
    column_sums(pool, &columns, rows, width, gradients.query_bias, false);

    let level1 = Layer {
        inputs: shape.memory,
        outputs: shape.outputs(),
        x_slot: shape.slot(),
        dy_slot: shape.slot(),
    };
    let traces = Rows {
        data: &found.traces,
        sample: (shape.memory + ticks) * shape.slot(),
        skip: shape.slot(),
        row: shape.slot(),
    };
    level1.run(pool, shape, traces, &found.dhidden, gradients.level1_weight, gradients.level1_bias);
    if shape.hidden > 0 {
        let level2 =
            Layer { inputs: shape.hidden, outputs: 2, x_slot: shape.slot(), dy_slot: padded };
        let size = shape.hidden * shape.slot();
        let gated = Rows { data: &found.gated, sample: ticks * size, skip: 0, row: size };
        level2.run(
            pool,
            shape,
            gated,
            &found.dsecond,
            gradients.level2_weight,
            gradients.level2_bias,
        );
    }
}

/// out [k][n] = xᵀ·dy over all rows.
fn product(pool: &Pool, x: &[f32], inner: usize, dy: &[f32], width: usize, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    let rows = x.len() / inner;
    let left = Matrix::f32(x, rows, inner).transposed();
    let right = Matrix::f32(dy, rows, width);
    gemm::gemm(pool, Precision::F32, left, right, Output::F32(out), false, None);
}

/// Rows of `padded` without what stands behind the first `width` of each.
fn unpadded(rows: &[f32], width: usize, padded: usize) -> Vec<f32> {
    if width == padded {
        return rows.to_vec();
    }
    rows.chunks(padded).flat_map(|row| &row[..width]).copied().collect()
}

/// Where a layer's inputs lie: tick t of sample b from `b·sample + skip + t·row` on.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    sample: usize,
    skip: usize,
    row: usize,
}

/// A layer of the neuron-level models.
struct Layer {
    inputs: usize,
    outputs: usize,
    /// From a slot of the inputs to the next.
    x_slot: usize,
    /// From a slot of the outputs to the next.
    dy_slot: usize,
}

impl Layer {
    /// dweight [inputs][outputs][D] and dbias [outputs][D], a thread a block of neurons.
    fn run(
        &self,
        pool: &Pool,
        shape: Shape,
        x: Rows<'_>,
        dy: &[f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let Layer { inputs, outputs, x_slot, dy_slot } = *self;
        let Shape { batch, ticks, neurons, .. } = shape;
        let padded = shape.padded();
        let (dweight, dbias) = (SharedMut::new(dweight), SharedMut::new(dbias));
        let x_at = Strides { row: x.row, slot: x_slot };
        let dy_at = Strides { row: outputs * dy_slot, slot: dy_slot };
        pool.for_ranges(padded / LANES, 1, |blocks| {
            let mut sums = vec![0.0f32; inputs * outputs * LANES];
            let mut biases = vec![0.0f32; outputs * LANES];
            for block in blocks {
                let start = block * LANES;
                sums.fill(0.0);
                biases.fill(0.0);
                for b in 0..batch {
                    let x = &x.data[b * x.sample + x.skip + start..];
                    let dy = &dy[b * ticks * outputs * dy_slot + start..];
                    thin::lanewise_outer(ticks, inputs, outputs, x, x_at, dy, dy_at, &mut sums);
                    for t in 0..ticks {
                        for (o, bias) in biases.chunks_mut(LANES).enumerate() {
                            let dy = &dy[(t * outputs + o) * dy_slot..][..LANES];
                            for (bias, dy) in bias.iter_mut().zip(dy) {
                                *bias += dy;
                            }
                        }
                    }
                }
                let lanes = LANES.min(neurons - start);
                let at = |k: usize| k * neurons + start..k * neurons + start + lanes;
                for (k, sum) in sums.chunks(LANES).enumerate() {
                    // SAFETY: the block's own neurons.
                    unsafe { dweight.slice(at(k)) }.copy_from_slice(&sum[..lanes]);
                }
                for (o, bias) in biases.chunks(LANES).enumerate() {
                    // SAFETY: the block's own neurons.
                    unsafe { dbias.slice(at(o)) }.copy_from_slice(&bias[..lanes]);
                }
            }
        });
    }
}
