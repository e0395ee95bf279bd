//! Counts of a short stretch: a window so far, or the surroundings of one.

use modgrad_compute::prefetch::prefetch;

/// What followed each context of one kind within a stretch.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// (hash, first node + 1), open addressing; a hash of 0 is a free place.
    places: Vec<(u64, u32)>,
    nodes: Vec<Node>,
    /// A bit for each stretch of hashes, set where one of them is expected.
    expected: Vec<u64>,
}

/// Bytes of a node, compared at once.
const WIDTH: usize = 16;

/// Some of the bytes that followed a context.
#[derive(Clone, Copy, Debug)]
struct Node {
    bytes: [u8; WIDTH],
    counts: [u32; WIDTH],
    used: usize,
    /// The next node of the context + 1; 0 where there is none.
    next: u32,
}

/// Bits of the filter for each hash that is expected.
const FILTER: usize = 16;

impl Node {
    /// Counts `byte` if it stands here.
    #[inline(always)]
    fn count(&mut self, byte: u8) -> bool {
        let mut found = 0u32;
        for (at, other) in self.bytes.iter().enumerate() {
            found |= u32::from(*other == byte) << at;
        }
        let found = found & ((1 << self.used) - 1);
        if found != 0 {
            self.counts[found.trailing_zeros() as usize] += 1;
        }
        found != 0
    }
}

impl Tally {
    /// Forgets everything and makes room for the contexts of `positions`.
    pub(super) fn reset(&mut self, positions: usize) {
        self.places.clear();
        self.places.resize((2 * positions).next_power_of_two(), (0, 0));
        self.nodes.clear();
        self.expected.clear();
        self.expected.resize((FILTER * positions).next_power_of_two().div_ceil(64), 0);
    }

    /// From here on `add_expected` counts what follows the context of `hash`, which is
    /// not 0.
    pub(super) fn expect(&mut self, hash: u64) {
        let at = self.place(hash);
        self.places[at].0 = hash;
        let (word, bit) = self.filter(hash);
        self.expected[word] |= bit;
    }

    /// Counts `byte` behind the context of `hash` if it is expected; says whether it is.
    #[inline(always)]
    pub(super) fn add_expected(&mut self, hash: u64, byte: u8) -> bool {
        let (word, bit) = self.filter(hash);
        if self.expected[word] & bit == 0 || hash == 0 {
            return false;
        }
        let at = self.place(hash);
        let expected = self.places[at].0 == hash;
        if expected {
            self.add_at(at, byte);
        }
        expected
    }

    #[inline(always)]
    fn filter(&self, hash: u64) -> (usize, u64) {
        ((hash >> 44) as usize & (self.expected.len() - 1), 1 << (hash >> 38 & 63))
    }

    /// Brings what is known of a hash nearer.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.places, (hash >> 20) as usize & (self.places.len() - 1));
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut at = (hash >> 20) as usize & mask;
        while self.places[at].0 != hash && self.places[at].0 != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    /// Counts `byte` behind the context of `hash`, which is not 0.
    pub(super) fn add(&mut self, hash: u64, byte: u8) {
        let at = self.place(hash);
        self.places[at].0 = hash;
        self.add_at(at, byte);
    }

    fn add_at(&mut self, at: usize, byte: u8) {
        let first = self.places[at].1;
        let mut node = first;
        while let Some(found) = self.nodes.get_mut((node as usize).wrapping_sub(1)) {
            if found.count(byte) {
                return;
            }
            node = found.next;
        }
        // The first node of a context is the one with room.
        match self.nodes.get_mut((first as usize).wrapping_sub(1)) {
            Some(open) if open.used < WIDTH => {
                (open.bytes[open.used], open.counts[open.used]) = (byte, 1);
                open.used += 1;
            }
            _ => {
                let mut new = Node { bytes: [0; WIDTH], counts: [0; WIDTH], used: 1, next: first };
                (new.bytes[0], new.counts[0]) = (byte, 1);
                self.nodes.push(new);
                self.places[at].1 = self.nodes.len() as u32;
            }
        }
    }

    /// What followed the context of `hash`.
    #[inline(always)]
    pub(super) fn get(&self, hash: u64) -> impl Iterator<Item = (u8, u32)> + '_ {
        let first = if hash == 0 { 0 } else { self.places[self.place(hash)].1 };
        let node = |at: u32| self.nodes.get((at as usize).wrapping_sub(1));
        std::iter::successors(node(first), move |found| node(found.next)).flat_map(|found| {
            found.bytes.iter().copied().zip(found.counts.iter().copied()).take(found.used)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn counts_are_those_of_a_map() {
        let mut tally = Tally::default();
        for positions in [1000, 3] {
            tally.reset(positions);
            let mut map: BTreeMap<u64, BTreeMap<u8, u32>> = BTreeMap::new();
            for step in 0..positions as u64 {
                // Hashes that share a place.
                let (hash, byte) = ((step * step % 37 + 1) << 40, (step % 5) as u8);
                tally.add(hash, byte);
                *map.entry(hash).or_default().entry(byte).or_default() += 1;
            }
            for (hash, bytes) in &map {
                assert_eq!(&tally.get(*hash).collect::<BTreeMap<_, _>>(), bytes);
            }
            assert_eq!(tally.get(99).count() + tally.get(0).count(), 0);
        }
    }

    #[test]
    fn of_expected_contexts_alone_all_is_counted() {
        let mut tally = Tally::default();
        for contexts in [1, 40, 3] {
            let hash = |context: u64| crate::hash::mix(context + 1);
            tally.reset(contexts as usize);
            // Twice: a context may come again in a window.
            (0..contexts).chain(0..contexts).for_each(|context| tally.expect(hash(context)));
            for step in 0..5000 {
                tally.add_expected(hash(step % 77), (step % 41) as u8);
                assert!(!tally.add_expected(0, 1));
            }
            for context in 0..77 {
                let mut expected: BTreeMap<u8, u32> = BTreeMap::new();
                for step in (0..5000).filter(|step| step % 77 == context && context < contexts) {
                    *expected.entry((step % 41) as u8).or_default() += 1;
                }
                assert_eq!(tally.get(hash(context)).collect::<BTreeMap<_, _>>(), expected);
            }
        }
    }
}
