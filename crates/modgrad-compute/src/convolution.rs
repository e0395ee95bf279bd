//! Depthwise causal convolution over time, and a shift in time.
//!
//! Tensors are `[B, T, C]`; each window has its own, empty past.

use std::ops::Range;

use crate::pool::SharedMut;
use crate::{Pool, multiversion};

/// Threads share channels in multiples of this: a cache line of f32.
const CHANNEL_GRANULE: usize = 16;

/// `out[b, t, c]` = sum over j < width of `weight[j, c]` * `x[b, t - j, c]`.
///
/// `weight` is `[width, channels]`: `weight[0]` multiplies the current
/// position. Panics when the lengths disagree.
pub fn causal_convolution(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
) {
    let size = batch * time * channels;
    let name = "causal_convolution";
    check(name, &[("x", x.len(), size), ("out", out.len(), size)]);
    check(name, &[("weight", weight.len(), width * channels)]);
    pool.for_rows(out, channels, 16, |first, stretch| {
        filter(first, time, channels, x, weight, stretch);
    });
}

/// The gradients of [`causal_convolution`] with respect to `x` and `weight`.
pub fn causal_convolution_gradient(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    dout: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let size = batch * time * channels;
    let name = "causal_convolution_gradient";
    check(name, &[("x", x.len(), size), ("dout", dout.len(), size), ("dx", dx.len(), size)]);
    check(name, &[("weight", weight.len(), width * channels)]);
    check(name, &[("dweight", dweight.len(), width * channels)]);
    pool.for_rows(dx, channels, 16, |first, stretch| {
        filter_backward(first, time, channels, dout, weight, stretch);
    });
    // Threads share the channels, so the order of each sum is fixed.
    let dweight = SharedMut::new(dweight);
    pool.for_ranges(channels, CHANNEL_GRANULE, |range| {
        let sums = correlate(batch, time, channels, width, range.clone(), x, dout);
        for (lag, sums) in sums.chunks_exact(range.len()).enumerate() {
            let start = lag * channels;
            // SAFETY: each thread has its own channels.
            let part = unsafe { dweight.slice(start + range.start..start + range.end) };
            part.copy_from_slice(sums);
        }
    });
}

/// `out[b, t]` = `x[b, t - amount]`, zeros where that is outside the window.
///
/// `amount` may be negative; a shift by `-amount` is the gradient.
pub fn shift<T: Copy + Default + Send + Sync>(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    amount: isize,
    x: &[T],
    out: &mut [T],
) {
    let size = batch * time * channels;
    check("shift", &[("x", x.len(), size), ("out", out.len(), size)]);
    pool.for_rows(out, channels, 64, |first, stretch| {
        for (offset, row) in stretch.chunks_exact_mut(channels).enumerate() {
            let position = first + offset;
            match (position % time).checked_add_signed(amount.saturating_neg()) {
                Some(source) if source < time => {
                    let source = position - position % time + source;
                    row.copy_from_slice(&x[source * channels..][..channels]);
                }
                _ => row.fill(T::default()),
            }
        }
    });
}

multiversion! {
    /// The rows of `out`, the first of which is row `first` of `[B T]`.
    fn filter(
        first: usize,
        time: usize,
        channels: usize,
        x: &[f32],
        weight: &[f32],
        out: &mut [f32],
    ) {
        for (offset, out) in out.chunks_exact_mut(channels).enumerate() {
            let position = first + offset;
            out.fill(0.0);
            for (lag, weight) in weight.chunks_exact(channels).take(position % time + 1).enumerate()
            {
                let x = &x[(position - lag) * channels..][..channels];
                for c in 0..channels {
                    out[c] += weight[c] * x[c];
                }
            }
        }
    }
}

