use super::*;
use crate::bf16;
use crate::testing::*;
use proptest::prelude::*;

/// The domain on which a function is smooth enough to compare.
fn domain(function: UnaryFunction) -> (f32, f32) {
    match function {
        UnaryFunction::Log | UnaryFunction::Sqrt | UnaryFunction::Reciprocal => (0.05, 9.0),
        _ => (-9.0, 9.0),
    }
}

fn check_unary<X: Storage, Y: Storage>(lengths: &[usize]) {
    for (&function, &length) in
        UnaryFunction::ALL.iter().flat_map(|f| lengths.iter().map(move |n| (f, n)))
    {
        let (low, high) = domain(function);
        let x: Vec<X> = values(length as u64, length, low, high);
        let dy: Vec<Y> = values(1, length, -2.0, 2.0);
        let name = format!("{function:?} of {length}");
        let ours = for_threads(|pool| {
            let mut y = vec![Y::from_f32(f32::NAN); length];
            unary(pool, function, &x, &mut y);
            y
        });
        let want: Vec<f64> = exact(&x).into_iter().map(|x| function.value_f64(x)).collect();
        assert_close(&name, &ours, &want, Y::ROUNDING + 6e-6, 1e-7);
        let ours = for_threads(|pool| {
            let mut dx = vec![Y::from_f32(f32::NAN); length];
            unary_gradient(pool, function, &x, &dy, &mut dx);
            dx
        });
        let slopes = exact(&x).into_iter().map(|x| function.derivative_f64(x));
        let want: Vec<f64> = slopes.zip(exact(&dy)).map(|(slope, dy)| slope * dy).collect();
        assert_close(&name, &ours, &want, Y::ROUNDING + 6e-6, 2e-6);
    }
}

#[test]
fn unary_functions_and_gradients() {
    check_unary::<f32, f32>(LENGTHS);
    check_unary::<bf16, bf16>(LENGTHS);
    check_unary::<f32, bf16>(&[33, 1001]);
    check_unary::<bf16, f32>(&[33, 1001]);
}

fn check_binary<X: Storage, Y: Storage>() {
    for (&function, &length) in
        BinaryFunction::ALL.iter().flat_map(|f| LENGTHS.iter().map(move |n| (f, n)))
    {
        let x: Vec<X> = values(3, length, -4.0, 4.0);
        let y: Vec<X> = values(4, length, 0.5, 4.0);
        let ours = for_threads(|pool| {
            let mut out = vec![Y::from_f32(f32::NAN); length];
            binary(pool, function, &x, &y, &mut out);
            out
        });
        let pairs = exact(&x).into_iter().zip(exact(&y));
        let want: Vec<f64> = pairs.map(|(x, y)| function.value_f64(x, y)).collect();
        assert_close(&format!("{function:?} of {length}"), &ours, &want, 2.0 * Y::ROUNDING, 5e-7);
    }
}

#[test]
fn binary_functions() {
    check_binary::<f32, f32>();
    check_binary::<bf16, bf16>();
}

#[test]
fn affine_accumulate_and_convert() {
    for &length in LENGTHS {
        let x: Vec<f32> = values(5, length, -4.0, 4.0);
        let ours = for_threads(|pool| {
            let mut out = vec![bf16::ZERO; length];
            affine(pool, 0.75, -2.0, &x, &mut out);
            out
        });
        let want: Vec<f64> = exact(&x).iter().map(|x| 0.75 * x - 2.0).collect();
        assert_close("affine", &ours, &want, bf16::ROUNDING, 1e-6);
        let start: Vec<f32> = values(6, length, -4.0, 4.0);
        let ours = for_threads(|pool| {
            let mut into = start.clone();
            accumulate(pool, &x, &mut into);
            into
        });
        let want: Vec<f32> = x.iter().zip(&start).map(|(x, start)| start + x).collect();
        assert_eq!(ours, want);
        let ours = for_threads(|pool| {
            let (mut half, mut whole) = (vec![bf16::ZERO; length], vec![0.0f32; length]);
            convert(pool, &x, &mut half);
            convert(pool, &half, &mut whole);
            whole
        });
        let want: Vec<f32> = x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        assert_eq!(ours, want);
    }
}

