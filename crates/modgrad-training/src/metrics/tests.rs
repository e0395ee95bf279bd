use super::*;
use proptest::prelude::*;

/// The definition, with nothing done for range or speed.
fn plain_bits(logits: &[f32], target: usize) -> f64 {
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    -(f64::from(logits[target]).exp() / total).log2()
}

#[test]
fn uniform_logits_cost_exactly_eight_bits() {
    for level in [0.0, -0.0, 1.0, 0.1, -3.75, 1e30, f32::MAX, f32::MIN] {
        for target in [0, 17, 255] {
            assert_eq!(row_bits(&[level; BYTES], target), 8.0, "{level}");
        }
    }
}

#[test]
fn the_whole_range_of_f32_has_a_cost() {
    let mut row = [f32::MIN; BYTES];
    row[3] = f32::MAX;
    assert_eq!(row_bits(&row, 3), 0.0);
    let far = row_bits(&row, 4);
    assert!(far.is_finite() && far > 9e38, "{far}");
    let mut row = [0.0; BYTES];
    row[0] = 200.0; // exp(200) is beyond f32
    assert!((row_bits(&row, 1) - 200.0 * LOG2_E).abs() < 1e-9);
}

#[test]
fn what_is_not_finite_has_no_cost() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut row = [0.5; BYTES];
        row[9] = bad;
        assert!(row_bits(&row, 9).is_nan() && row_bits(&row, 8).is_nan(), "{bad}");
        assert!(row_bits(&[bad; BYTES], 0).is_nan(), "{bad}");
    }
    assert!(row_bits(&[0.0; BYTES], 256).is_nan());
    assert!(row_bits(&[], 0).is_nan());
}

#[test]
fn a_compensated_sum_keeps_what_plain_addition_loses() {
    let values = [1e16, 1.0, -1e16, 1.0];
    assert_eq!(values.iter().copied().collect::<CompensatedSum>().value(), 2.0);
    let tenths: CompensatedSum = std::iter::repeat_n(0.1, 1_000_000).collect();
    assert!((tenths.value() - 100_000.0).abs() < 1e-9);
}

#[test]
fn windows_are_refused_by_name() {
    let mut bits = BitsPerByte::new(10, 4);
    assert_eq!((bits.windows(), bits.rows(0), bits.rows(2), bits.rows(3)), (3, 4, 2, 0));
    let infinite = bits.add_window(1, &[1.0, 2.0, f64::INFINITY, 1.0]);
    assert_eq!(infinite, Err(MetricError::NonFinite { window: 1, row: 2 }));
    assert!(bits.add_window(2, &[1.0; 4]).is_err(), "the last window is short");
    assert!(bits.add_window(3, &[]).is_err());
    bits.add_window(0, &[1.0; 4]).unwrap();
    assert!(bits.add_window(0, &[1.0; 4]).is_err(), "twice");
    assert_eq!(bits.mean(), Err(MetricError::Incomplete { missing: 2, windows: 3 }));
    assert!(BitsPerByte::new(0, 4).mean().is_err());
}

#[test]
fn buckets_cover_every_target_once() {
    for targets in [1, 2, 3, 7, 8, 9, 64, 65, 100] {
        for context in [1, 2, 3, 5, 8, 64, 200] {
            let mut bits = BitsPerByte::new(targets, context);
            for window in (0..bits.windows()).rev() {
                // A row costs its position, so that a bucket's mean is known.
                let rows: Vec<f64> = (0..bits.rows(window)).map(|row| row as f64).collect();
                bits.add_window(window, &rows).unwrap();
            }
            let report = bits.by_position();
            assert_eq!(report.iter().map(|b| b.targets).sum::<u64>(), targets as u64);
            for bucket in &report {
                let last = (bucket.end - 1) as f64;
                assert!(bucket.bits_per_byte >= bucket.start as f64, "{report:?}");
                assert!(bucket.bits_per_byte <= last, "{report:?}");
            }
            let expected: usize = (0..targets).map(|target| target % context).sum();
            assert_eq!(bits.mean().unwrap(), expected as f64 / targets as f64);
        }
    }
}

#[test]
fn wilson_intervals_of_known_cases() {
    // The roots p of (p − rate)² = z² p (1 − p) / n, found by bisection.
    let close = |(low, high): (f64, f64), (l, h): (f64, f64)| {
        assert!((low - l).abs() < 1e-6 && (high - h).abs() < 1e-6, "{low} {high}");
    };
    close(wilson_95(0, 10), (0.0, 0.277_533));
    close(wilson_95(10, 10), (0.722_467, 1.0));
    close(wilson_95(5, 10), (0.236_593, 0.763_407));
    close(wilson_95(199, 200), (0.972_226, 0.999_117));
    assert_eq!(wilson_95(0, 0), (0.0, 1.0));
}

proptest! {
    #[test]
    fn a_row_agrees_with_the_definition(
        row in prop::collection::vec(-30.0f32..30.0, BYTES),
        target in 0..BYTES,
    ) {
        prop_assert!((row_bits(&row, target) - plain_bits(&row, target)).abs() < 1e-11);
    }

    #[test]
    fn the_order_of_windows_changes_no_bit(
        costs in prop::collection::vec(0.0f64..40.0, 1..300),
        context in 1usize..40,
        turn in any::<usize>(),
    ) {
        let windows = costs.len().div_ceil(context);
        let score = |order: Vec<usize>| {
            let mut bits = BitsPerByte::new(costs.len(), context);
            for window in order {
                let end = ((window + 1) * context).min(costs.len());
                bits.add_window(window, &costs[window * context..end]).unwrap();
            }
            (bits.mean().unwrap().to_bits(), bits.by_position())
        };
        let mut turned: Vec<usize> = (0..windows).collect();
        turned.rotate_left(turn % windows);
        turned.reverse();
        let plain = score((0..windows).collect());
        let exact = costs.iter().sum::<f64>() / costs.len() as f64;
        prop_assert!((f64::from_bits(plain.0) - exact).abs() < 1e-12);
        prop_assert_eq!(plain, score(turned));
    }

    #[test]
    fn a_wilson_interval_holds_the_rate(trials in 1u64..5000, share in 0.0f64..=1.0) {
        let successes = (share * trials as f64) as u64;
        let (low, high) = wilson_95(successes, trials);
        let rate = successes as f64 / trials as f64;
        prop_assert!(0.0 <= low && low <= rate && rate <= high && high <= 1.0);
    }
}
