//! What the context of an expert has seen.

/// A stretch of pairs (byte, count), and sums over it.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) total: u32,
    pub(super) largest: u32,
    pub(super) most_frequent: u8,
}

impl Context {
    /// The context whose counts end `seen`.
    pub(super) fn of(seen: &[(u8, u32)], first: usize) -> Context {
        let (mut total, mut largest, mut most_frequent) = (0u32, 0, 255);
        for &(byte, count) in &seen[first..] {
            total = total.saturating_add(count);
            // Among equals the lowest byte: the order of a table's entries knows of counts
            // that were taken out.
            if count > largest || count == largest && byte < most_frequent {
                (largest, most_frequent) = (count, byte);
            }
        }
        Context { first, end: seen.len(), total, largest, most_frequent }
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
