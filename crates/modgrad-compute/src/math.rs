//! Scalar functions in f32 that vectorise: no branches, no calls, no tables.
//!
//! Each is `#[inline(always)]`, so that a loop over it is compiled for the
//! instruction set of the kernel that contains it. NaN passes through. Errors
//! are bounded by the tests below, which compare with f64 over dense ranges.

/// Adding this to a small f32 leaves its nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// e^x: relative error under 2e-7, 0 below -103.98, infinity above 88.73.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // The limits lie beyond underflow and overflow; comparisons keep a NaN.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.5 { -104.5 } else { x };
    let (mantissa, exponent) = exp_parts(x);
    // Two factors reach the subnormal numbers and infinity without overflow.
    let half = exponent >> 1;
    mantissa * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// e^x for sums and quotients, a fifth cheaper than [`exp`]: the same between
/// -87.3 and 88.3, but 0 below -87.7 and infinity above 88.4.
#[inline(always)]
pub fn exp_normal(x: f32) -> f32 {
    // At these limits the exponent is -127 and 128: the factor 0 or infinity.
    let x = if x > 88.5 { 88.5 } else { x };
    let x = if x < -88.0 { -88.0 } else { x };
    let (mantissa, exponent) = exp_parts(x);
    mantissa * power_of_two(exponent)
}

/// e^x as mantissa * 2^exponent, the mantissa in [sqrt(1/2), sqrt(2)].
#[inline(always)]
fn exp_parts(x: f32) -> (f32, i32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let whole = shifted - ROUND;
    // ln 2 in two parts: the first has so few bits that the product is exact.
    let r = x - whole * 0.693_359_4 - whole * -2.121_944_4e-4;
    // Minimax polynomial of Cephes expf on |r| <= ln(2)/2.
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    (p * r * r + r + 1.0, exponent)
}

/// 2^exponent for -126 <= exponent <= 127; 0 at -127, infinity at 128.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// Natural logarithm: relative error under 2e-7; -infinity at 0, NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    // The mantissa is taken from [sqrt(1/2), sqrt(2)), where f is small.
    let exponent = bits.wrapping_sub(0x3f35_04f3) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32) - 1.0;
    let exponent = exponent as f32 - if subnormal { 23.0 } else { 0.0 };
    // Minimax polynomial of Cephes logf.
    let p = 7.037_683_6e-2;
    let p = p * f - 1.151_461e-1;
    let p = p * f + 1.167_699_84e-1;
    let p = p * f - 1.242_014_1e-1;
    let p = p * f + 1.424_932_3e-1;
    let p = p * f - 1.666_805_7e-1;
    let p = p * f + 2.000_071_4e-1;
    let p = p * f - 2.499_999_4e-1;
    let p = p * f + 0.333_333_3;
    let square = f * f;
    let tail = p * f * square + exponent * -2.121_944_4e-4 - 0.5 * square;
    let result = f + tail + exponent * 0.693_359_4;
    let positive = if x < f32::INFINITY { result } else { x };
    let limit = if x == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
    if x > 0.0 { positive } else { limit }
}

/// log(1 + x) for 0 <= x <= 1, exact to rounding down to x = 0.
#[inline(always)]
pub fn log_one_plus(x: f32) -> f32 {
    let sum = 1.0 + x;
    // What the rounding of the sum lost, to first order.
    log(sum) + (x - (sum - 1.0)) / sum
}

/// Hyperbolic tangent: relative error under 6e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Where the quotient x * p / q reaches 1. A NaN stays.
    const LIMIT: f32 = 7.998_811_7;
    let s = if x.abs() > LIMIT { LIMIT * LIMIT } else { x * x };
    // Odd rational approximation of degree 13/6, as in Eigen.
    let p = -2.760_768_4e-16;
    let p = p * s + 2.000_188e-13;
    let p = p * s - 8.604_672e-11;
    let p = p * s + 5.122_297_3e-8;
    let p = p * s + 1.485_722_35e-5;
    let p = p * s + 6.372_619_5e-4;
    let p = p * s + 4.893_524_6e-3;
    let q = 1.198_258_4e-6;
    let q = q * s + 1.185_347_1e-4;
    let q = q * s + 2.268_434_7e-3;
    let q = q * s + 4.893_525e-3;
    // The quotient first: a subnormal x would lose bits in x * p.
    let y = x * (p / q);
    // Beyond LIMIT `y` grows with x, so this is also where it becomes 1.
    let y = if y > 1.0 { 1.0 } else { y };
    if y < -1.0 { -1.0 } else { y }
}

/// 1 / (1 + e^-x): relative error under 3e-7, also far below zero.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp_normal(-x))
}

/// log(1 + e^x), linear above and exponential below without loss.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + log_one_plus(exp_normal(-x.abs()))
}

/// x * sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp_normal(-x))
}

/// [`silu`] and its derivative, for the price of one exponential.
#[inline(always)]
pub fn silu_with_derivative(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    let y = x * s;
    (y, s + y * (1.0 - s))
}

/// 2 * sqrt(2 / pi), the slope of the tanh form of GELU.
const GELU_SLOPE: f32 = 1.595_769_2;
const GELU_CUBIC: f32 = 0.044_715;

/// GELU in its tanh form, written as x * sigmoid(2u) so that the tail below
/// zero keeps its relative accuracy.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x / (1.0 + exp_normal(-GELU_SLOPE * (x + GELU_CUBIC * x * x * x)))
}