multiversion! {
    /// The rows of `dx`, the first of which is row `first` of `[B T]`.
    fn filter_backward(
        first: usize,
        time: usize,
        channels: usize,
        dout: &[f32],
        weight: &[f32],
        dx: &mut [f32],
    ) {
        for (offset, dx) in dx.chunks_exact_mut(channels).enumerate() {
            let position = first + offset;
            dx.fill(0.0);
            let ahead = time - position % time;
            for (lag, weight) in weight.chunks_exact(channels).take(ahead).enumerate() {
                let dout = &dout[(position + lag) * channels..][..channels];
                for c in 0..channels {
                    dx[c] += weight[c] * dout[c];
                }
            }
        }
    }
}

multiversion! {
    /// `[width, part]`: the sums over b and t of `dout[b, t, c]` *
    /// `x[b, t - lag, c]` for the channels `part`. Each window is summed for
    /// itself first: shorter sums lose less.
    fn correlate(
        batch: usize,
        time: usize,
        channels: usize,
        width: usize,
        part: Range<usize>,
        x: &[f32],
        dout: &[f32],
    ) -> Vec<f32> {
        let lanes = part.len();
        let mut totals = vec![0.0f32; width * lanes];
        let mut sums = vec![0.0f32; width * lanes];
        for window in 0..batch {
            sums.fill(0.0);
            for t in 0..time {
                let here = (window * time + t) * channels + part.start;
                let dout = &dout[here..][..lanes];
                for (lag, sums) in sums.chunks_exact_mut(lanes).take(t + 1).enumerate() {
                    let x = &x[here - lag * channels..][..lanes];
                    for c in 0..lanes {
                        sums[c] += dout[c] * x[c];
                    }
                }
            }
            for (total, sum) in totals.iter_mut().zip(&sums) {
                *total += sum;
            }
        }
        totals
    }
}

