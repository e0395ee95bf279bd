//! The numbers: bits per byte and the intervals around rates, all in f64.
//!
//! A score is the mean over all targets of −log2 softmax(logits)\[target\]. The
//! sum is formed in one order, that of the text, whatever the order in which
//! windows were scored, so that a score is the same number every time.

use std::f64::consts::LOG2_E;

/// The 97.5 % point of the normal distribution: 95 % lie within so many
/// standard deviations of the mean.
pub const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Values a byte can take: the width of every row of logits.
pub const BYTES: usize = 256;

/// −log2 softmax(logits)\[target\]: what it costs to be told `target`.
///
/// NaN if any logit is not finite, or if `target` is outside the row.
pub fn row_bits(logits: &[f32], target: usize) -> f64 {
    let Some(&wanted) = logits.get(target) else {
        return f64::NAN;
    };
    // An infinity below the peak, or a NaN that `max` steps over, would else
    // leave no trace.
    if !logits.iter().all(|x| x.is_finite()) {
        return f64::NAN;
    }
    let peak = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - peak).exp()).sum();
    // Uniform logits give log2(256) + 0, exactly 8.
    sum.log2() + (peak - f64::from(wanted)) * LOG2_E
}

/// A sum that carries its rounding error along (Neumaier, 1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct CompensatedSum {
    sum: f64,
    lost: f64,
}

impl CompensatedSum {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;
    }

    /// The sum so far.
    pub fn value(self) -> f64 {
        self.sum + self.lost
    }
}

impl FromIterator<f64> for CompensatedSum {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sum = CompensatedSum::default();
        values.into_iter().for_each(|value| sum.add(value));
        sum
    }
}

/// What can be wrong with what a [`BitsPerByte`] is given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// A row's cost is NaN or infinite.
    #[error("row {row} of window {window} has logits that are not finite")]
    NonFinite {
        /// The window.
        window: usize,
        /// The row within it.
        row: usize,
    },
    /// A window was added twice, lies outside, or has the wrong length.
    #[error("window {window}: {reason}")]
    Window {
        /// The window.
        window: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The score was asked for before every window was in.
    #[error("{missing} of {windows} windows were never scored")]
    Incomplete {
        /// Windows without a score.
        missing: usize,
        /// All windows.
        windows: usize,
    },
}

/// Bits per byte of the rows whose window holds between `start` and `end − 1`
/// earlier bytes besides the one they stand at.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PositionBucket {
    /// First position within the window.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Targets scored there.
    pub targets: u64,
    /// Their mean cost.
    pub bits_per_byte: f64,
}

/// Adds up the costs of a text cut into windows of `context` targets, the last
/// of which may be shorter.
pub struct BitsPerByte {
    targets: usize,
    context: usize,
    /// Position ranges 0..1, 1..2, 2..4, 4..8, …, the last cut at the context.
    buckets: Vec<(usize, usize)>,
    /// One sum a window and bucket.
    sums: Vec<f64>,
    seen: Vec<bool>,
}

impl BitsPerByte {
    /// For `targets` targets in windows of `context`, both above zero.
    pub fn new(targets: usize, context: usize) -> Self {
        let context = context.max(1);
        let windows = targets.div_ceil(context);
        let mut buckets = vec![(0, 1)];
        while let Some(&(_, start)) = buckets.last()
            && start < context
        {
            buckets.push((start, start.saturating_mul(2).min(context)));
        }
        BitsPerByte {
            targets,
            context,
            sums: vec![0.0; windows * buckets.len()],
            buckets,
            seen: vec![false; windows],
        }
    }

    /// The number of windows.
    pub fn windows(&self) -> usize {
        self.seen.len()
    }

    /// The targets of a window: the context, or fewer in the last one.
    pub fn rows(&self, window: usize) -> usize {
        let start = window.saturating_mul(self.context);
        self.context.min(self.targets.saturating_sub(start))
    }

    /// Adds the costs of one window's targets, in any order of windows.
    pub fn add_window(&mut self, window: usize, bits: &[f64]) -> Result<(), MetricError> {
        let wrong = |reason| Err(MetricError::Window { window, reason });
        match self.seen.get(window) {
            None => return wrong("there is no such window"),
            Some(true) => return wrong("it was scored already"),
            Some(false) => {}
        }
        if bits.len() != self.rows(window) {
            return wrong("it has another number of targets");
        }
        if let Some(row) = bits.iter().position(|bits| !bits.is_finite()) {
            return Err(MetricError::NonFinite { window, row });
        }
        let width = self.buckets.len();
        let sums = &mut self.sums[window * width..(window + 1) * width];
        for (sum, &(start, end)) in sums.iter_mut().zip(&self.buckets) {
            let part = bits.iter().take(end).skip(start).copied();
            *sum = part.collect::<CompensatedSum>().value();
        }
        self.seen[window] = true;
        Ok(())
    }

    /// The mean over all targets; every window must be in.
    pub fn mean(&self) -> Result<f64, MetricError> {
        let missing = self.seen.iter().filter(|seen| !**seen).count();
        if missing > 0 || self.targets == 0 {
            let windows = self.windows();
            return Err(MetricError::Incomplete { missing, windows });
        }
        let sum: CompensatedSum = self.sums.iter().copied().collect();
        Ok(sum.value() / self.targets as f64)
    }

    /// The mean by position within the window; buckets without targets are left out.
    pub fn by_position(&self) -> Vec<PositionBucket> {
        let width = self.buckets.len();
        let full = self.targets / self.context;
        let rest = self.targets % self.context;
        let mut report = Vec::with_capacity(width);
        for (index, &(start, end)) in self.buckets.iter().enumerate() {
            let targets = full * (end - start) + rest.clamp(start, end) - start;
            let sums = self.sums.iter().skip(index).step_by(width).copied();
            if targets > 0 {
                report.push(PositionBucket {
                    start,
                    end,
                    targets: targets as u64,
                    bits_per_byte: sums.collect::<CompensatedSum>().value() / targets as f64,
                });
            }
        }
        report
    }
}

/// The 95 % interval of a rate after `successes` in `trials` (Wilson, 1927).
///
/// Without trials nothing is known: (0, 1).
pub fn wilson_95(successes: u64, trials: u64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let trials = trials as f64;
    wilson_95_at(successes as f64 / trials, trials)
}

/// The same around a rate between 0 and 1 over what counts for `trials` trials,
/// above zero: see [`wilson_95`].
pub fn wilson_95_at(rate: f64, trials: f64) -> (f64, f64) {
    let rate = rate.clamp(0.0, 1.0);
    let z2 = NORMAL_95.powi(2);
    let centre = rate + z2 / (2.0 * trials);
    let half = (z2 * (rate * (1.0 - rate) / trials + z2 / (4.0 * trials * trials))).sqrt();
    let scale = 1.0 + z2 / trials;
    let low = ((centre - half) / scale).clamp(0.0, 1.0);
    let high = ((centre + half) / scale).clamp(0.0, 1.0);
    // The ends are exact where nothing, or everything, succeeded.
    (if rate == 0.0 { 0.0 } else { low }, if rate == 1.0 { 1.0 } else { high })
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;
