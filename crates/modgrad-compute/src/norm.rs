//! Normalisation of rows of length d: RMS norm and layer norm with gradients.
//!
//! A row stays in the first-level cache while it is read two or three times,
//! so memory sees one pass. Gradients of the parameters are summed over fixed
//! blocks of rows in the same pass.

use crate::elementwise::{expect_length, rows_per_thread};
use crate::pool::SharedMut;
use crate::reduce::{fold_lanes, sum_lanes, sum_row_blocks};
use crate::{Element, Pool, multiversion};

/// y = x * rstd * weight with rstd = 1 / sqrt(mean(x²) + epsilon) for each row.
/// The lengths of `weight` and `rstd` give the row length and the rows.
pub fn rms_norm<X: Element, Y: Element>(
    pool: &Pool,
    x: &[X],
    weight: &[f32],
    epsilon: f32,
    y: &mut [Y],
    rstd: &mut [f32],
) {
    let d = weight.len();
    expect_length("rms_norm", "x", x.len(), rstd.len() * d);
    expect_length("rms_norm", "y", y.len(), x.len());
    if d == 0 {
        return;
    }
    let y = SharedMut::new(y);
    pool.for_rows(rstd, 1, rows_per_thread(d), |first, rstd| {
        let range = first * d..(first + rstd.len()) * d;
        // SAFETY: the threads have disjoint rows.
        let y = unsafe { y.slice(range.clone()) };
        rms_norm_rows(&x[range], weight, epsilon, y, rstd);
    });
}

multiversion! {
    fn rms_norm_rows[X: Element, Y: Element](
        x: &[X],
        weight: &[f32],
        epsilon: f32,
        y: &mut [Y],
        rstd: &mut [f32],
    ) {
        let d = weight.len();
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(rstd);
        for ((x, y), rstd) in rows {
            let squares = sum_lanes(fold_lanes!(0.0f32; lane, x => lane + x * x));
            let scale = 1.0 / (squares / d as f32 + epsilon).sqrt();
            *rstd = scale;
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = Y::from_f32(x.to_f32() * scale * weight);
            }
        }
    }
}

/// Gradients of [`rms_norm`]; `dx` and `dweight` are overwritten.
pub fn rms_norm_gradient<X: Element, D: Element, G: Element>(
    pool: &Pool,
    x: &[X],
    weight: &[f32],
    rstd: &[f32],
    dy: &[D],
    dx: &mut [G],
    dweight: &mut [f32],
) {
    let (d, rows) = (weight.len(), rstd.len());
    expect_length("rms_norm_gradient", "x", x.len(), rows * d);
    expect_length("rms_norm_gradient", "dy", dy.len(), rows * d);
    expect_length("rms_norm_gradient", "dx", dx.len(), rows * d);
    expect_length("rms_norm_gradient", "dweight", dweight.len(), d);
    dweight.fill(0.0);
    let dx = SharedMut::new(dx);
    sum_row_blocks(pool, rows, &mut [dweight], |rows, dweight| {
        let range = rows.start * d..rows.end * d;
        // SAFETY: the blocks have disjoint rows.
        let dx = unsafe { dx.slice(range.clone()) };
        rms_norm_gradient_rows(&x[range.clone()], weight, &rstd[rows], &dy[range], dx, dweight);
    });
}

multiversion! {
    fn rms_norm_gradient_rows[X: Element, D: Element, G: Element](
        x: &[X],
        weight: &[f32],
        rstd: &[f32],
        dy: &[D],
        dx: &mut [G],
        dweight: &mut [f32],
    ) {
        let d = weight.len();
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((x, dy), dx), &rstd) in rows.zip(rstd) {
            let product =
                sum_lanes(fold_lanes!(0.0f32; lane, x, dy, weight => lane + x * dy * weight));
            let along = product * rstd * rstd / d as f32;
            let operands = x.iter().zip(dy).zip(weight);
            for (((x, dy), weight), (dx, dweight)) in
                operands.zip(dx.iter_mut().zip(dweight.iter_mut()))
            {
                let (x, dy) = (x.to_f32(), dy.to_f32());
                *dx = G::from_f32(rstd * (weight * dy - x * along));
                *dweight += dy * x * rstd;
            }
        }
    }
}

