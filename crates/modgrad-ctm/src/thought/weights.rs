//! Gradients of weights: sums over samples and ticks, in order, after the loops.

use modgrad_compute::Pool;
use modgrad_compute::gemm::{self, Data, Matrix, Output, Precision};
use modgrad_compute::pool::SharedMut;
use modgrad_compute::reduce::column_sums;
use modgrad_compute::thin::LANES;

use super::backward::{Found, Unit};
use super::packed::Packed;
use super::{Gradients, Read, Shape};

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    packed: &Packed<'_>,
    read: Read<'_>,
    found: &Found,
    gradients: &mut Gradients<'_>,
) {
    let rows = shape.batch * shape.ticks;
    let sizes = packed.synapse.sizes();
    for (index, (one, [inner, columns, norm])) in
        gradients.synapse.iter_mut().zip(sizes).enumerate()
    {
        let [x, dy] = &found.layers[index];
        product(pool, Matrix::f32(x, rows, inner), Matrix::f32(dy, rows, columns), one.weight);
        column_sums(pool, dy, rows, columns, one.bias, false);
        let [skip_weight, skip_bias] = &mut one.skip;
        let parts = [&mut *one.norm_weight, &mut *one.norm_bias, skip_weight, skip_bias];
        for (part, out) in parts.into_iter().enumerate().filter(|(_, out)| !out.is_empty()) {
            sum(found, |unit| &unit.norms[index][part * norm..][..norm], out);
        }
    }
    of_attention(pool, shape, packed, read, found, gradients);
    sum(found, |unit| &unit.retention, gradients.retention);
    of_neurons(pool, shape, packed, found, gradients);
}

/// Those of the query and of projections.
fn of_attention(
    pool: &Pool,
    shape: Shape,
    packed: &Packed<'_>,
    read: Read<'_>,
    found: &Found,
    gradients: &mut Gradients<'_>,
) {
    let (rows, width, kept) = (shape.batch * shape.ticks, shape.width, shape.kept_width());
    // Before the projection, or after.
    let stage = |data, stage: usize| part(data, rows, kept, stage * width, width);
    if packed.pairs == 0 {
        gradients.query_weight.fill(0.0);
    } else {
        let synchrony = Matrix::f32(&found.synchrony, rows, packed.pairs);
        product(pool, stage(&found.dquery, 0), synchrony, gradients.query_weight);
    }
    let mut sums = vec![0.0; kept];
    column_sums(pool, &found.dquery, rows, kept, &mut sums, false);
    gradients.query_bias.copy_from_slice(&sums[..width]);
    if let Some(projections) = &mut gradients.projections {
        let dquery = stage(&found.dquery, 1);
        product(pool, dquery, stage(read.query, 0), projections.query_weight);
        projections.query_bias.copy_from_slice(&sums[width..]);
        let dtold = Matrix::f32(&found.dtold, rows, width);
        product(pool, dtold, stage(read.attended, 0), projections.read_weight);
        column_sums(pool, &found.dtold, rows, width, projections.read_bias, false);
    }
}

/// Those of neuron-level models, and of the temperatures that divide them.
fn of_neurons(
    pool: &Pool,
    shape: Shape,
    packed: &Packed<'_>,
    found: &Found,
    gradients: &mut Gradients<'_>,
) {
    let weights = packed.weights;
    let scale = [0, 1].map(|level| weights.inverse_temperature(level));
    let scaled = |level: usize, of: fn(&Unit) -> &[f32], given, out| -> f32 {
        sum_blocks(pool, shape.neurons, found, of, (scale[level], given), out)
    };
    let of_scales = [
        scaled(0, |unit| &unit.level1, weights.level1_weight, gradients.level1_weight)
            + scaled(0, |unit| &unit.level1_bias, weights.level1_bias, gradients.level1_bias),
        scaled(1, |unit| &unit.level2, weights.level2_weight, gradients.level2_weight)
            + scaled(1, |unit| &unit.level2_bias, weights.level2_bias, gradients.level2_bias),
    ];
    if let Some(projections) = &mut gradients.projections {
        let all = projections.temperatures.iter_mut().zip(of_scales).zip(scale);
        for ((out, of_scale), scale) in all {
            *out = -of_scale * scale * scale;
        }
    }
}

/// Columns of a matrix of rows of `stride` values, from `at` on.
fn part(data: &[f32], rows: usize, stride: usize, at: usize, columns: usize) -> Matrix<'_> {
    let data = Data::F32(data.get(at..).unwrap_or_default());
    Matrix { data, rows, columns, row_stride: stride, column_stride: 1 }
}

/// out = leftᵀ·right, over all rows.
fn product(pool: &Pool, left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32]) {
    gemm::gemm(pool, Precision::F32, left.transposed(), right, Output::F32(out), false, None);
}

/// out = the sum of all units' parts.
fn sum<'a>(found: &'a Found, of: impl Fn(&'a Unit) -> &'a [f32], out: &mut [f32]) {
    out.fill(0.0);
    for unit in &found.units {
        for (out, value) in out.iter_mut().zip(of(unit)) {
            *out += value;
        }
    }
}

/// out [K][D] = the sum of all units' [blocks][K][LANES], times the scale that the
/// weights `given` [K][D] had been multiplied by; the gradient of that scale.
fn sum_blocks(
    pool: &Pool,
    neurons: usize,
    found: &Found,
    of: impl Fn(&Unit) -> &[f32] + Sync,
    (scale, given): (f32, &[f32]),
    out: &mut [f32],
) -> f32 {
    let count = out.len() / neurons;
    let few = (1usize << 15).div_ceil((count * LANES).max(1));
    let mut of_scale = vec![0.0f32; neurons.div_ceil(LANES)];
    let (out, of_blocks) = (SharedMut::new(out), SharedMut::new(&mut of_scale));
    pool.for_ranges(neurons.div_ceil(LANES), few, |blocks| {
        for block in blocks {
            let start = block * LANES;
            let lanes = LANES.min(neurons - start);
            let mut of_block = [0.0f32; LANES];
            for k in 0..count {
                let mut sums = [0.0f32; LANES];
                for unit in &found.units {
                    let part = &of(unit)[(block * count + k) * LANES..][..LANES];
                    for (sum, value) in sums.iter_mut().zip(part) {
                        *sum += value;
                    }
                }
                let at = k * neurons + start..k * neurons + start + lanes;
                // SAFETY: the block's own neurons.
                let out = unsafe { out.slice(at.clone()) };
                let all = out.iter_mut().zip(&given[at]).zip(&mut of_block).zip(sums);
                for (((out, given), of_block), sum) in all {
                    *out = sum * scale;
                    *of_block += sum * given;
                }
            }
            // SAFETY: the block's own place.
            let place = unsafe { of_blocks.slice(block..block + 1) };
            place[0] = of_block.iter().sum::<f32>();
        }
    });
    of_scale.iter().sum()
}
