//! Gradients of weights: sums over samples and ticks, in order, after the loops.

use modgrad_compute::Pool;
use modgrad_compute::gemm::{self, Matrix, Output, Precision};
use modgrad_compute::pool::SharedMut;
use modgrad_compute::reduce::column_sums;
use modgrad_compute::thin::LANES;

use super::backward::{Found, Unit};
use super::packed::Packed;
use super::{Gradients, Shape};

pub(super) fn run(
    pool: &Pool,
    shape: Shape,
    packed: &Packed<'_>,
    found: &Found,
    gradients: &mut Gradients<'_>,
) {
    let Shape { width, neurons, pairs, .. } = shape;
    let rows = shape.batch * shape.ticks;
    let sizes = packed.synapse.sizes();
    for (index, (one, [inner, columns, norm])) in
        gradients.synapse.iter_mut().zip(sizes).enumerate()
    {
        let [x, dy] = &found.layers[index];
        product(pool, x, inner, dy, columns, one.weight);
        column_sums(pool, dy, rows, columns, one.bias, false);
        let [skip_weight, skip_bias] = &mut one.skip;
        let parts = [&mut *one.norm_weight, &mut *one.norm_bias, skip_weight, skip_bias];
        for (part, out) in parts.into_iter().enumerate().filter(|(_, out)| !out.is_empty()) {
            sum(found, |unit| &unit.norms[index][part * norm..][..norm], out);
        }
    }
    if packed.query.inner() == 0 {
        gradients.query_weight.fill(0.0);
    } else {
        product(pool, &found.synchrony, pairs, &found.dquery, width, gradients.query_weight);
    }
    column_sums(pool, &found.dquery, rows, width, gradients.query_bias, false);
    sum(found, |unit| &unit.retention, gradients.retention);
    sum_blocks(pool, neurons, found, |unit| &unit.level1, gradients.level1_weight);
    sum_blocks(pool, neurons, found, |unit| &unit.level1_bias, gradients.level1_bias);
    sum_blocks(pool, neurons, found, |unit| &unit.level2, gradients.level2_weight);
    sum_blocks(pool, neurons, found, |unit| &unit.level2_bias, gradients.level2_bias);
}

/// out [k][n] = xᵀ·dy over all rows.
fn product(pool: &Pool, x: &[f32], inner: usize, dy: &[f32], width: usize, out: &mut [f32]) {
    let rows = x.len() / inner;
    let left = Matrix::f32(x, rows, inner).transposed();
    let right = Matrix::f32(dy, rows, width);
    gemm::gemm(pool, Precision::F32, left, right, Output::F32(out), false, None);
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

/// out [K][D] = the sum of all units' [blocks][K][LANES].
fn sum_blocks(
    pool: &Pool,
    neurons: usize,
    found: &Found,
    of: impl Fn(&Unit) -> &[f32] + Sync,
    out: &mut [f32],
) {
    let count = out.len() / neurons;
    let few = (1usize << 15).div_ceil((count * LANES).max(1));
    let out = SharedMut::new(out);
    pool.for_ranges(neurons.div_ceil(LANES), few, |blocks| {
        for block in blocks {
            let start = block * LANES;
            let lanes = LANES.min(neurons - start);
            for k in 0..count {
                let mut sums = [0.0f32; LANES];
                for unit in &found.units {
                    let part = &of(unit)[(block * count + k) * LANES..][..LANES];
                    for (sum, value) in sums.iter_mut().zip(part) {
                        *sum += value;
                    }
                }
                let at = k * neurons + start;
                // SAFETY: the block's own neurons.
                unsafe { out.slice(at..at + lanes) }.copy_from_slice(&sums[..lanes]);
            }
        }
    });
}