/// y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(variance +
/// epsilon) for each row.
pub fn layer_norm<X: Element, Y: Element>(
    pool: &Pool,
    x: &[X],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    y: &mut [Y],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let d = weight.len();
    expect_length("layer_norm", "bias", bias.len(), d);
    expect_length("layer_norm", "x", x.len(), rstd.len() * d);
    expect_length("layer_norm", "y", y.len(), x.len());
    expect_length("layer_norm", "mean", mean.len(), rstd.len());
    if d == 0 {
        return;
    }
    let (y, mean) = (SharedMut::new(y), SharedMut::new(mean));
    pool.for_rows(rstd, 1, rows_per_thread(d), |first, rstd| {
        let rows = first..first + rstd.len();
        let range = rows.start * d..rows.end * d;
        // SAFETY: the threads have disjoint rows.
        let (y, mean) = unsafe { (y.slice(range.clone()), mean.slice(rows)) };
        layer_norm_rows(&x[range], weight, bias, epsilon, y, mean, rstd);
    });
}

multiversion! {
    fn layer_norm_rows[X: Element, Y: Element](
        x: &[X],
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
        y: &mut [Y],
        mean: &mut [f32],
        rstd: &mut [f32],
    ) {
        let d = weight.len();
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(mean).zip(rstd);
        for (((x, y), mean), rstd) in rows {
            let centre = sum_lanes(fold_lanes!(0.0f32; lane, x => lane + x)) / d as f32;
            let squares = sum_lanes(
                fold_lanes!(0.0f32; lane, x => lane + (x - centre) * (x - centre))
            );
            let scale = 1.0 / (squares / d as f32 + epsilon).sqrt();
            (*mean, *rstd) = (centre, scale);
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = Y::from_f32((x.to_f32() - centre) * scale * weight + bias);
            }
        }
    }
}

/// Gradients of [`layer_norm`]; `dx`, `dweight` and `dbias` are overwritten.
pub fn layer_norm_gradient<X: Element, D: Element, G: Element>(
    pool: &Pool,
    x: &[X],
    weight: &[f32],
    mean: &[f32],
    rstd: &[f32],
    dy: &[D],
    dx: &mut [G],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let (d, rows) = (weight.len(), rstd.len());
    expect_length("layer_norm_gradient", "mean", mean.len(), rows);
    expect_length("layer_norm_gradient", "x", x.len(), rows * d);
    expect_length("layer_norm_gradient", "dy", dy.len(), rows * d);
    expect_length("layer_norm_gradient", "dx", dx.len(), rows * d);
    expect_length("layer_norm_gradient", "dweight", dweight.len(), d);
    expect_length("layer_norm_gradient", "dbias", dbias.len(), d);
    dweight.fill(0.0);
    dbias.fill(0.0);
    let dx = SharedMut::new(dx);
    sum_row_blocks(pool, rows, &mut [dweight, dbias], |rows, partial| {
        let range = rows.start * d..rows.end * d;
        let (dweight, dbias) = partial.split_at_mut(d);
        // SAFETY: the blocks have disjoint rows.
        let dx = unsafe { dx.slice(range.clone()) };
        layer_norm_gradient_rows(
            &x[range.clone()],
            weight,
            &mean[rows.clone()],
            &rstd[rows],
            &dy[range],
            dx,
            dweight,
            dbias,
        );
    });
}

multiversion! {
    fn layer_norm_gradient_rows[X: Element, D: Element, G: Element](
        x: &[X],
        weight: &[f32],
        mean: &[f32],
        rstd: &[f32],
        dy: &[D],
        dx: &mut [G],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let d = weight.len();
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((x, dy), dx), (&mean, &rstd)) in rows.zip(mean.iter().zip(rstd)) {
            let sum = sum_lanes(fold_lanes!(0.0f32; lane, dy, weight => lane + dy * weight));
            let product = sum_lanes(fold_lanes!(
                0.0f32; lane, x, dy, weight => lane + (x - mean) * dy * weight
            ));
            let constant = sum / d as f32;
            let along = product * rstd / d as f32;
            let operands = x.iter().zip(dy).zip(weight).zip(dx.iter_mut());
            for ((((x, dy), weight), dx), (dweight, dbias)) in
                operands.zip(dweight.iter_mut().zip(dbias.iter_mut()))
            {
                let (normal, dy) = ((x.to_f32() - mean) * rstd, dy.to_f32());
                *dx = G::from_f32(rstd * (weight * dy - constant - normal * along));
                *dweight += dy * normal;
                *dbias += dy;
            }
        }
    }
}

#[cfg(test)]
mod tests;