/// [`gelu`] and its derivative, for the price of one exponential.
#[inline(always)]
pub fn gelu_with_derivative(x: f32) -> (f32, f32) {
    let square = x * x;
    let s = sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * square));
    let y = x * s;
    (y, s + y * (1.0 - s) * (GELU_SLOPE + 3.0 * GELU_SLOPE * GELU_CUBIC * square))
}

/// The larger of the two; NaN where either is.
#[inline(always)]
pub fn maximum(x: f32, y: f32) -> f32 {
    if x > y || x.is_nan() { x } else { y }
}

/// The smaller of the two; NaN where either is.
#[inline(always)]
pub fn minimum(x: f32, y: f32) -> f32 {
    if x < y || x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of every binade from 2^-149 to 2^127 and a dense part near zero.
    fn points(low: f32, high: f32) -> impl Iterator<Item = f32> {
        let dense = (0..=400_000).map(move |i| low + (high - low) * (i as f32 / 400_000.0));
        let binades = (0..0x7f80_0000u32).step_by(40_009).map(f32::from_bits);
        let signed = binades.flat_map(|x| [x, -x]);
        dense.chain(signed.filter(move |x| (low..=high).contains(x)))
    }

    /// Largest error of `ours` over the points, relative above `floor`.
    fn worst(
        (low, high): (f32, f32),
        floor: f64,
        ours: fn(f32) -> f32,
        exact: fn(f64) -> f64,
    ) -> f64 {
        points(low, high)
            .map(|x| {
                let want = exact(x as f64);
                (ours(x) as f64 - want).abs() / want.abs().max(floor)
            })
            .fold(0.0, |worst, error| {
                assert!(!error.is_nan());
                worst.max(error)
            })
    }

    #[track_caller]
    fn within(
        bound: f64,
        range: (f32, f32),
        floor: f64,
        ours: fn(f32) -> f32,
        exact: fn(f64) -> f64,
    ) {
        let error = worst(range, floor, ours, exact);
        assert!(error <= bound, "error {error:e} above {bound:e}");
    }

    #[test]
    fn exp_is_accurate_and_has_its_limits() {
        within(2e-7, (-87.3, 88.7), 0.0, exp, f64::exp);
        // Subnormal results: absolute error of one unit in the last place.
        within(1.5e-45 / 1e-38, (-104.5, -87.0), 1e-38, exp, f64::exp);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-104.0), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(88.73), f32::INFINITY);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(88.72).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_cheaper_exp_differs_only_at_the_limits() {
        for x in points(-87.3, 88.3) {
            assert_eq!(exp_normal(x), exp(x), "{x}");
        }
        for x in points(-200.0, -87.0) {
            assert!((exp_normal(x) - exp(x)).abs() < f32::MIN_POSITIVE, "{x}");
        }
        for (x, limit) in [(-87.8, 0.0), (f32::NEG_INFINITY, 0.0), (88.4, f32::INFINITY)] {
            assert_eq!(exp_normal(x), limit);
        }
        assert_eq!(exp_normal(f32::INFINITY), f32::INFINITY);
        assert!(exp_normal(f32::NAN).is_nan());
    }

    #[test]
    fn log_is_accurate_and_has_its_limits() {
        within(2e-7, (f32::MIN_POSITIVE, f32::MAX), 0.0, log, f64::ln);
        within(2e-7, (f32::from_bits(1), 1e-37), 0.0, log, f64::ln);
        within(2e-7, (0.5, 2.0), 0.0, log, f64::ln);
        assert_eq!(log(1.0), 0.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(-0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan());
        assert!(log(-f32::MIN_POSITIVE / 2.0).is_nan());
        assert!(log(f32::NEG_INFINITY).is_nan());
        assert!(log(f32::NAN).is_nan());
        within(3e-7, (0.0, 1.0), f64::MIN_POSITIVE, log_one_plus, f64::ln_1p);
    }

    #[test]
    fn tanh_and_sigmoid_are_accurate_and_have_their_limits() {
        within(6e-7, (-12.0, 12.0), f64::MIN_POSITIVE, tanh, f64::tanh);
        within(6e-7, (-0.01, 0.01), f64::MIN_POSITIVE, tanh, f64::tanh);
        within(3e-7, (-87.0, 87.0), 0.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        for (x, sign) in [(f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0), (30.0, 1.0)] {
            assert!((tanh(x) - sign).abs() <= 2e-7);
            assert!(tanh(x).abs() <= 1.0);
        }
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(0.0), 0.5);
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
        assert_eq!(tanh(0.0), 0.0);
    }

    #[test]
    fn activations_are_accurate() {
        within(4e-7, (-80.0, 80.0), 1e-38, silu, |x| x / (1.0 + (-x).exp()));
        within(5e-7, (-60.0, 60.0), 1e-38, softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p());
        // The exponent of the tail magnifies the rounding of its argument.
        within(5e-6, (-5.0, 10.0), 1e-38, gelu, |x| {
            x / (1.0
                + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).exp())
        });
        assert!(silu(f32::NAN).is_nan() && softplus(f32::NAN).is_nan() && gelu(f32::NAN).is_nan());
        assert_eq!(softplus(f32::INFINITY), f32::INFINITY);
        assert_eq!(softplus(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn the_larger_and_smaller_keep_a_nan() {
        assert_eq!((maximum(1.0, 2.0), minimum(1.0, 2.0)), (2.0, 1.0));
        for (x, y) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            assert!(maximum(x, y).is_nan() && minimum(x, y).is_nan());
        }
    }
}
