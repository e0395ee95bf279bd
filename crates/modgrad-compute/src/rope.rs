//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
//!
//! The first `rotated` channels of each head turn, in the rotate-half
//! convention of Llama and NeoX: channel i pairs with channel i + rotated / 2,
//! and the pair turns by position * base^(-2 i / rotated) radians,
//!
//! ```text
//! out[i]               = x[i] cos - x[i + rotated / 2] sin
//! out[i + rotated / 2] = x[i] sin + x[i + rotated / 2] cos
//! ```
//!
//! The other channels are copied. Positions count from 0 in each window.

use crate::attention::AttentionShape;
use crate::{Pool, multiversion};

/// Positions between two exact evaluations of the angles.
const EXACT_EVERY: usize = 64;

/// Turns `x` `[B, T, H, D]` by its positions. `inverse` turns by minus the
/// angle, which undoes it and is also its gradient.
///
/// Panics when the lengths disagree, or `rotated` is odd or above D.
pub fn rope(
    pool: &Pool,
    shape: AttentionShape,
    base: f32,
    rotated: usize,
    inverse: bool,
    x: &[f32],
    out: &mut [f32],
) {
    let AttentionShape { time, heads, head_width, .. } = shape;
    shape.check("rope", &[("x", x.len()), ("out", out.len())]);
    assert!(
        rotated.is_multiple_of(2) && rotated <= head_width,
        "`rope`: rotated ({rotated}) must be even and at most head_width ({head_width})"
    );
    let table = angles(time, base, rotated, inverse);
    pool.for_rows(out, heads * head_width, 16, |first, stretch| {
        rotate(first, time, head_width, rotated, &table, x, stretch, heads * head_width);
    });
}

/// For each position, `rotated / 2` cosines and then as many sines.
///
/// The angles advance by complex multiplication in f64, from an exact value
/// every `EXACT_EVERY` positions, so the error stays near 1e-14.
fn angles(time: usize, base: f32, rotated: usize, inverse: bool) -> Vec<f32> {
    let half = rotated / 2;
    let sign = if inverse { -1.0 } else { 1.0 };
    let frequencies: Vec<f64> =
        (0..half).map(|i| sign * f64::from(base).powf(-2.0 * i as f64 / rotated as f64)).collect();
    let steps: Vec<(f64, f64)> = frequencies.iter().map(|angle| angle.sin_cos()).collect();
    let mut current = vec![(0.0, 1.0); half];
    let mut table = vec![0.0; time * rotated];
    if half == 0 {
        return table;
    }
    for (position, row) in table.chunks_exact_mut(rotated).enumerate() {
        let (cosines, sines) = row.split_at_mut(half);
        for i in 0..half {
            if position % EXACT_EVERY == 0 {
                current[i] = (position as f64 * frequencies[i]).sin_cos();
            }
            let ((sin, cos), (step_sin, step_cos)) = (current[i], steps[i]);
            cosines[i] = cos as f32;
            sines[i] = sin as f32;
            current[i] = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
        }
    }
    table
}

