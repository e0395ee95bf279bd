//! The gradient of a large table, held for the rows that were touched.

use super::{expect_bags, expect_rows};
use crate::reduce::sum_of_squares_part;
use crate::softmax::Index;
use crate::{Element, Pool, multiversion};

/// Row r belongs to shard r % SHARDS, which one thread owns at a time. The
/// number is fixed, so that threads do not show in the result.
pub(crate) const SHARDS: usize = 16;

/// The summed gradient of each touched row of a table of `rows` x `d`.
///
/// Takes 4 bytes for each row of the table and 4 d for each touched one; the
/// memory is kept across [`SparseGradient::clear`].
#[derive(Debug)]
pub struct SparseGradient {
    rows: usize,
    d: usize,
    shards: Vec<Shard>,
}

/// The touched rows with r % SHARDS equal to the shard's position.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// For the shard's n-th row its slot plus one, or 0 where not touched.
    slots: Vec<u32>,
    /// The row of each slot, in the order of first touch.
    rows: Vec<usize>,
    /// `d` values for each slot.
    gradient: Vec<f32>,
}

impl SparseGradient {
    /// An empty gradient of a table of `rows` x `d`.
    pub fn new(rows: usize, d: usize) -> Self {
        let shard = |_| Shard { slots: vec![0; rows.div_ceil(SHARDS)], ..Shard::default() };
        SparseGradient { rows, d, shards: (0..SHARDS).map(shard).collect() }
    }

    /// The rows of the table.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn d(&self) -> usize {
        self.d
    }

    /// Adds `dy[i]` to each row that the i-th bag of `indices` names.
    pub fn accumulate<I: Index, D: Element>(
        &mut self,
        pool: &Pool,
        indices: &[I],
        bag: usize,
        dy: &[D],
    ) {
        let d = self.d;
        expect_bags("SparseGradient::accumulate", "dy", indices.len(), bag, d, dy.len());
        expect_rows("SparseGradient::accumulate", indices, self.rows);
        if d == 0 {
            return;
        }
        let work = (indices.len() * d).max(1);
        let shards_per_thread = (crate::elementwise::ELEMENTS_PER_THREAD * SHARDS).div_ceil(work);
        pool.for_rows(&mut self.shards, 1, shards_per_thread.min(SHARDS), |first, shards| {
            add_to_shards(indices, bag, dy, d, first, shards);
        });
    }

    /// The sum of the squares of all gradients, in f64.
    pub fn sum_of_squares(&self) -> f64 {
        self.shards.iter().map(|shard| sum_of_squares_part(&shard.gradient)).sum()
    }

    /// How many rows were touched.
    pub fn touched(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows.len()).sum()
    }

    /// Forgets every row; costs the number of touched ones.
    pub fn clear(&mut self) {
        for shard in &mut self.shards {
            for row in shard.rows.drain(..) {
                shard.slots[row / SHARDS] = 0;
            }
            shard.gradient.clear();
        }
    }

    /// Each touched row and its gradient, in an order that depends only on
    /// what was accumulated.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.shards.iter().flat_map(|shard| shard.iter(self.d))
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

impl Shard {
    /// Each row and its gradient of `d` values.
    #[inline(always)]
    pub(crate) fn iter(&self, d: usize) -> impl Iterator<Item = (usize, &[f32])> {
        self.rows.iter().copied().zip(self.gradient.chunks_exact(d.max(1)))
    }
}

multiversion! {
    fn add_to_shards[I: Index, D: Element](
        indices: &[I],
        bag: usize,
        dy: &[D],
        d: usize,
        first: usize,
        shards: &mut [Shard],
    ) {
        for (position, index) in indices.iter().enumerate() {
            let row = index.to_usize();
            let Some(shard) = shards.get_mut((row % SHARDS).wrapping_sub(first)) else {
                continue;
            };
            let dy = &dy[position / bag * d..][..d];
            let slot = shard.slots[row / SHARDS] as usize;
            if slot == 0 {
                shard.rows.push(row);
                shard.slots[row / SHARDS] =
                    u32::try_from(shard.rows.len()).expect("more than 2^32 rows in one shard");
                let start = shard.gradient.len();
                shard.gradient.resize(start + d, 0.0);
                for (sum, dy) in shard.gradient[start..].iter_mut().zip(dy) {
                    *sum = dy.to_f32();
                }
            } else {
                for (sum, dy) in shard.gradient[(slot - 1) * d..][..d].iter_mut().zip(dy) {
                    *sum += dy.to_f32();
                }
            }
        }
    }
}
