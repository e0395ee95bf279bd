//! Softmax and cross-entropy over rows of length c, with gradients.
//!
//! The exponential is taken of the distance to the row's maximum. A row's
//! exponentials are kept on the stack where they fit, so that each is computed
//! once.

use crate::elementwise::{expect_length, expect_whole_rows, rows_per_thread};
use crate::pool::SharedMut;
use crate::reduce::{combine_lanes, fold_lanes, sum_lanes};
use crate::{Element, Pool, math, multiversion};

/// An integer type that indices are stored in.
pub trait Index: Copy + Send + Sync + 'static {
    /// The index; a negative one becomes too large for any table.
    fn to_usize(self) -> usize;
}

macro_rules! index {
    ($($kind:ty),*) => {
        $(impl Index for $kind {
            #[inline(always)]
            fn to_usize(self) -> usize {
                self as usize
            }
        })*
    };
}
index!(u8, u16, u32, i32, i64, usize);

/// Rows of up to this many classes are taken [`TOGETHER`] at a time.
const NARROW: usize = 16;
/// How many narrow rows go through side by side, a lane each.
const TOGETHER: usize = 16;

/// Elements whose exponentials are held on the stack: 8 KiB.
const HELD: usize = 2048;

/// y = softmax of each row of `c`.
pub fn softmax<X: Element, Y: Element>(pool: &Pool, x: &[X], c: usize, y: &mut [Y]) {
    expect_length("softmax", "y", y.len(), x.len());
    expect_whole_rows("softmax", "x", x.len(), c);
    pool.for_rows(y, c, rows_per_thread(c), |first, y| {
        softmax_rows(&x[first * c..first * c + y.len()], c, y);
    });
}

multiversion! {
    fn softmax_rows[X: Element, Y: Element](x: &[X], c: usize, y: &mut [Y]) {
        let mut held = [0.0f32; HELD];
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let largest = largest(x);
            let scale = 1.0 / sum_of_exponentials(x, largest, &mut held);
            if c <= HELD {
                for (y, e) in y.iter_mut().zip(&held) {
                    *y = Y::from_f32(e * scale);
                }
            } else {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = Y::from_f32(math::exp_normal(x.to_f32() - largest) * scale);
                }
            }
        }
    }
}

/// The largest value of a row; a NaN is left to the sum that follows.
#[inline(always)]
fn largest<X: Element>(x: &[X]) -> f32 {
    let lanes = fold_lanes!(f32::NEG_INFINITY; lane, x => if x > lane { x } else { lane });
    combine_lanes(lanes, |x, y| if x > y { x } else { y })
}

/// The sum of e^(x - largest); the last exponentials, up to [`HELD`], stay in
/// `held`.
#[inline(always)]
fn sum_of_exponentials<X: Element>(x: &[X], largest: f32, held: &mut [f32; HELD]) -> f32 {
    let mut sum = 0.0;
    for x in x.chunks(HELD) {
        let held = &mut held[..x.len()];
        for (e, x) in held.iter_mut().zip(x) {
            *e = math::exp_normal(x.to_f32() - largest);
        }
        sum += sum_lanes(fold_lanes!(0.0f32; lane, held => lane + held));
    }
    sum
}

/// dx = y * (dy - sum(y * dy)) for each row of `c`, given the softmax `y`.
pub fn softmax_gradient<Y: Element, D: Element, G: Element>(
    pool: &Pool,
    y: &[Y],
    dy: &[D],
    c: usize,
    dx: &mut [G],
) {
    expect_length("softmax_gradient", "dy", dy.len(), y.len());
    expect_length("softmax_gradient", "dx", dx.len(), y.len());
    expect_whole_rows("softmax_gradient", "y", y.len(), c);
    pool.for_rows(dx, c, rows_per_thread(c), |first, dx| {
        let range = first * c..first * c + dx.len();
        softmax_gradient_rows(&y[range.clone()], &dy[range], c, dx);
    });
}

multiversion! {
    fn softmax_gradient_rows[Y: Element, D: Element, G: Element](
        y: &[Y],
        dy: &[D],
        c: usize,
        dx: &mut [G],
    ) {
        let rows = y.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c));
        for ((y, dy), dx) in rows {
            let along = sum_lanes(fold_lanes!(0.0f32; lane, y, dy => lane + y * dy));
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                *dx = G::from_f32(y.to_f32() * (dy.to_f32() - along));
            }
        }
    }
}

/// loss = logsumexp(row) - row[target] for each row of `classes` logits, in
/// nats. A target that is no class gives a NaN loss; callers check targets.
pub fn cross_entropy<X: Element, I: Index>(
    pool: &Pool,
    logits: &[X],
    targets: &[I],
    classes: usize,
    loss: &mut [f32],
    logsumexp: &mut [f32],
) {
    expect_length("cross_entropy", "logits", logits.len(), targets.len() * classes);
    expect_length("cross_entropy", "loss", loss.len(), targets.len());
    expect_length("cross_entropy", "logsumexp", logsumexp.len(), targets.len());
    let logsumexp = SharedMut::new(logsumexp);
    pool.for_rows(loss, 1, rows_per_thread(classes), |first, loss| {
        let rows = first..first + loss.len();
        let logits = &logits[rows.start * classes..rows.end * classes];
        // SAFETY: the threads have disjoint rows.
        let logsumexp = unsafe { logsumexp.slice(rows.clone()) };
        if (1..=NARROW).contains(&classes) {
            cross_entropy_narrow(logits, &targets[rows], classes, loss, logsumexp);
        } else {
            cross_entropy_rows(logits, &targets[rows], classes, loss, logsumexp);
        }
    });
}

