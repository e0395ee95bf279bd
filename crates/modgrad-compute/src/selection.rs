//! Which element of an axis is the largest.

use crate::elementwise::{expect_length, rows_per_thread};
use crate::{Pool, multiversion};

/// For x [outer, axis, inner]: 1 at the first largest element along the axis,
/// 0 elsewhere. The first NaN counts as the largest.
pub fn one_hot_max(
    pool: &Pool,
    x: &[f32],
    outer: usize,
    axis: usize,
    inner: usize,
    out: &mut [f32],
) {
    expect_length("one_hot_max", "x", x.len(), outer * axis * inner);
    expect_length("one_hot_max", "out", out.len(), outer * axis * inner);
    let length = axis * inner;
    pool.for_rows(out, length, rows_per_thread(length), |first, out| {
        let x = &x[first * length..first * length + out.len()];
        one_hot_rows(x, axis, inner, out);
    });
}

multiversion! {
    fn one_hot_rows(x: &[f32], axis: usize, inner: usize, out: &mut [f32]) {
        out.fill(0.0);
        let length = axis * inner;
        for (x, out) in x.chunks_exact(length).zip(out.chunks_exact_mut(length)) {
            for column in 0..inner {
                let mut best = 0;
                for at in 1..axis {
                    let (candidate, largest) = (x[at * inner + column], x[best * inner + column]);
                    if candidate > largest || (candidate.is_nan() && !largest.is_nan()) {
                        best = at;
                    }
                }
                out[best * inner + column] = 1.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{for_threads, values};

    #[test]
    fn the_first_largest_is_marked() {
        for (outer, axis, inner) in
            [(0, 3, 2), (3, 2, 0), (1, 1, 1), (5, 33, 1), (3, 5, 17), (700, 4, 3)]
        {
            // Few values: ties.
            let x: Vec<f32> = values(1, outer * axis * inner, -2.0, 2.0);
            let x: Vec<f32> = x.into_iter().map(f32::round).collect();
            let ours = for_threads(|pool| {
                let mut out = vec![f32::MAX; x.len()];
                one_hot_max(pool, &x, outer, axis, inner, &mut out);
                out
            });
            for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                let at = |a: usize| (o * axis + a) * inner + i;
                let largest = (0..axis).map(|a| x[at(a)]).fold(f32::MIN, f32::max);
                let first = (0..axis).find(|&a| x[at(a)] == largest).unwrap();
                for a in 0..axis {
                    assert_eq!(ours[at(a)], f32::from(a == first), "{outer} {axis} {inner}");
                }
            }
        }
    }

    #[test]
    fn a_nan_is_the_largest() {
        let pool = Pool::new(1);
        let mut out = [0.0; 4];
        one_hot_max(&pool, &[1.0, f32::NAN, f32::INFINITY, f32::NAN], 1, 4, 1, &mut out);
        assert_eq!(out, [0.0, 1.0, 0.0, 0.0]);
    }
}
