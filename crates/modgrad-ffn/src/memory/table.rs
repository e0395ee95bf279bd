//! Which bytes followed each context of one kind, and how often: packed, read-only.
//!
//! Records stand in the order of their contexts' hashes, and an index gives the
//! place of the first record of each stretch of hashes, so that a look-up touches
//! two cache lines. Two contexts share a record only if they share an index entry
//! and 16 further bits: about one unseen context in 10,000 is taken for another.
//!
//! Record: check u16 · entries u8 · and, where entries is 0, one byte that was
//! seen once; else the width of a count u8 · bytes · counts, from the most frequent
//! to the least.

use std::borrow::Cow;

use modgrad_compute::prefetch::prefetch;

/// Bytes of a context that are kept: the most frequent.
pub(super) const MOST_ENTRIES: usize = 255;
/// Bytes of a place in the index.
const START: usize = size_of::<u32>();
/// Contexts to an index entry, on average.
const CONTEXTS_AN_ENTRY: usize = 4;

/// The counts of one kind of context.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CountTable<'a> {
    /// Bits of a hash that choose an index entry.
    index_bits: u32,
    /// Where the records of each index entry begin, and the end: u32, lowest byte first.
    starts: Cow<'a, [u8]>,
    records: Cow<'a, [u8]>,
}

/// What followed one context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counts<'a> {
    bytes: &'a [u8],
    counts: &'a [u8],
    /// Bytes of a count; 0 where the only count is 1.
    width: usize,
}

impl Counts<'_> {
    /// Calls `see` with every byte and its count.
    #[inline(always)]
    pub(super) fn each(&self, mut see: impl FnMut(u8, u32)) {
        // The width is asked for once, not for every count.
        let (bytes, counts) = (self.bytes.iter(), self.counts);
        match self.width {
            0 => bytes.for_each(|&byte| see(byte, 1)),
            1 => bytes.zip(counts).for_each(|(&byte, &count)| see(byte, count.into())),
            2 => bytes
                .zip(counts.as_chunks().0)
                .for_each(|(&byte, count)| see(byte, u16::from_le_bytes(*count).into())),
            _ => bytes
                .zip(counts.as_chunks().0)
                .for_each(|(&byte, count)| see(byte, u32::from_le_bytes(*count))),
        }
    }

    /// Appends (byte, count) to `seen` for all counts that are more than those of `out`,
    /// less those.
    #[inline(always)]
    pub(super) fn append_less(&self, out: &[u32; 256], seen: &mut Vec<(u8, u32)>) {
        let mut end = seen.len();
        // Written in any case and kept if there is something left: no branch to guess.
        seen.resize(end + self.bytes.len(), (0, 0));
        self.each(|byte, count| {
            let left = count.saturating_sub(out[usize::from(byte)]);
            seen[end] = (byte, left);
            end += usize::from(left > 0);
        });
        seen.truncate(end);
    }
}

/// The first record of `records` and what stands behind it.
#[inline(always)]
fn take_record(records: &[u8]) -> Option<(Counts<'_>, &[u8])> {
    let [_, _, entries, next, after @ ..] = records else { return None };
    if *entries == 0 {
        let bytes = std::slice::from_ref(next);
        return Some((Counts { bytes, counts: &[], width: 0 }, after));
    }
    let (entries, width) = (usize::from(*entries), usize::from(*next));
    if !matches!(width, 1 | 2 | 4) {
        return None; // no table of ours
    }
    let (bytes, after) = after.split_at_checked(entries)?;
    let (counts, after) = after.split_at_checked(entries * width)?;
    Some((Counts { bytes, counts, width }, after))
}

