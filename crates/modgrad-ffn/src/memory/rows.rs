//! The rows of every expert at each position of a window, in order.
//!
//! Written out, a row has 256 probabilities; but an expert's row differs from the
//! base's, up to a factor, only in bytes that its contexts, or those it backs off to,
//! have seen. So a position is: the base's logarithms in full; up to E bytes, the
//! entries; and for each expert how far its logarithms at the entries are from the
//! base's, less the constant by which they differ everywhere else. What is constant
//! over a row is left out, since a softmax over weighted rows does not see it.
//!
//! Axes: T positions of a window, K experts, E entries.

use modgrad_compute::Pool;

use super::scratch::Scratch;
use super::{Memory, Weights};

/// Figures of an expert's context at a position: see [`Rows::statistics`].
pub const STATISTICS: usize = 5;
/// The likeliest bytes that are named at a position.
pub const LEADING: usize = 3;

/// The rows of a window.
pub struct Rows<'a> {
    /// [T, 256]: ln p of the base.
    pub base: &'a mut [f32],
    /// [T, E]: the bytes where experts differ; those left over have `difference` 0.
    pub entries: &'a mut [i32],
    /// [T, K, E]: ln p − ln p(base) − what that is at all other bytes.
    pub difference: &'a mut [f32],
    /// [T, K]: the multiple of ln p(base) that a row has at all other bytes.
    pub multiple: &'a mut [f32],
    /// [T, K, 5]: ln(1 + n), ln(1 + d) and the largest share, of n times that the
    /// context was seen with d different bytes; p of the expert's most frequent byte
    /// under the first mixer, and p of that mixer's likeliest under the expert. Of a
    /// mixer p of the `leading` bytes, and twice 0.
    pub statistics: &'a mut [f32],
    /// [T, 3]: the first mixer's likeliest bytes.
    pub leading: &'a mut [i32],
    /// What the window teaches, or nothing where that is not asked for: see
    /// [`Learned::learn`](super::Learned::learn).
    pub lessons: &'a mut [f32],
}

impl<'a> Rows<'a> {
    /// The rows of each of `windows` windows.
    fn of_windows(self, windows: usize) -> impl Iterator<Item = Rows<'a>> {
        fn each<T>(all: &mut [T], windows: usize) -> std::slice::ChunksMut<'_, T> {
            let length = all.len().checked_div(windows).unwrap_or(0);
            all.chunks_mut(length.max(1))
        }
        let mut lessons = each(self.lessons, windows);
        each(self.base, windows)
            .zip(each(self.entries, windows))
            .zip(each(self.difference, windows))
            .zip(each(self.multiple, windows))
            .zip(each(self.statistics, windows))
            .zip(each(self.leading, windows))
            .map(move |(((((base, entries), difference), multiple), statistics), leading)| {
                let lessons = lessons.next().unwrap_or_default();
                Rows { base, entries, difference, multiple, statistics, leading, lessons }
            })
    }
}

/// Several windows of one length, each with the training text around it.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// [windows, earlier + margin + T + margin].
    pub tokens: &'a [u8],
    /// T.
    pub time: usize,
    /// Bytes on either side of a window that are taken out of the counts with it.
    pub margin: usize,
    /// Bytes before those that are only read. Where there are neither, nothing is taken
    /// out: the text is not one that was counted.
    pub earlier: usize,
}

impl<'a> Batch<'a> {
    fn stretch(&self) -> usize {
        self.earlier + self.time + 2 * self.margin
    }

    /// The bytes of a window, and what stands around it.
    fn window(&self, index: usize) -> (&'a [u8], Option<Surroundings<'a>>) {
        let stretch = &self.tokens[index * self.stretch()..][..self.stretch()];
        let (earlier, rest) = stretch.split_at(self.earlier);
        let (before, rest) = rest.split_at(self.margin);
        let (window, after) = rest.split_at(self.time);
        let around = Surroundings { earlier, before, after };
        (window, (self.earlier + self.margin > 0).then_some(around))
    }
}

/// The rows of all windows of a batch.
///
/// Windows are split among threads and know nothing of each other. Panics when the
/// lengths disagree.
pub fn window_rows(
    pool: &Pool,
    memory: &Memory<'_>,
    weights: Weights<'_>,
    batch: Batch<'_>,
    rows: Rows<'_>,
) {
    if batch.time == 0 {
        rows.lessons.fill(0.0);
        return;
    }
    let windows = batch.tokens.len() / batch.stretch();
    let mut work: Vec<_> = rows.of_windows(windows).collect();
    pool.for_rows(&mut work, 1, 1, |first, work| {
        let mut scratch = Scratch::new(memory);
        for (index, rows) in work.iter_mut().enumerate() {
            let (window, around) = batch.window(first + index);
            scratch.fill(memory, weights, window, around, rows);
        }
    });
}

/// The text around a training window, which is taken out of the counts.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What stands before the window, read for its contexts and taken out.
    pub before: &'a [u8],
    /// What stands behind it.
    pub after: &'a [u8],
    /// Read before that, but not taken out.
    pub earlier: &'a [u8],
}