#[test]
fn special_values_pass_through() {
    let pool = Pool::new(1);
    for (index, &function) in UnaryFunction::ALL.iter().enumerate() {
        let x = [f32::NAN; 19];
        let mut y = [0.0f32; 19];
        unary(&pool, function, &x, &mut y);
        assert!(y.iter().all(|y| y.is_nan()), "{function:?} ({index}) loses a NaN");
    }
    let x = [f32::INFINITY, f32::NEG_INFINITY, 0.0];
    let mut y = [0.0f32; 3];
    unary(&pool, UnaryFunction::Exp, &x, &mut y);
    assert_eq!(y, [f32::INFINITY, 0.0, 1.0]);
    unary(&pool, UnaryFunction::Sigmoid, &x, &mut y);
    assert_eq!(y, [1.0, 0.0, 0.5]);
    unary(&pool, UnaryFunction::Relu, &x, &mut y);
    assert_eq!(y, [f32::INFINITY, 0.0, 0.0]);
}

#[test]
fn dropout_agrees_with_its_scalar_twin() {
    for &length in LENGTHS {
        for keep in [0.0f32, 0.25, 0.9, 1.0] {
            let x: Vec<f32> = values(7, length, 0.5, 4.0);
            let ours = for_threads(|pool| {
                let mut out = vec![f32::NAN; length];
                dropout(pool, keep, 42, &x, &mut out);
                out
            });
            for (index, (ours, x)) in ours.iter().zip(&x).enumerate() {
                let kept = dropout_keeps(42, index as u64, keep);
                assert_eq!(*ours, if kept { x * (1.0 / keep) } else { 0.0 });
                assert!(keep > 0.0 || !kept);
                assert!(keep < 1.0 || kept);
            }
        }
    }
}

#[test]
fn dropout_is_uniform_and_keys_are_independent() {
    const COUNT: u64 = 1 << 18;
    for (key, keep) in [(0u64, 0.5f32), (1, 0.9), (u64::MAX, 0.1)] {
        let kept = (0..COUNT).filter(|i| dropout_keeps(key, *i, keep)).count() as f64;
        let deviation = (COUNT as f64 * keep as f64 * (1.0 - keep as f64)).sqrt();
        assert!((kept - COUNT as f64 * keep as f64).abs() < 4.0 * deviation, "key {key}");
    }
    // Agreement between neighbouring keys, indices and high halves is chance.
    let same = |other: &dyn Fn(u64) -> bool| {
        (0..COUNT).filter(|i| dropout_keeps(7, *i, 0.5) == other(*i)).count() as f64
    };
    let deviation = (COUNT as f64 * 0.25).sqrt();
    let others: [&dyn Fn(u64) -> bool; 4] = [
        &|i| dropout_keeps(8, i, 0.5),
        &|i| dropout_keeps(7, i + 1, 0.5),
        &|i| dropout_keeps(7, i + (1 << 32), 0.5),
        &|i| dropout_keeps(7, i ^ 1, 0.5),
    ];
    for (index, other) in others.into_iter().enumerate() {
        let agreed = same(other);
        assert!((agreed - COUNT as f64 / 2.0).abs() < 4.0 * deviation, "pair {index}: {agreed}");
    }
}

