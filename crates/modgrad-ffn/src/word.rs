//! Hashes of the current word and of what stands before it.
//!
//! A word is a longest run of word bytes: ASCII letters, ASCII digits, and all
//! bytes from 0x80 up, which are parts of letters in UTF-8. Folding is ASCII
//! lower-casing; other letters keep their case. Where the current byte is no
//! word byte, the current word is empty and the word just ended is the previous
//! one. A window begins with no words at all; the first may be a part of one.

use modgrad_compute::Pool;
use serde::{Deserialize, Serialize};

use crate::hash::{absorb, absorb_byte, mix, reduce, stream_seed};

/// What a slot hashes. "So far" includes the current byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WordKind {
    /// The current word so far, in its exact case.
    Prefix,
    /// The current word so far, folded.
    FoldedPrefix,
    /// The previous word and the current one so far, folded.
    PreviousWordAndPrefix,
    /// The two previous words and the current one so far, folded.
    TwoPreviousWordsAndPrefix,
    /// The word before the previous one and the current one so far, folded.
    SkippedWordAndPrefix,
    /// The last byte that is no word byte, and the current word so far, folded:
    /// tells "end. The" from "end, the".
    SeparatorAndPrefix,
    /// The first three bytes of the line, how many of them there are yet, and
    /// the column: exact below 4, then in steps of 4 to 31, then of 16 to 127,
    /// then one bucket. A line starts after a newline or with the window.
    LineStart,
}

impl WordKind {
    /// Every kind.
    pub const ALL: [WordKind; 7] = [
        WordKind::Prefix,
        WordKind::FoldedPrefix,
        WordKind::PreviousWordAndPrefix,
        WordKind::TwoPreviousWordsAndPrefix,
        WordKind::SkippedWordAndPrefix,
        WordKind::SeparatorAndPrefix,
        WordKind::LineStart,
    ];
}

/// Which word contexts are hashed, and into how many rows.
///
/// Slot k has the rows `k * rows .. (k + 1) * rows` of one table. A kind may
/// stand twice: its slots then hash independently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WordHash {
    /// What each slot hashes.
    pub kinds: Vec<WordKind>,
    /// Rows of each slot.
    pub rows: usize,
    /// Another seed gives another, independent hash.
    pub seed: u64,
}

impl WordHash {
    /// Says in words what is wrong, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        crate::check_rows("kinds", self.kinds.len(), self.rows)
    }
}

/// `out[b, t, k]` = k * rows + a hash, below `rows`, of the context `kinds[k]`
/// of window b at position t.
///
/// Panics when the lengths disagree or the configuration is not valid.
pub fn word_hash(
    pool: &Pool,
    config: &WordHash,
    batch: usize,
    time: usize,
    tokens: &[u8],
    out: &mut [i32],
) {
    let slots = config.kinds.len();
    crate::check_lengths("word_hash", batch, time, slots, tokens.len(), out.len());
    if let Err(reason) = config.validate() {
        panic!("`word_hash`: {reason}");
    }
    let slot_seeds: Vec<u64> =
        (0..slots).map(|slot| stream_seed(config.seed, slot as u64)).collect();
    pool.for_rows(out, time * slots, 1, |first, windows| {
        for (offset, window) in windows.chunks_exact_mut(time * slots).enumerate() {
            let start = (first + offset) * time;
            let mut state = State::default();
            let bytes = &tokens[start..start + time];
            for (&byte, row) in bytes.iter().zip(window.chunks_exact_mut(slots)) {
                state.advance(byte);
                for (slot, index) in row.iter_mut().enumerate() {
                    let hash = state.hash(config.kinds[slot], slot_seeds[slot]);
                    *index = (slot * config.rows + reduce(hash, config.rows)) as i32;
                }
            }
        }
    });
}

/// What a window has shown so far. A hash of zero stands for "nothing yet".
#[derive(Clone, Default)]
pub(crate) struct State {
    exact: u64,
    folded: u64,
    previous: u64,
    before_previous: u64,
    /// The last byte that is no word byte, plus one.
    separator: u64,
    /// The line's first three bytes, first lowest.
    line_start: u64,
    column: u64,
    line_ended: bool,
    /// Words that the window is known to hold from their first byte on.
    whole_words: usize,
    /// Whether it has shown the start of a line.
    line_known: bool,
}

impl State {
    #[inline(always)]
    pub(crate) fn advance(&mut self, byte: u8) {
        if is_word_byte(byte) {
            if self.folded == 0 && self.separator != 0 {
                self.whole_words += 1;
            }
            self.exact = absorb_byte(self.exact, byte);
            self.folded = absorb_byte(self.folded, byte.to_ascii_lowercase());
        } else {
            if self.folded != 0 {
                self.before_previous = self.previous;
                self.previous = self.folded;
            }
            self.exact = 0;
            self.folded = 0;
            self.separator = u64::from(byte) + 1;
        }
        if self.line_ended {
            self.column = 0;
            self.line_start = 0;
            self.line_known = true;
        }
        if self.column < 3 {
            self.line_start |= u64::from(byte) << (8 * self.column);
        }
        self.column += 1;
        self.line_ended = byte == b'\n';
    }

    #[inline(always)]
    pub(crate) fn hash(&self, kind: WordKind, seed: u64) -> u64 {
        match kind {
            WordKind::Prefix => mix(seed ^ self.exact),
            WordKind::FoldedPrefix => mix(seed ^ self.folded),
            WordKind::PreviousWordAndPrefix => absorb(absorb(seed, self.previous), self.folded),
            WordKind::TwoPreviousWordsAndPrefix => {
                absorb(absorb(absorb(seed, self.before_previous), self.previous), self.folded)
            }
            WordKind::SkippedWordAndPrefix => {
                absorb(absorb(seed, self.before_previous), self.folded)
            }
            WordKind::SeparatorAndPrefix => absorb(absorb(seed, self.separator), self.folded),
            WordKind::LineStart => mix(seed ^ (self.line_start | column_bucket(self.column) << 24)),
        }
    }
}

impl State {
    /// Whether nothing before the window could have changed the context.
    pub(crate) fn is_whole(&self, kind: WordKind) -> bool {
        // Words that are whole, the current one counted where it is not empty.
        let current = usize::from(self.folded != 0);
        match kind {
            WordKind::Prefix | WordKind::FoldedPrefix | WordKind::SeparatorAndPrefix => {
                self.separator != 0 && self.whole_words >= current
            }
            WordKind::PreviousWordAndPrefix => self.whole_words > current,
            WordKind::TwoPreviousWordsAndPrefix | WordKind::SkippedWordAndPrefix => {
                self.whole_words > current + 1
            }
            WordKind::LineStart => self.line_known,
        }
    }
}

#[inline(always)]
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// The bucket of a column; columns 1 to 3 have their own, which says how many
/// of the line's first bytes are there.
#[inline(always)]
fn column_bucket(column: u64) -> u64 {
    match column {
        0..4 => column,
        4..32 => 3 + column / 4,
        32..128 => 9 + column / 16,
        _ => 17,
    }
}