/// Panics unless each named length is what it should be.
pub(crate) fn check(name: &str, lengths: &[(&str, usize, usize)]) {
    for (argument, length, expected) in lengths {
        assert_eq!(length, expected, "`{name}`: length of {argument}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (batch, time, channels, width)
    type Sizes = (usize, usize, usize, usize);

    const SIZES: [Sizes; 13] = [
        (0, 3, 4, 2),
        (2, 0, 4, 2),
        (1, 3, 0, 2),
        (1, 3, 4, 0),
        (1, 1, 1, 1),
        (1, 1, 5, 4),
        (2, 3, 15, 4),
        (2, 5, 16, 3),
        (1, 9, 17, 9),
        (3, 33, 31, 4),
        (1, 20, 100, 30),
        (5, 128, 48, 4),
        (2, 301, 64, 8),
    ];

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7919 + seed * 31 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    fn naive((batch, time, channels, width): Sizes, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        for b in 0..batch {
            for t in 0..time {
                for lag in 0..width.min(t + 1) {
                    for c in 0..channels {
                        out[(b * time + t) * channels + c] +=
                            weight[lag * channels + c] * x[(b * time + t - lag) * channels + c];
                    }
                }
            }
        }
        out
    }

    /// dx and dweight: the reference with its sums turned round.
    fn naive_gradient(
        (batch, time, channels, width): Sizes,
        x: &[f64],
        weight: &[f64],
        dout: &[f64],
    ) -> [Vec<f64>; 2] {
        let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
        for b in 0..batch {
            for t in 0..time {
                for lag in 0..width.min(t + 1) {
                    for c in 0..channels {
                        let (to, from) =
                            ((b * time + t) * channels + c, (b * time + t - lag) * channels + c);
                        dx[from] += weight[lag * channels + c] * dout[to];
                        dweight[lag * channels + c] += x[from] * dout[to];
                    }
                }
            }
        }
        [dx, dweight]
    }

    fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= tolerance * (1.0 + expected.abs()), "[{i}] {found} {expected}");
        }
    }

    /// out, dx, dweight.
    fn compute(
        threads: usize,
        sizes: Sizes,
        x: &[f32],
        weight: &[f32],
        dout: &[f32],
    ) -> [Vec<f32>; 3] {
        let (batch, time, channels, width) = sizes;
        let pool = Pool::new(threads);
        let mut out = vec![7.0; x.len()];
        causal_convolution(&pool, batch, time, channels, width, x, weight, &mut out);
        let (mut dx, mut dweight) = (vec![7.0; x.len()], vec![7.0; weight.len()]);
        causal_convolution_gradient(
            &pool,
            batch,
            time,
            channels,
            width,
            x,
            weight,
            dout,
            &mut dx,
            &mut dweight,
        );
        [out, dx, dweight]
    }

    fn check(sizes: Sizes) {
        let (batch, time, channels, width) = sizes;
        let size = batch * time * channels;
        let (x, weight, dout) = (values(size, 1), values(width * channels, 2), values(size, 3));
        let found = compute(1, sizes, &x, &weight, &dout);
        assert_close(&found[0], &naive(sizes, &wide(&x), &wide(&weight)), 1e-5);
        let [dx, dweight] = naive_gradient(sizes, &wide(&x), &wide(&weight), &wide(&dout));
        assert_close(&found[1], &dx, 1e-5);
        assert_close(&found[2], &dweight, 3e-5);
        for threads in [2, 3] {
            assert_eq!(found, compute(threads, sizes, &x, &weight, &dout));
        }
    }

    #[test]
    fn agrees_with_the_reference() {
        SIZES.into_iter().for_each(check);
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_anywhere(
            sizes in (0..4usize, 0..40usize, 0..70usize, 0..10usize),
        ) {
            check(sizes);
        }
    }

    /// The map is bilinear, so central differences have no error but rounding.
    #[test]
    fn the_gradient_is_the_slope() {
        let sizes = (2, 5, 3, 4);
        let (x, weight, dout) = (values(30, 1), values(12, 2), values(30, 3));
        let found = compute(1, sizes, &x, &weight, &dout);
        let loss = |x: &[f64], weight: &[f64]| -> f64 {
            naive(sizes, x, weight).iter().zip(wide(&dout)).map(|(out, dout)| out * dout).sum()
        };
        let point = [wide(&x), wide(&weight)];
        for which in 0..2 {
            for i in 0..point[which].len() {
                let at = |step: f64| {
                    let mut moved = point.clone();
                    moved[which][i] += step;
                    loss(&moved[0], &moved[1])
                };
                let slope = (at(0.5) - at(-0.5)) / 1.0;
                assert!((slope - f64::from(found[1 + which][i])).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nothing_looks_ahead() {
        let sizes @ (batch, time, channels, width) = (1, 20, 19, 5);
        let (x, weight) = (values(time * channels, 1), values(width * channels, 2));
        let [before, ..] = compute(1, sizes, &x, &weight, &x);
        for t in 0..time {
            let seen = (t + 1) * channels;
            let mut spoiled = x.clone();
            spoiled[seen..].fill(f32::NAN);
            let [after, ..] = compute(2, sizes, &spoiled, &weight, &x);
            assert_eq!(before[..seen], after[..seen]);
            let mut shifted = vec![0.0; x.len()];
            shift(&Pool::new(1), batch, time, channels, 1, &spoiled, &mut shifted);
            assert!(shifted[..seen].iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn shift_moves_rows_within_their_window() {
        for (batch, time, channels) in [(0, 2, 2), (2, 0, 1), (1, 1, 0), (1, 1, 1), (3, 7, 5)] {
            let x: Vec<i32> = (1..=(batch * time * channels) as i32).collect();
            for amount in [0, 1, 2, 6, 7, 100, isize::MAX, -1, -3, -7, isize::MIN] {
                for threads in [1, 2, 3] {
                    let mut out = vec![-1; x.len()];
                    shift(&Pool::new(threads), batch, time, channels, amount, &x, &mut out);
                    for (i, &out) in out.iter().enumerate() {
                        let (window, t) = (i / channels / time, i / channels % time);
                        let source = t as i128 - amount as i128;
                        let expected = if (0..time as i128).contains(&source) {
                            x[(window * time + source as usize) * channels + i % channels]
                        } else {
                            0
                        };
                        assert_eq!(out, expected);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "length of weight")]
    fn a_wrong_length_is_named() {
        causal_convolution(&Pool::new(1), 1, 1, 2, 2, &[0.0; 2], &[0.0; 3], &mut [0.0; 2]);
    }
}
