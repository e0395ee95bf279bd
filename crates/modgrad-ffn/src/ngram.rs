//! Hashes of the last n bytes, for several n at once.
//!
//! The last eight bytes of a position are one 64-bit word, shifted along by a
//! byte a step, so an order up to 8 is a mask and one mix of that word, without
//! any loss: two different n-grams of n <= 8 never share a 64-bit hash. Higher
//! orders chain the words that end 8, 16 and 24 bytes earlier.

use modgrad_compute::Pool;
use serde::{Deserialize, Serialize};

use crate::hash::{absorb, reduce, stream_seed};

/// The highest order.
pub const MAXIMUM_ORDER: usize = 32;

/// Which n-grams are hashed, and into how many rows.
///
/// Slot k has the rows `k * rows .. (k + 1) * rows` of one table. An order may
/// stand twice: its slots then hash independently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NgramHash {
    /// For each slot, how many of the last bytes it hashes: 1 to 32.
    pub orders: Vec<usize>,
    /// Rows of each slot.
    pub rows: usize,
    /// Another seed gives another, independent hash.
    pub seed: u64,
}

impl NgramHash {
    /// Says in words what is wrong, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        for &order in &self.orders {
            if !(1..=MAXIMUM_ORDER).contains(&order) {
                return Err(format!("`orders` holds {order}; an order is 1 to {MAXIMUM_ORDER}"));
            }
        }
        crate::check_rows("orders", self.orders.len(), self.rows)
    }
}

/// `out[b, t, k]` = k * rows + a hash, below `rows`, of the last `orders[k]`
/// bytes of window b up to and with position t.
///
/// Where the window holds fewer bytes yet, those it holds are hashed together
/// with a mark, so that they differ from any n-gram inside a window. Panics
/// when the lengths disagree or the configuration is not valid.
pub fn ngram_hash(
    pool: &Pool,
    config: &NgramHash,
    batch: usize,
    time: usize,
    tokens: &[u8],
    out: &mut [i32],
) {
    let slots = config.orders.len();
    crate::check_lengths("ngram_hash", batch, time, slots, tokens.len(), out.len());
    if let Err(reason) = config.validate() {
        panic!("`ngram_hash`: {reason}");
    }
    let slot_seeds: Vec<u64> =
        (0..slots).map(|slot| stream_seed(config.seed, slot as u64)).collect();
    pool.for_rows(out, slots, 64, |first, stretch| {
        for (offset, row) in stretch.chunks_exact_mut(slots).enumerate() {
            let position = first + offset;
            let start = position - position % time;
            let words = last_words(&tokens[start..=position]);
            let available = position - start + 1;
            for (slot, index) in row.iter_mut().enumerate() {
                let hash = hash_words(slot_seeds[slot], config.orders[slot], available, &words);
                *index = (slot * config.rows + reduce(hash, config.rows)) as i32;
            }
        }
    });
}

/// The last 32 bytes as four words, newest byte lowest, newest word first;
/// zero where there is nothing.
#[inline(always)]
pub(crate) fn last_words(bytes: &[u8]) -> [u64; MAXIMUM_ORDER / 8] {
    let mut words = [0; MAXIMUM_ORDER / 8];
    for (distance, &byte) in bytes.iter().rev().take(MAXIMUM_ORDER).enumerate() {
        words[distance / 8] |= u64::from(byte) << (distance % 8 * 8);
    }
    words
}

/// The hash of the last `order` bytes, of which `available` exist.
#[inline(always)]
pub(crate) fn hash_words(
    slot_seed: u64,
    order: usize,
    available: usize,
    words: &[u64; MAXIMUM_ORDER / 8],
) -> u64 {
    // The mark: another seed for each number of bytes short of the order.
    let missing = order.saturating_sub(available);
    let mut state = slot_seed ^ (missing as u64).wrapping_mul(START_MARK);
    let mut left = order;
    for &word in words {
        if left <= 8 {
            return absorb(state, word & (u64::MAX >> (64 - 8 * left)));
        }
        state = absorb(state, word);
        left -= 8;
    }
    state
}

/// A random odd number.
const START_MARK: u64 = 0xd6e8_feb8_6659_fd93;
