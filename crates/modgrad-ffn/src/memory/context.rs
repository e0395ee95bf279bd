//! What the context of an expert has seen.

use super::Weights;
use super::back_off::bucket;

/// A stretch of pairs (byte, count), and sums over it.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) total: u32,
    pub(super) largest: u32,
    pub(super) most_frequent: u8,
    /// The bucket of its back-off, where it has seen anything.
    pub(super) bucket: usize,
    /// How much comes from what it backs off to.
    pub(super) lambda: f32,
}

impl Context {
    /// The context `index` of `weights`, whose counts end `seen`.
    pub(super) fn of(
        seen: &[(u8, u32)],
        first: usize,
        weights: Weights<'_>,
        index: usize,
    ) -> Context {
        let (mut total, mut largest, mut most_frequent) = (0u32, 0, 255);
        for &(byte, count) in &seen[first..] {
            total = total.saturating_add(count);
            // Among equals the lowest byte: the order of a table's entries knows of counts
            // that were taken out.
            if count > largest || count == largest && byte < most_frequent {
                (largest, most_frequent) = (count, byte);
            }
        }
        let mut context = Context {
            first,
            end: seen.len(),
            total,
            largest,
            most_frequent,
            bucket: 0,
            lambda: 1.0,
        };
        if total > 0 {
            context.bucket = bucket(total, context.distinct());
            context.lambda = weights.lambda(index, context.bucket);
        }
        context
    }

    /// One of `CERTAINTIES` for a known context, 0 for none.
    pub(super) fn certainty(&self) -> usize {
        let seen = match self.total {
            0 => return 0,
            1 => 0,
            2..=3 => 1,
            _ => 2,
        };
        let distinct = match self.distinct() {
            1 => 0,
            2..=3 => 1,
            _ => 2,
        };
        1 + 3 * seen + distinct
    }

    pub(super) fn distinct(&self) -> u32 {
        (self.end - self.first) as u32
    }
}