impl<'a> CountTable<'a> {
    /// Counts pairs of (hash & !255) | byte; they are sorted in place.
    pub(super) fn build(pairs: &mut [u64]) -> CountTable<'static> {
        pairs.sort_unstable();
        let contexts = pairs.chunk_by(|a, b| a >> 8 == b >> 8);
        let count = contexts.clone().count();
        let index_bits = (count / CONTEXTS_AN_ENTRY).max(1).ilog2();
        let table = CountTable { index_bits, ..CountTable::default() };
        let mut starts = Vec::with_capacity(((1 << index_bits) + 1) * START);
        let mut records = Vec::with_capacity(count * 5);
        for context in contexts {
            while starts.len() <= table.entry(context[0]) * START {
                push_start(&mut starts, records.len());
            }
            table.add(context, &mut records);
        }
        while starts.len() <= START << index_bits {
            push_start(&mut starts, records.len());
        }
        records.shrink_to_fit();
        CountTable { index_bits, starts: Cow::Owned(starts), records: Cow::Owned(records) }
    }

    fn add(&self, context: &[u64], records: &mut Vec<u8>) {
        records.extend_from_slice(&self.check(context[0]).to_le_bytes());
        if let [only] = context {
            records.extend_from_slice(&[0, *only as u8]);
            return;
        }
        let mut entries: Vec<(u32, u8)> = context
            .chunk_by(|a, b| a == b)
            .map(|same| (same.len() as u32, same[0] as u8))
            .collect();
        entries.sort_unstable_by_key(|&(count, byte)| (std::cmp::Reverse(count), byte));
        entries.truncate(MOST_ENTRIES);
        let width = match entries[0].0 {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        records.extend_from_slice(&[entries.len() as u8, width]);
        records.extend(entries.iter().map(|&(_, byte)| byte));
        for (count, _) in entries {
            records.extend_from_slice(&count.to_le_bytes()[..usize::from(width)]);
        }
    }

    #[inline(always)]
    fn entry(&self, hash: u64) -> usize {
        // In two shifts: there may be no bits at all.
        (hash >> 1 >> (63 - self.index_bits)) as usize
    }

    #[inline(always)]
    fn check(&self, hash: u64) -> u16 {
        (hash << self.index_bits >> 48) as u16
    }

    /// Where the records of index entry `entry` begin.
    #[inline(always)]
    fn start(&self, entry: usize) -> Option<usize> {
        let bytes = self.starts.get(entry * START..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    }

    /// What followed the context of `hash`; `None` where nothing is known.
    #[inline(always)]
    pub(super) fn get(&self, hash: u64) -> Option<Counts<'_>> {
        let entry = self.entry(hash);
        let mut rest = self.records.get(self.start(entry)?..self.start(entry + 1)?)?;
        let check = self.check(hash).to_le_bytes();
        while let Some((record, after)) = take_record(rest) {
            if rest[..2] == check {
                return Some(record);
            }
            rest = after;
        }
        None
    }

    /// Brings the index entry of a hash nearer.
    #[inline(always)]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        prefetch(&self.starts, self.entry(hash) * START);
    }

    /// Brings the records of a hash nearer, whose index entry is near.
    #[inline(always)]
    pub(super) fn prefetch_records(&self, hash: u64) {
        if let Some(start) = self.start(self.entry(hash)) {
            prefetch(&self.records, start);
        }
    }

    /// The table without the contexts that were seen less than `least` times.
    pub(super) fn pruned(&self, least: u32) -> CountTable<'static> {
        let mut records = Vec::with_capacity(self.records.len() / 2);
        let mut starts = Vec::with_capacity(self.starts.len());
        for entry in 0..1 << self.index_bits {
            push_start(&mut starts, records.len());
            let (Some(start), Some(end)) = (self.start(entry), self.start(entry + 1)) else {
                break;
            };
            let mut rest = self.records.get(start..end).unwrap_or_default();
            while let Some((record, after)) = take_record(rest) {
                let mut total = 0u64;
                record.each(|_, count| total += u64::from(count));
                if total >= least.into() {
                    records.extend_from_slice(&rest[..rest.len() - after.len()]);
                }
                rest = after;
            }
        }
        push_start(&mut starts, records.len());
        records.shrink_to_fit();
        let (starts, records) = (Cow::Owned(starts), Cow::Owned(records));
        CountTable { index_bits: self.index_bits, starts, records }
    }

    /// Bytes that the table takes.
    pub(super) fn size(&self) -> usize {
        self.records.len() + self.starts.len()
    }

    /// Appends the table as bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.index_bits.to_le_bytes());
        out.extend_from_slice(&(self.records.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.starts);
        out.extend_from_slice(&self.records);
    }

    /// Takes a table from the front of `bytes`; `None` where there is not one whole.
    pub(super) fn read(bytes: &mut &'a [u8]) -> Option<CountTable<'a>> {
        let (index_bits, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let index_bits = Some(u32::from_le_bytes(*index_bits)).filter(|&bits| bits < 32)?;
        let (starts, rest) = rest.split_at_checked(START * ((1 << index_bits) + 1))?;
        let (records, rest) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        *bytes = rest;
        Some(CountTable { index_bits, starts: starts.into(), records: records.into() })
    }
}

fn push_start(starts: &mut Vec<u8>, start: usize) {
    let start = u32::try_from(start).expect("records of one kind stay below 4 GiB");
    starts.extend_from_slice(&start.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;
    use std::collections::BTreeMap;

    /// (hash, byte, how often), some contexts frequent and most seen once.
    fn example() -> Vec<(u64, u8, u32)> {
        let mut counts =
            vec![(mix(1), 7, 70_000), (mix(1), 9, 3), (mix(2), 0, 300), (mix(2), 1, 300)];
        counts.extend((0..=255).map(|byte| (mix(3), byte, 2 - u32::from(byte == 17))));
        counts.extend((10..3000).map(|context| (mix(context), context as u8, 1)));
        counts.extend((10..3000).step_by(7).map(|context| (mix(context), 200, 1)));
        counts
    }

    fn all(counts: &Counts<'_>) -> Vec<(u8, u32)> {
        let mut all = Vec::new();
        counts.each(|byte, count| all.push((byte, count)));
        all
    }

    fn build(counts: &[(u64, u8, u32)]) -> CountTable<'static> {
        let pairs = counts.iter().flat_map(|&(hash, byte, count)| {
            std::iter::repeat_n((hash & !255) | u64::from(byte), count as usize)
        });
        CountTable::build(&mut pairs.collect::<Vec<_>>())
    }

    fn expected(counts: &[(u64, u8, u32)]) -> BTreeMap<u64, BTreeMap<u8, u32>> {
        let mut contexts: BTreeMap<u64, BTreeMap<u8, u32>> = BTreeMap::new();
        for &(hash, byte, count) in counts {
            *contexts.entry(hash).or_default().entry(byte).or_default() += count;
        }
        contexts
    }

    #[test]
    fn every_context_has_its_counts_and_others_have_none() {
        let counts = example();
        let table = build(&counts);
        for (hash, mut bytes) in expected(&counts) {
            if bytes.len() > MOST_ENTRIES {
                bytes.remove(&17); // the least frequent of 256
            }
            let found: BTreeMap<u8, u32> = all(&table.get(hash).unwrap()).into_iter().collect();
            assert_eq!(found, bytes);
        }
        let taken = (10_000..110_000).filter(|&other| table.get(mix(other)).is_some()).count();
        assert!(taken < 50, "{taken} of 100,000 unseen contexts are taken for others");
    }

    #[test]
    fn of_counts_that_are_taken_out_the_rest_is_left() {
        let counts = example();
        let table = build(&counts);
        let mut out = [0; 256];
        (out[7], out[9], out[0], out[1], out[200]) = (69_990, 4, 300, 299, 1);
        for &(hash, ..) in &counts {
            let found = table.get(hash).unwrap();
            let mut seen = vec![(5, 5)];
            found.append_less(&out, &mut seen);
            let left = all(&found).into_iter().filter(|&(byte, n)| n > out[usize::from(byte)]);
            let expected = left.map(|(byte, count)| (byte, count - out[usize::from(byte)]));
            assert_eq!(seen, [(5, 5)].into_iter().chain(expected).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pruning_drops_what_was_seen_less() {
        let counts = example();
        let whole = build(&counts);
        let table = whole.pruned(2);
        assert!(table.size() < whole.size());
        for (hash, bytes) in expected(&counts) {
            assert_eq!(table.get(hash).is_some(), bytes.values().sum::<u32>() >= 2);
        }
    }

    #[test]
    fn a_written_table_is_read_and_a_broken_one_is_not_followed() {
        let table = build(&example());
        let mut bytes = Vec::new();
        table.write(&mut bytes);
        assert_eq!(CountTable::read(&mut bytes.as_slice()), Some(table.clone()));
        for length in [0, 3, 7, 20, bytes.len() - 1] {
            assert_eq!(CountTable::read(&mut &bytes[..length]), None);
        }
        let mut broken = bytes.clone();
        for at in 0..bytes.len() {
            for change in [0x81, 0x02, 0x00] {
                broken[at] = bytes[at] ^ change;
                if let Some(table) = CountTable::read(&mut broken.as_slice()) {
                    (0..50).for_each(|context| {
                        let _ = table.get(mix(context)).map(|counts| all(&counts).len());
                    });
                }
            }
        }
    }

    #[test]
    fn of_nothing_there_is_an_empty_table() {
        let table = build(&[]);
        assert_eq!(table.get(mix(1)), None);
        assert_eq!(all(&build(&[(mix(5), 3, 1)]).get(mix(5)).unwrap()), [(3, 1)]);
    }
}
