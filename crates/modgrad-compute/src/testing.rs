//! What the tests of the kernels share: shapes, inputs, thread counts and
//! comparison with a reference in f64.
//!
//! The instruction set is fixed for a process, so `scripts/test.sh` runs the
//! tests once for each: `MODGRAD_ISA=portable`, `avx2`, `avx512`.

use crate::{Element, Pool, bf16};

/// Lengths around every vector width, odd ones, and ones worth several threads.
pub(crate) const LENGTHS: &[usize] = &[
    0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 257, 1001, 8191, 8193,
    40_003,
];

/// (rows, row length): few and many, short and long, odd and even.
pub(crate) const ROWS: &[(usize, usize)] = &[
    (0, 5),
    (1, 1),
    (1, 31),
    (2, 32),
    (3, 33),
    (5, 16),
    (7, 257),
    (16, 64),
    (17, 64),
    (33, 96),
    (300, 7),
    (1100, 17),
    (129, 384),
    (3, 8200),
];

/// A storage type and how far its rounding may move a value.
pub(crate) trait Storage: Element + std::fmt::Debug {
    const ROUNDING: f64;
}

impl Storage for f32 {
    const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
}

impl Storage for bf16 {
    const ROUNDING: f64 = 1.0 / (1 << 8) as f64;
}

/// `length` values spread over [low, high), the same for the same seed.
pub(crate) fn values<T: Element>(seed: u64, length: usize, low: f32, high: f32) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..length).map(|_| T::from_f32(low + (high - low) * next())).collect()
}

/// Whole numbers below `bound`.
pub(crate) fn indices(seed: u64, length: usize, bound: usize) -> Vec<usize> {
    let uniform: Vec<f32> = values(seed, length, 0.0, bound as f32);
    uniform.into_iter().map(|x| (x as usize).min(bound - 1)).collect()
}

/// The values as f64, exactly.
pub(crate) fn exact<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f32() as f64).collect()
}

/// Runs `job` with 1, 2 and 3 threads, asserts that the outputs agree bit for
/// bit, and returns them.
#[track_caller]
pub(crate) fn for_threads<T: Element>(job: impl Fn(&Pool) -> Vec<T>) -> Vec<f32> {
    let run =
        |threads| -> Vec<f32> { job(&Pool::new(threads)).into_iter().map(T::to_f32).collect() };
    let one = run(1);
    for threads in [2, 3] {
        let more = run(threads);
        assert_eq!(one.len(), more.len());
        let differs = one.iter().zip(&more).position(|(x, y)| x.to_bits() != y.to_bits());
        assert_eq!(differs, None, "{threads} threads change the result at this index");
    }
    one
}

/// Asserts |ours - want| <= relative * |want| + absolute for every element.
#[track_caller]
pub(crate) fn assert_close(what: &str, ours: &[f32], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(ours.len(), want.len(), "{what}: length");
    for (index, (ours, want)) in ours.iter().zip(want).enumerate() {
        let bound = relative * want.abs() + absolute;
        let same = *ours as f64 == *want || (ours.is_nan() && want.is_nan());
        assert!(
            same || (*ours as f64 - want).abs() <= bound,
            "{what}: element {index} is {ours}, expected {want} within {bound:e}"
        );
    }
}

/// The gradient of `function` at `x` by central differences.
pub(crate) fn finite_differences(x: &[f64], function: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut point = x.to_vec();
    let mut slope = |index: usize| {
        point[index] = x[index] + STEP;
        let above = function(&point);
        point[index] = x[index] - STEP;
        let below = function(&point);
        point[index] = x[index];
        (above - below) / (2.0 * STEP)
    };
    (0..x.len()).map(&mut slope).collect()
}