/// The offset of each element of `shape` in row-major order.
fn offsets(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut all = vec![0];
    for (&size, &stride) in shape.iter().zip(strides) {
        all = all.into_iter().flat_map(|base| (0..size).map(move |i| base + i * stride)).collect();
    }
    all
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

fn check_broadcast(shape: &[usize], x_strides: &[usize], y_strides: &[usize]) {
    let (x_offsets, y_offsets) = (offsets(shape, x_strides), offsets(shape, y_strides));
    let length = |offsets: &[usize]| offsets.iter().max().map_or(0, |last| last + 1);
    let x: Vec<f32> = values(8, length(&x_offsets), -4.0, 4.0);
    let y: Vec<f32> = values(9, length(&y_offsets), 0.5, 4.0);
    for &function in BinaryFunction::ALL {
        let ours = for_threads(|pool| {
            let mut out = vec![f32::NAN; x_offsets.len()];
            binary_broadcast(pool, function, &x, x_strides, &y, y_strides, shape, &mut out);
            out
        });
        let pairs = x_offsets.iter().zip(&y_offsets);
        let want: Vec<f32> = pairs.map(|(i, j)| function.value(x[*i], y[*j])).collect();
        assert_eq!(ours, want, "{function:?} over {shape:?}, strides {x_strides:?} {y_strides:?}");
    }
}

#[test]
fn broadcasts() {
    check_broadcast(&[], &[], &[]);
    check_broadcast(&[5], &[1], &[0]);
    check_broadcast(&[0, 3], &[3, 1], &[0, 1]);
    check_broadcast(&[37, 33], &[33, 1], &[0, 1]);
    check_broadcast(&[37, 33], &[1, 0], &[33, 1]);
    check_broadcast(&[37, 33], &[0, 0], &[0, 1]);
    check_broadcast(&[300, 65], &[65, 1], &[1, 300]);
    check_broadcast(&[3, 1, 5, 700], &[5 * 700, 9, 700, 1], &[0, 0, 700, 1]);
    check_broadcast(&[2, 3, 4, 5, 6], &[0, 1, 0, 3, 0], &[360, 120, 30, 6, 1]);
}

fn check_copy(shape: &[usize], strides: &[usize], offset: usize) {
    let places: Vec<usize> =
        offsets(shape, strides).into_iter().map(|place| place + offset).collect();
    let length = places.iter().max().map_or(0, |last| last + 1);
    let x: Vec<f32> = values(10, length, -4.0, 4.0);
    let ours = for_threads(|pool| {
        let mut out = vec![f32::NAN; places.len()];
        copy_strided(pool, &x, strides, offset, shape, &mut out);
        out
    });
    let want: Vec<f32> = places.iter().map(|place| x[*place]).collect();
    assert_eq!(ours, want, "{shape:?}, strides {strides:?}, offset {offset}");
    let half: Vec<bf16> = values(10, length, -4.0, 4.0);
    let ours = for_threads(|pool| {
        let mut out = vec![bf16::ZERO; places.len()];
        copy_strided(pool, &half, strides, offset, shape, &mut out);
        out
    });
    let want: Vec<f32> = places.iter().map(|place| half[*place].to_f32()).collect();
    assert_eq!(ours, want, "bf16 {shape:?}, strides {strides:?}, offset {offset}");
}

#[test]
fn copies_transposes_slices_and_broadcasts() {
    check_copy(&[], &[], 3);
    check_copy(&[0], &[1], 0);
    check_copy(&[7, 0, 2], &[2, 2, 1], 0);
    check_copy(&[20_000], &[1], 5);
    check_copy(&[2000], &[3], 1);
    check_copy(&[400, 33], &[0, 1], 2);
    check_copy(&[33, 400], &[1, 0], 0);
    for (rows, columns) in [(1, 9), (2, 2), (15, 17), (16, 16), (129, 127), (300, 257), (1, 700)] {
        check_copy(&[columns, rows], &[1, columns], 0);
        check_copy(&[3, columns, rows], &[rows * columns, 1, columns], 4);
        // A part of each row: the source has gaps.
        check_copy(&[columns, rows], &[1, columns + 3], 2);
    }
    // [batch, time, head, width] to [batch, head, time, width] and [head, width, batch, time].
    let (batch, time, heads, width) = (3, 19, 4, 24);
    let strides = [time * heads * width, heads * width, width, 1];
    check_copy(&[batch, heads, time, width], &[strides[0], strides[2], strides[1], 1], 0);
    check_copy(&[heads, width, batch, time], &[strides[2], 1, strides[0], strides[1]], 0);
    check_copy(&[width, heads, time, batch], &[1, strides[2], strides[1], strides[0]], 0);
}

proptest! {
    #[test]
    fn any_permutation_of_any_slice_is_copied(
        sizes in prop::collection::vec(0usize..14, 1..5),
        order in any::<u64>(),
        steps in prop::collection::vec(0usize..3, 4),
        offset in 0usize..5,
    ) {
        let mut axes: Vec<(usize, usize)> = sizes
            .iter()
            .zip(contiguous(&sizes))
            .zip(steps)
            .map(|((size, stride), step)| (*size, stride * step))
            .collect();
        let mut order = order;
        for axis in (1..axes.len()).rev() {
            axes.swap(axis, (order % (axis as u64 + 1)) as usize);
            order /= axis as u64 + 1;
        }
        let (shape, strides): (Vec<usize>, Vec<usize>) = axes.into_iter().unzip();
        check_copy(&shape, &strides, offset);
    }

    #[test]
    fn any_broadcast_agrees(
        axes in prop::collection::vec((0usize..9, 0usize..3, 0usize..3), 0..5),
    ) {
        let shape: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
        let full = contiguous(&shape);
        let strides = |pick: fn(&(usize, usize, usize)) -> usize| -> Vec<usize> {
            axes.iter().zip(&full).map(|(axis, stride)| pick(axis) * stride).collect()
        };
        check_broadcast(&shape, &strides(|axis| axis.1), &strides(|axis| axis.2));
    }
}

#[test]
#[should_panic(expected = "`unary`: `y` has 3 elements, expected 4")]
fn lengths_are_checked() {
    unary(&Pool::new(1), UnaryFunction::Exp, &[0.0f32; 4], &mut [0.0f32; 3]);
}

#[test]
#[should_panic(expected = "the view of `x` reaches element 6 of 6")]
fn a_view_outside_its_slice_is_refused() {
    copy_strided(&Pool::new(1), &[0.0f32; 6], &[3, 1], 1, &[2, 3], &mut [0.0f32; 6]);
}
