//! Counts of a short stretch: a window so far, or the surroundings of one.

use modgrad_compute::prefetch::prefetch;

/// What followed each context of one kind within a stretch.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// (hash, place of its bytes), open addressing; a hash of 0 is a free place.
    places: Vec<(u64, Place)>,
    few: Vec<Few>,
    many: Vec<Many>,
    /// Bits, some of them set for each hash that is expected.
    expected: Vec<u64>,
}

/// Where the bytes behind a context stand.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    Few(u32),
    Many(u32),
}

/// Bytes that are compared at once.
const WIDTH: usize = 16;

/// At most `WIDTH` bytes that followed a context, in the order of their coming.
#[derive(Clone, Copy, Debug)]
struct Few {
    bytes: [u8; WIDTH],
    counts: [u32; WIDTH],
    used: usize,
}

/// More of them.
#[derive(Clone, Debug)]
struct Many {
    counts: [u32; 256],
    /// Those that came, in the order of their coming.
    bytes: [u8; 256],
    used: usize,
}

/// Bits of the filter for each hash that is expected.
const FILTER: usize = 16;

impl Few {
    fn of(byte: u8) -> Few {
        let mut few = Few { bytes: [0; WIDTH], counts: [0; WIDTH], used: 1 };
        (few.bytes[0], few.counts[0]) = (byte, 1);
        few
    }

    /// Counts `byte`; false where there is no room for it.
    #[inline(always)]
    fn add(&mut self, byte: u8) -> bool {
        // A byte of `differences` is 0 where `byte` stands; one of `equal` is 128 there.
        const LOW: u128 = u128::from_le_bytes([0x7f; WIDTH]);
        let differences = u128::from_le_bytes(self.bytes) ^ u128::from_le_bytes([byte; WIDTH]);
        let equal = !(((differences & LOW) + LOW) | differences | LOW);
        let at = (equal.trailing_zeros() / 8) as usize;
        if at < self.used {
            self.counts[at] += 1;
        } else if self.used < WIDTH {
            (self.bytes[self.used], self.counts[self.used]) = (byte, 1);
            self.used += 1;
        } else {
            return false;
        }
        true
    }
}

impl Many {
    fn of(few: &Few) -> Many {
        let mut many = Many { counts: [0; 256], bytes: [0; 256], used: few.used };
        for (at, (&byte, &count)) in few.bytes.iter().zip(&few.counts).enumerate() {
            many.bytes[at] = byte;
            many.counts[usize::from(byte)] = count;
        }
        many
    }

    #[inline(always)]
    fn add(&mut self, byte: u8) {
        let count = &mut self.counts[usize::from(byte)];
        if *count == 0 {
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        *count += 1;
    }
}

/// What followed a context.
#[derive(Clone, Copy)]
pub(super) enum Followers<'a> {
    /// Bytes, and the count of each.
    Few(&'a [u8], &'a [u32]),
    /// Bytes, and counts by byte.
    Many(&'a [u8], &'a [u32; 256]),
}

impl Followers<'_> {
    /// In the order of their coming.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        let (bytes, counts, by_byte) = match *self {
            Followers::Few(bytes, counts) => (bytes, counts, false),
            Followers::Many(bytes, counts) => (bytes, &counts[..], true),
        };
        bytes.iter().enumerate().map(move |(at, &byte)| {
            let at = if by_byte { usize::from(byte) } else { at };
            (byte, counts[at])
        })
    }
}

impl Tally {
    /// Forgets everything and makes room for the contexts of `positions`.
    pub(super) fn reset(&mut self, positions: usize) {
        self.places.clear();
        self.places.resize((2 * positions).next_power_of_two(), (0, Place::Nowhere));
        self.few.clear();
        self.many.clear();
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

    #[inline(always)]
    fn add_at(&mut self, at: usize, byte: u8) {
        match self.places[at].1 {
            Place::Nowhere => {
                self.places[at].1 = Place::Few(self.few.len() as u32);
                self.few.push(Few::of(byte));
            }
            Place::Few(index) => {
                let few = &mut self.few[index as usize];
                if !few.add(byte) {
                    let mut many = Many::of(few);
                    many.add(byte);
                    self.places[at].1 = Place::Many(self.many.len() as u32);
                    self.many.push(many);
                }
            }
            Place::Many(index) => self.many[index as usize].add(byte),
        }
    }

    /// What followed the context of `hash`.
    #[inline(always)]
    pub(super) fn get(&self, hash: u64) -> Followers<'_> {
        let place = if hash == 0 { Place::Nowhere } else { self.places[self.place(hash)].1 };
        match place {
            Place::Nowhere => Followers::Few(&[], &[]),
            Place::Few(index) => {
                let few = &self.few[index as usize];
                Followers::Few(&few.bytes[..few.used], &few.counts[..few.used])
            }
            Place::Many(index) => {
                let many = &self.many[index as usize];
                Followers::Many(&many.bytes[..many.used], &many.counts)
            }
        }
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
                assert_eq!(&tally.get(*hash).iter().collect::<BTreeMap<_, _>>(), bytes);
            }
            assert_eq!(tally.get(99).iter().count() + tally.get(0).iter().count(), 0);
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
                assert_eq!(tally.get(hash(context)).iter().collect::<BTreeMap<_, _>>(), expected);
            }
        }
    }
}