multiversion! {
    fn cross_entropy_rows[X: Element, I: Index](
        logits: &[X],
        targets: &[I],
        classes: usize,
        loss: &mut [f32],
        logsumexp: &mut [f32],
    ) {
        let mut held = [0.0f32; HELD];
        for (row, target) in targets.iter().enumerate() {
            let logits = &logits[row * classes..(row + 1) * classes];
            let largest = largest(logits);
            let log_sum = math::log(sum_of_exponentials(logits, largest, &mut held));
            logsumexp[row] = largest + log_sum;
            // The difference first: it loses nothing where the logits are large.
            loss[row] = match logits.get(target.to_usize()) {
                Some(logit) => (largest - logit.to_f32()) + log_sum,
                None => f32::NAN,
            };
        }
    }
}

multiversion! {
    /// As `cross_entropy_rows`, with rows for lanes. A row's sums run over its classes in
    /// order, whatever stands beside it.
    fn cross_entropy_narrow[X: Element, I: Index](
        logits: &[X],
        targets: &[I],
        classes: usize,
        loss: &mut [f32],
        logsumexp: &mut [f32],
    ) {
        for first in (0..targets.len()).step_by(TOGETHER) {
            let rows = TOGETHER.min(targets.len() - first);
            let mut columns = [[0.0f32; TOGETHER]; NARROW];
            let columns = &mut columns[..classes];
            for (row, logits) in logits[first * classes..].chunks_exact(classes).enumerate().take(rows) {
                for (column, logit) in columns.iter_mut().zip(logits) {
                    column[row] = logit.to_f32();
                }
            }
            let mut largest = [f32::NEG_INFINITY; TOGETHER];
            for column in columns.iter() {
                for (largest, logit) in largest.iter_mut().zip(column) {
                    *largest = if *logit > *largest { *logit } else { *largest };
                }
            }
            let mut log_sums = [0.0f32; TOGETHER];
            for column in columns.iter() {
                for ((sum, logit), largest) in log_sums.iter_mut().zip(column).zip(&largest) {
                    *sum += math::exp_normal(logit - largest);
                }
            }
            for sum in &mut log_sums {
                *sum = math::log(*sum);
            }
            for row in 0..rows {
                logsumexp[first + row] = largest[row] + log_sums[row];
                let target = targets[first + row].to_usize();
                loss[first + row] = match columns.get(target) {
                    Some(column) => (largest[row] - column[row]) + log_sums[row],
                    None => f32::NAN,
                };
            }
        }
    }
}

/// dlogits = (softmax(row) - onehot(target)) * dloss, from the `logsumexp` of
/// [`cross_entropy`]. A target that is no class gives a row of NaN.
pub fn cross_entropy_gradient<X: Element, I: Index, G: Element>(
    pool: &Pool,
    logits: &[X],
    targets: &[I],
    logsumexp: &[f32],
    dloss: &[f32],
    classes: usize,
    dlogits: &mut [G],
) {
    expect_length("cross_entropy_gradient", "logits", logits.len(), targets.len() * classes);
    expect_length("cross_entropy_gradient", "logsumexp", logsumexp.len(), targets.len());
    expect_length("cross_entropy_gradient", "dloss", dloss.len(), targets.len());
    expect_length("cross_entropy_gradient", "dlogits", dlogits.len(), logits.len());
    pool.for_rows(dlogits, classes, rows_per_thread(classes), |first, dlogits| {
        let rows = first..first + dlogits.len() / classes;
        let logits = &logits[rows.start * classes..rows.end * classes];
        let (targets, logsumexp) = (&targets[rows.clone()], &logsumexp[rows.clone()]);
        cross_entropy_gradient_rows(logits, targets, logsumexp, &dloss[rows], classes, dlogits);
    });
}

multiversion! {
    fn cross_entropy_gradient_rows[X: Element, I: Index, G: Element](
        logits: &[X],
        targets: &[I],
        logsumexp: &[f32],
        dloss: &[f32],
        classes: usize,
        dlogits: &mut [G],
    ) {
        let rows = logits.chunks_exact(classes).zip(dlogits.chunks_exact_mut(classes));
        let given = targets.iter().zip(logsumexp).zip(dloss);
        for ((logits, dlogits), ((target, &logsumexp), &dloss)) in rows.zip(given) {
            for (dlogit, logit) in dlogits.iter_mut().zip(logits) {
                *dlogit = G::from_f32(math::exp_normal(logit.to_f32() - logsumexp) * dloss);
            }
            match logits.get(target.to_usize()) {
                Some(logit) => {
                    let probability = math::exp_normal(logit.to_f32() - logsumexp);
                    dlogits[target.to_usize()] = G::from_f32((probability - 1.0) * dloss);
                }
                None => dlogits.fill(G::from_f32(f32::NAN)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
