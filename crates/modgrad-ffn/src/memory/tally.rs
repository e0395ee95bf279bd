//! Counts of a short stretch: a window so far, or the surroundings of one.

use modgrad_compute::prefetch::prefetch;

/// What followed each context of one kind within a stretch.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// (hash, first node + 1), open addressing; a hash of 0 is a free place.
    places: Vec<(u64, u32)>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    byte: u8,
    count: u32,
    /// The next node of the context + 1; 0 where there is none.
    next: u32,
}

impl Tally {
    /// Forgets everything and makes room for `positions`.
    pub(super) fn reset(&mut self, positions: usize) {
        self.places.clear();
        self.places.resize((2 * positions).next_power_of_two(), (0, 0));
        self.nodes.clear();
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
        let first = self.places[at].1;
        let mut node = first;
        while node != 0 {
            let found = &mut self.nodes[node as usize - 1];
            if found.byte == byte {
                found.count += 1;
                return;
            }
            node = found.next;
        }
        self.nodes.push(Node { byte, count: 1, next: first });
        self.places[at] = (hash, self.nodes.len() as u32);
    }

    /// What followed the context of `hash`.
    #[inline(always)]
    pub(super) fn get(&self, hash: u64) -> impl Iterator<Item = (u8, u32)> + '_ {
        let mut node = if hash == 0 { 0 } else { self.places[self.place(hash)].1 };
        std::iter::from_fn(move || {
            let found = self.nodes.get((node as usize).checked_sub(1)?)?;
            node = found.next;
            Some((found.byte, found.count))
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
}
