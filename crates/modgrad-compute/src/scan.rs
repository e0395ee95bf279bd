//! A gated linear recurrence, channel by channel.
//!
//! h[t] = a[t] h[t-1] + b[t] over `[B, T, C]`, with nothing before the window.
//! Threads share windows and blocks of channels; the recurrence itself runs in
//! order, so the result is that of the plain loop.

use crate::convolution::check;
use crate::pool::SharedMut;
use crate::{Pool, multiversion};

/// Channels of one pass: their state stays in registers or the nearest cache.
const CHANNEL_BLOCK: usize = 64;

/// `h[b, t, c]` = `a[b, t, c]` * `h[b, t - 1, c]` + `b[b, t, c]`.
///
/// `a[b, 0, c]` is not used. Panics when the lengths disagree.
pub fn linear_scan(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    a: &[f32],
    b: &[f32],
    h: &mut [f32],
) {
    let size = batch * time * channels;
    check("linear_scan", &[("a", a.len(), size), ("b", b.len(), size), ("h", h.len(), size)]);
    let h = SharedMut::new(h);
    for_blocks(pool, batch, time, channels, |start, lanes| {
        scan(time, channels, start, lanes, a, b, &h);
    });
}

/// The exact adjoint of [`linear_scan`]: `da` and `db` from `dh`.
///
/// `da[b, 0, c]` is zero.
pub fn linear_scan_gradient(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    a: &[f32],
    h: &[f32],
    dh: &[f32],
    da: &mut [f32],
    db: &mut [f32],
) {
    let size = batch * time * channels;
    let name = "linear_scan_gradient";
    check(name, &[("a", a.len(), size), ("h", h.len(), size), ("dh", dh.len(), size)]);
    check(name, &[("da", da.len(), size), ("db", db.len(), size)]);
    let (da, db) = (SharedMut::new(da), SharedMut::new(db));
    for_blocks(pool, batch, time, channels, |start, lanes| {
        scan_backward(time, channels, start, lanes, a, h, dh, &da, &db);
    });
}

/// Calls `job(start, lanes)` for each block of channels of each window: `start`
/// is where the block lies in the window's first row, `lanes` its channels.
fn for_blocks(
    pool: &Pool,
    batch: usize,
    time: usize,
    channels: usize,
    job: impl Fn(usize, usize) + Sync,
) {
    if time == 0 {
        return;
    }
    let blocks = channels.div_ceil(CHANNEL_BLOCK);
    pool.for_ranges(batch * blocks, 1, |range| {
        for task in range {
            let (window, block) = (task / blocks, task % blocks);
            let channel = block * CHANNEL_BLOCK;
            let lanes = CHANNEL_BLOCK.min(channels - channel);
            job(window * time * channels + channel, lanes);
        }
    });
}

multiversion! {
    /// One block of [`linear_scan`]: no other task writes its elements of `h`.
    fn scan(
        time: usize,
        channels: usize,
        start: usize,
        lanes: usize,
        a: &[f32],
        b: &[f32],
        h: &SharedMut<'_, f32>,
    ) {
        let mut state = [0.0f32; CHANNEL_BLOCK];
        for t in 0..time {
            let range = start + t * channels..start + t * channels + lanes;
            let (a, b) = (&a[range.clone()], &b[range.clone()]);
            // SAFETY: the block's own elements, one row at a time.
            let h = unsafe { h.slice(range) };
            if t == 0 {
                state[..lanes].copy_from_slice(b);
            } else {
                for c in 0..lanes {
                    state[c] = a[c] * state[c] + b[c];
                }
            }
            h.copy_from_slice(&state[..lanes]);
        }
    }
}

