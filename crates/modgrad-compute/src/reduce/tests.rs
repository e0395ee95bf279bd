use super::*;
use crate::bf16;
use crate::testing::*;
use proptest::prelude::*;

const SHAPES: &[(usize, usize, usize)] = &[
    (0, 3, 2),
    (3, 0, 2),
    (3, 2, 0),
    (1, 1, 1),
    (5, 1, 1),
    (1, 33, 1),
    (4, 31, 1),
    (1, 20_011, 1),
    (700, 33, 1),
    (1, 17, 33),
    (3, 5, 300),
    (40, 7, 65),
    (1, 129, 257),
    (2, 1, 9000),
];

fn reference(kind: Reduction, x: &[f64], (outer, axis, inner): (usize, usize, usize)) -> Vec<f64> {
    let position = |index: usize| (index / inner, index % inner);
    let places = (0..outer * inner).map(position);
    places
        .map(|(o, i)| {
            let column = (0..axis).map(|a| x[(o * axis + a) * inner + i]);
            match kind {
                Reduction::Sum => column.sum(),
                Reduction::Mean => column.sum::<f64>() / axis as f64,
                Reduction::Maximum => column.fold(f64::NEG_INFINITY, f64::max),
            }
        })
        .collect()
}

fn check_reduce<X: Storage>(shape: (usize, usize, usize)) {
    let (outer, axis, inner) = shape;
    let x: Vec<X> = values(1, outer * axis * inner, -3.0, 3.0);
    for kind in [Reduction::Sum, Reduction::Mean, Reduction::Maximum] {
        let ours = for_threads(|pool| {
            let mut out = vec![f32::MAX; outer * inner];
            reduce(pool, kind, &x, outer, axis, inner, &mut out);
            out
        });
        let want = reference(kind, &exact(&x), shape);
        let slack = 1e-6 * axis as f64;
        assert_close(&format!("{kind:?} of {shape:?}"), &ours, &want, 1e-6, slack);
    }
}

#[test]
fn reductions_of_the_middle_axis() {
    for &shape in SHAPES {
        check_reduce::<f32>(shape);
        check_reduce::<bf16>(shape);
    }
}

#[test]
fn one_long_row_is_shared_by_the_threads() {
    let length = 2 * PARTS * ELEMENTS_PER_THREAD + 77;
    check_reduce::<bf16>((1, length, 1));
}

#[test]
fn a_nan_reaches_the_maximum() {
    for (axis, inner) in [(100, 1), (100, 7)] {
        for place in [0, 37, 99] {
            let mut x = vec![1.0f32; axis * inner];
            x[place * inner] = f32::NAN;
            let mut out = vec![0.0f32; inner];
            reduce(&Pool::new(1), Reduction::Maximum, &x, 1, axis, inner, &mut out);
            assert!(out[0].is_nan());
            assert!(out[1..].iter().all(|out| *out == 1.0));
        }
    }
}

#[test]
fn maximum_gradients_are_shared_among_ties() {
    for &shape in SHAPES {
        let (outer, axis, inner) = shape;
        // Few distinct values, so that ties are common.
        let x: Vec<f32> =
            values(2, outer * axis * inner, -3.0, 3.0).iter().map(|x: &f32| x.round()).collect();
        let dy: Vec<f32> = values(3, outer * inner, -3.0, 3.0);
        let y: Vec<f32> =
            reference(Reduction::Maximum, &exact(&x), shape).iter().map(|y| *y as f32).collect();
        let ours = for_threads(|pool| {
            let mut dx = vec![f32::NAN; x.len()];
            maximum_gradient(pool, &x, &y, &dy, outer, axis, inner, &mut dx);
            dx
        });
        let mut want = vec![0.0; x.len()];
        for (o, i) in (0..outer * inner).map(|index| (index / inner, index % inner)) {
            let places = (0..axis).map(|a| (o * axis + a) * inner + i);
            let ties: Vec<usize> = places.filter(|place| x[*place] == y[o * inner + i]).collect();
            for place in &ties {
                want[*place] = dy[o * inner + i] as f64 / ties.len() as f64;
            }
        }
        assert_close(&format!("{shape:?}"), &ours, &want, 1e-6, 0.0);
    }
}

fn check_column_sums<X: Storage>((rows, columns): (usize, usize)) {
    let x: Vec<X> = values(4, rows * columns, -3.0, 3.0);
    let start: Vec<f32> = values(5, columns, -3.0, 3.0);
    let sums = reference(Reduction::Sum, &exact(&x), (1, rows, columns));
    for accumulate in [false, true] {
        let ours = for_threads(|pool| {
            let mut out = start.clone();
            column_sums(pool, &x, rows, columns, &mut out, accumulate);
            out
        });
        let before = start.iter().map(|start| if accumulate { *start as f64 } else { 0.0 });
        let want: Vec<f64> = sums.iter().zip(before).map(|(sum, before)| sum + before).collect();
        let name = format!("{rows} x {columns}, accumulate {accumulate}");
        assert_close(&name, &ours, &want, 1e-6, 3e-7 * rows as f64 + 1e-6);
    }
}

#[test]
fn sums_of_columns() {
    for &shape in
        ROWS.iter().chain(&[(20_000, 1), (5000, 3), (900, 63), (40, 9000), (0, 1), (3, 0)])
    {
        check_column_sums::<f32>(shape);
        check_column_sums::<bf16>(shape);
    }
}

proptest! {
    #[test]
    fn any_shape_is_reduced(outer in 0usize..5, axis in 0usize..80, inner in 0usize..40) {
        check_reduce::<f32>((outer, axis, inner));
        check_column_sums::<bf16>((outer * axis, inner));
    }
}

#[test]
fn squares_are_summed_in_f64() {
    for &length in LENGTHS.iter().chain(&[PARTS * ELEMENTS_PER_THREAD + 5]) {
        let x: Vec<f32> = values(6, length, -3.0, 3.0);
        let want: f64 = x.iter().map(|x| (*x as f64).powi(2)).sum();
        let ours = [1, 2, 3].map(|threads| sum_of_squares(&Pool::new(threads), &x));
        assert!((ours[0] - want).abs() <= 1e-11 * want, "{length}: {} or {want}", ours[0]);
        assert!(ours.iter().all(|sum| sum.to_bits() == ours[0].to_bits()), "{length}: {ours:?}");
    }
}

#[test]
fn one_bad_value_is_found_anywhere() {
    for threads in [1, 2, 3] {
        let pool = Pool::new(threads);
        for &length in LENGTHS {
            let mut x: Vec<f32> = values(7, length, -3.0, 3.0);
            x.iter_mut().step_by(3).for_each(|x| *x = f32::MAX);
            assert!(all_finite(&pool, &x));
            for place in [0, length / 2, length.saturating_sub(1)] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    if let Some(x) = x.get_mut(place) {
                        let good = std::mem::replace(x, bad);
                        assert!(!all_finite(&pool, std::slice::from_ref(x)));
                        *x = good;
                    }
                }
                let mut with_one = x.clone();
                if let Some(x) = with_one.get_mut(place) {
                    *x = f32::NAN;
                    assert!(!all_finite(&pool, &with_one), "{place} of {length}");
                }
            }
        }
    }
}
