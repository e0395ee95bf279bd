//! What a context is made of, and the hash of each at every position.

use serde::{Deserialize, Serialize};

use crate::hash::{mix, stream_seed};
use crate::ngram::{MAXIMUM_ORDER, hash_words};
use crate::word::{State, WordKind};

/// A kind of context: what has to be the same for two positions to share counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextKind {
    /// The last bytes, so many of them: 1 to 32.
    Order(usize),
    /// (skipped, bytes): the last `bytes` before the last `skipped`; 8 in all at most.
    Skip(usize, usize),
    /// A word and what stands before it.
    Word(WordKind),
}

impl ContextKind {
    /// Says in words what is wrong, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        match *self {
            ContextKind::Order(order) if !(1..=MAXIMUM_ORDER).contains(&order) => {
                Err(format!("an order of {order} is not between 1 and {MAXIMUM_ORDER}"))
            }
            ContextKind::Skip(skipped, bytes)
                if skipped == 0 || bytes == 0 || skipped.saturating_add(bytes) > 8 =>
            {
                Err(format!("skipping {skipped} and taking {bytes} bytes is not within 8 bytes"))
            }
            _ => Ok(()),
        }
    }

    /// Another for each kind, whatever its place in a list.
    fn seed(&self) -> u64 {
        match *self {
            ContextKind::Order(order) => stream_seed(1, order as u64),
            ContextKind::Skip(skipped, bytes) => stream_seed(2, (skipped * 8 + bytes) as u64),
            ContextKind::Word(kind) => stream_seed(3, kind as u64),
        }
    }
}

/// Reads bytes in order and gives the hash of every context behind them.
pub(super) struct Reader<'a> {
    kinds: &'a [ContextKind],
    seeds: Vec<u64>,
    /// The last 32 bytes, newest lowest.
    words: [u64; MAXIMUM_ORDER / 8],
    read: usize,
    state: State,
}

impl<'a> Reader<'a> {
    pub(super) fn new(kinds: &'a [ContextKind]) -> Reader<'a> {
        let seeds = kinds.iter().map(ContextKind::seed).collect();
        let words = [0; MAXIMUM_ORDER / 8];
        Reader { kinds, seeds, words, read: 0, state: State::default() }
    }

    pub(super) fn advance(&mut self, byte: u8) {
        for at in (1..self.words.len()).rev() {
            self.words[at] = self.words[at] << 8 | self.words[at - 1] >> 56;
        }
        self.words[0] = self.words[0] << 8 | u64::from(byte);
        self.read += 1;
        self.state.advance(byte);
    }

    /// The hash of kind `index`, never 0; 0 where what was read does not hold the
    /// whole context.
    #[inline(always)]
    pub(super) fn hash(&self, index: usize) -> u64 {
        let seed = self.seeds[index];
        let hash = match self.kinds[index] {
            ContextKind::Order(order) if self.read >= order => {
                hash_words(seed, order, order, &self.words)
            }
            ContextKind::Skip(skipped, bytes) if self.read >= skipped + bytes => {
                let taken = self.words[0] >> (8 * skipped);
                mix(seed ^ (taken & (u64::MAX >> (64 - 8 * bytes))))
            }
            ContextKind::Word(kind) if self.state.is_whole(kind) => self.state.hash(kind, seed),
            _ => return 0,
        };
        hash.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ContextKind; 6] = [
        ContextKind::Order(3),
        ContextKind::Order(12),
        ContextKind::Skip(1, 3),
        ContextKind::Word(WordKind::Prefix),
        ContextKind::Word(WordKind::PreviousWordAndPrefix),
        ContextKind::Word(WordKind::LineStart),
    ];

    fn hashes(text: &[u8]) -> Vec<Vec<u64>> {
        let mut reader = Reader::new(&KINDS);
        text.iter()
            .map(|&byte| {
                reader.advance(byte);
                (0..KINDS.len()).map(|kind| reader.hash(kind)).collect()
            })
            .collect()
    }

    /// A window that begins in the middle gives what the whole text gives, or nothing.
    #[test]
    fn a_window_sees_no_context_that_it_does_not_hold() {
        let text =
            b"The cat sat.\nThe cat, a tabby, sat on the mat; then the cat left.\nEnd of it.";
        let whole = hashes(text);
        for start in 0..text.len() {
            let mut given = [0; KINDS.len()];
            for (at, row) in hashes(&text[start..]).iter().enumerate() {
                for (kind, &hash) in row.iter().enumerate() {
                    assert!(
                        hash == 0 || hash == whole[start + at][kind],
                        "{:?} at {at} of the window at {start}",
                        KINDS[kind]
                    );
                    given[kind] += usize::from(hash != 0);
                }
            }
            if start == 3 {
                assert!(given.iter().all(|&count| count > 10), "{given:?}");
            }
        }
    }

    #[test]
    fn contexts_are_what_their_names_say() {
        let same = |kind: usize, a: &[u8], b: &[u8]| {
            hashes(a).last().unwrap()[kind] == hashes(b).last().unwrap()[kind]
        };
        assert!(same(0, b"xabc", b"yabc") && !same(0, b"abc", b"abd"));
        assert!(same(2, b"abcx", b"abcy") && !same(2, b"abcx", b"bbcx"));
        assert!(same(3, b" in th", b"of th") && !same(3, b"a the", b"a tha"));
        assert!(same(4, b" a CAT sa", b" one cat sa") && !same(4, b" a cat sa", b" a dog sa"));
        assert!(same(5, b"\nabc", b"\n\nabc") && !same(5, b"\nabc", b"\nabd"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for kind in [ContextKind::Order(0), ContextKind::Order(33), ContextKind::Skip(0, 3)] {
            assert!(kind.validate().is_err());
        }
        assert!(ContextKind::Skip(6, 3).validate().unwrap_err().contains("8 bytes"));
        assert!(KINDS.iter().all(|kind| kind.validate().is_ok()));
        let json = serde_json::to_string(&KINDS[2..4]).unwrap();
        assert_eq!(json, r#"[{"skip":[1,3]},{"word":"prefix"}]"#);
    }
}