multiversion! {
    /// One block of [`linear_scan_gradient`]: no other task writes its elements.
    fn scan_backward(
        time: usize,
        channels: usize,
        start: usize,
        lanes: usize,
        a: &[f32],
        h: &[f32],
        dh: &[f32],
        da: &SharedMut<'_, f32>,
        db: &SharedMut<'_, f32>,
    ) {
        // a[t + 1] times the whole gradient of h[t + 1].
        let mut carried = [0.0f32; CHANNEL_BLOCK];
        for t in (0..time).rev() {
            let range = start + t * channels..start + t * channels + lanes;
            let (a, dh) = (&a[range.clone()], &dh[range.clone()]);
            // SAFETY: the block's own elements, one row at a time.
            let (da, db) = unsafe { (da.slice(range.clone()), db.slice(range.clone())) };
            for c in 0..lanes {
                db[c] = dh[c] + carried[c];
                carried[c] = a[c] * db[c];
            }
            if t == 0 {
                da.fill(0.0);
            } else {
                let before = &h[range.start - channels..][..lanes];
                for c in 0..lanes {
                    da[c] = db[c] * before[c];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (batch, time, channels)
    type Sizes = (usize, usize, usize);

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7919 + seed * 31 + 13) % 1009) as f32 / 505.0 - 1.0).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    fn naive((batch, time, channels): Sizes, a: &[f64], b: &[f64]) -> Vec<f64> {
        let mut h = b.to_vec();
        for row in 0..batch * time {
            for i in row * channels..(row + 1) * channels {
                h[i] += if row % time > 0 { a[i] * h[i - channels] } else { 0.0 };
            }
        }
        h
    }

    /// da and db in f64.
    fn naive_gradient(sizes: Sizes, a: &[f64], h: &[f64], dh: &[f64]) -> [Vec<f64>; 2] {
        let (batch, time, channels) = sizes;
        let (mut da, mut db) = (vec![0.0; a.len()], dh.to_vec());
        for row in (0..batch * time).rev().filter(|row| row % time > 0) {
            for i in row * channels..(row + 1) * channels {
                da[i] = db[i] * h[i - channels];
                db[i - channels] += db[i] * a[i];
            }
        }
        [da, db]
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 2e-5 * (1.0 + expected.abs()), "[{i}] {found} {expected}");
        }
    }

    /// h, da, db.
    fn compute(threads: usize, sizes: Sizes, a: &[f32], b: &[f32], dh: &[f32]) -> [Vec<f32>; 3] {
        let (batch, time, channels) = sizes;
        let pool = Pool::new(threads);
        let [mut h, mut da, mut db] = [(); 3].map(|_| vec![7.0; a.len()]);
        linear_scan(&pool, batch, time, channels, a, b, &mut h);
        linear_scan_gradient(&pool, batch, time, channels, a, &h, dh, &mut da, &mut db);
        [h, da, db]
    }

    fn check(sizes: Sizes) {
        let size = sizes.0 * sizes.1 * sizes.2;
        let (a, b, dh) = (values(size, 1), values(size, 2), values(size, 3));
        let found = compute(1, sizes, &a, &b, &dh);
        let h = naive(sizes, &wide(&a), &wide(&b));
        assert_close(&found[0], &h);
        let [da, db] = naive_gradient(sizes, &wide(&a), &h, &wide(&dh));
        assert_close(&found[1], &da);
        assert_close(&found[2], &db);
        for threads in [2, 3] {
            assert_eq!(found, compute(threads, sizes, &a, &b, &dh));
        }
    }

    #[test]
    fn agrees_with_the_reference() {
        for sizes in [
            (0, 3, 4),
            (2, 0, 4),
            (2, 3, 0),
            (1, 1, 1),
            (1, 9, 1),
            (3, 4, 63),
            (2, 5, 64),
            (1, 17, 65),
            (2, 300, 200),
        ] {
            check(sizes);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_anywhere(sizes in (0..4usize, 0..50usize, 0..150usize)) {
            check(sizes);
        }
    }

    #[test]
    fn the_gradient_is_the_slope() {
        let sizes = (2, 5, 3);
        let (a, b, dh) = (values(30, 1), values(30, 2), values(30, 3));
        let found = compute(1, sizes, &a, &b, &dh);
        let loss = |x: &[Vec<f64>; 2]| -> f64 {
            naive(sizes, &x[0], &x[1]).iter().zip(wide(&dh)).map(|(h, dh)| h * dh).sum()
        };
        let point = [wide(&a), wide(&b)];
        for which in 0..2 {
            for i in 0..a.len() {
                let at = |step: f64| {
                    let mut moved = point.clone();
                    moved[which][i] += step;
                    loss(&moved)
                };
                let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
                assert!((slope - f64::from(found[1 + which][i])).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nothing_looks_ahead() {
        let sizes @ (_, time, channels) = (1, 20, 70);
        let (a, b) = (values(time * channels, 1), values(time * channels, 2));
        let [before, ..] = compute(1, sizes, &a, &b, &b);
        for t in 0..time {
            let seen = (t + 1) * channels;
            let (mut a, mut b) = (a.clone(), b.clone());
            a[seen..].fill(f32::NAN);
            b[seen..].fill(f32::INFINITY);
            let [after, ..] = compute(2, sizes, &a, &b, &b);
            assert_eq!(before[..seen], after[..seen]);
        }
    }

    #[test]
    #[should_panic(expected = "length of b")]
    fn a_wrong_length_is_named() {
        linear_scan(&Pool::new(1), 1, 1, 2, &[0.0; 2], &[0.0; 3], &mut [0.0; 2]);
    }
}