multiversion! {
    /// Turns the rows of `out`, the first of which is row `first` of `[B T]`.
    fn rotate(
        first: usize,
        time: usize,
        head_width: usize,
        rotated: usize,
        table: &[f32],
        x: &[f32],
        out: &mut [f32],
        row_length: usize,
    ) {
        let half = rotated / 2;
        let x = &x[first * row_length..][..out.len()];
        for (offset, (out, x)) in
            out.chunks_exact_mut(row_length).zip(x.chunks_exact(row_length)).enumerate()
        {
            let position = (first + offset) % time;
            let (cosines, sines) = table[position * rotated..][..rotated].split_at(half);
            for (out, x) in out.chunks_exact_mut(head_width).zip(x.chunks_exact(head_width)) {
                let (turned, rest) = out.split_at_mut(rotated);
                let (low, high) = turned.split_at_mut(half);
                let (x_turned, x_rest) = x.split_at(rotated);
                let (x_low, x_high) = x_turned.split_at(half);
                for i in 0..half {
                    let (a, b) = (x_low[i], x_high[i]);
                    low[i] = a * cosines[i] - b * sines[i];
                    high[i] = a * sines[i] + b * cosines[i];
                }
                rest.copy_from_slice(x_rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape((batch, time, heads, head_width): (usize, usize, usize, usize)) -> AttentionShape {
        AttentionShape { batch, time, heads, head_width }
    }

    fn values(length: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    fn naive(s: AttentionShape, base: f32, rotated: usize, inverse: bool, x: &[f32]) -> Vec<f64> {
        let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for row in 0..s.rows() {
            let position = row / s.heads % s.time;
            for i in 0..rotated / 2 {
                let angle = position as f64
                    * f64::from(base).powf(-2.0 * i as f64 / rotated as f64)
                    * if inverse { -1.0 } else { 1.0 };
                let (low, high) = (row * s.head_width + i, row * s.head_width + i + rotated / 2);
                let (a, b) = (f64::from(x[low]), f64::from(x[high]));
                out[low] = a * angle.cos() - b * angle.sin();
                out[high] = a * angle.sin() + b * angle.cos();
            }
        }
        out
    }

    fn check(s: AttentionShape, base: f32, rotated: usize) {
        let x = values(s.elements());
        for inverse in [false, true] {
            let expected = naive(s, base, rotated, inverse, &x);
            let mut results = Vec::new();
            for threads in [1, 2, 3] {
                let mut out = vec![7.0; s.elements()];
                rope(&Pool::new(threads), s, base, rotated, inverse, &x, &mut out);
                for (i, (out, expected)) in out.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*out) - expected).abs();
                    assert!(error < 5e-7, "{s:?} rotated {rotated}: [{i}] {out} {expected}");
                }
                results.push(out);
            }
            assert!(results.iter().all(|out| out == &results[0]));
        }
    }

    #[test]
    fn agrees_with_the_reference() {
        for sizes in [
            (0, 3, 1, 4),
            (2, 0, 1, 4),
            (1, 2, 0, 4),
            (1, 2, 1, 0),
            (1, 1, 1, 1),
            (2, 5, 3, 7),
            (1, 65, 2, 32),
            (1, 1000, 1, 16),
            (3, 64, 2, 33),
        ] {
            let s = shape(sizes);
            for rotated in [0, 2, 6, 16, 32] {
                if rotated <= s.head_width {
                    check(s, 10_000.0, rotated);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_anywhere(
            sizes in (1..3usize, 1..200usize, 1..3usize, 1..40usize),
            half in 0..20usize,
            base in 2.0f32..1e6,
        ) {
            let s = shape(sizes);
            check(s, base, (2 * half).min(s.head_width / 2 * 2));
        }
    }

    #[test]
    fn the_inverse_undoes_it() {
        let s = shape((2, 300, 2, 32));
        let x = values(s.elements());
        let (mut turned, mut back) = (x.clone(), x.clone());
        let pool = Pool::new(2);
        rope(&pool, s, 10_000.0, 16, false, &x, &mut turned);
        rope(&pool, s, 10_000.0, 16, true, &turned, &mut back);
        assert!(x.iter().zip(&back).all(|(x, back)| (x - back).abs() < 1e-6));
    }

    #[test]
    fn the_row_of_a_position_does_not_depend_on_the_length() {
        let s = shape((1, 130, 2, 8));
        let x = values(s.elements());
        let mut out = x.clone();
        rope(&Pool::new(1), s, 500.0, 8, false, &x, &mut out);
        for time in [1, 63, 64, 65, 129] {
            let shorter = AttentionShape { time, ..s };
            let mut part = vec![0.0; shorter.elements()];
            rope(&Pool::new(1), shorter, 500.0, 8, false, &x[..part.len()], &mut part);
            assert_eq!(part, out[..part.len()]);
        }
    }

    #[test]
    #[should_panic(expected = "must be even and at most head_width (4)")]
    fn an_odd_number_of_channels_cannot_turn() {
        rope(&Pool::new(1), shape((1, 1, 1, 4)), 1e4, 3, false, &[0.0; 4], &mut [0.0; 4]);
    }
}
