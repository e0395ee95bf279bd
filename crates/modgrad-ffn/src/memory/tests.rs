//! The rows of a window against a plain version: counts in maps, every row in full.

use std::collections::BTreeMap;
use std::time::Duration;

use modgrad_compute::Pool;
use proptest::prelude::*;

use super::back_off::bucket;
use super::kind::Reader;
use super::*;
use crate::WordKind;

fn config() -> MemoryConfig {
    MemoryConfig {
        kinds: vec![
            ContextKind::Order(1),
            ContextKind::Order(2),
            ContextKind::Order(4),
            ContextKind::Order(7),
            ContextKind::Word(WordKind::Prefix),
            ContextKind::Skip(1, 2),
        ],
        base: 1,
        in_window: vec![1, 2, 4],
        entries: 48,
        mixers: vec![MixerSets::Depth, MixerSets::Certainty, MixerSets::LastByte],
        mixer_rate: 0.01,
    }
}

/// Words of a small vocabulary, so that contexts come again.
fn text(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&[u8]; 8] =
        [b"the", b"cat", b"sat", b"on", b"a", b"mat. ", b"then\n", b"catalogue"];
    let mut state = seed;
    let mut bytes = Vec::new();
    while bytes.len() < length {
        state = crate::hash::mix(state.wrapping_add(1));
        bytes.extend_from_slice(WORDS[(state % 8) as usize]);
        bytes.push(b' ');
    }
    bytes.truncate(length);
    bytes
}

fn count(text: &[u8]) -> Memory<'static> {
    let limits = CountLimits { memory: usize::MAX, time: Duration::from_secs(60) };
    Memory::count(&Pool::new(2), &config(), text, limits).unwrap()
}

struct Filled {
    base: Vec<f32>,
    entries: Vec<i32>,
    difference: Vec<f32>,
    multiple: Vec<f32>,
    statistics: Vec<f32>,
    leading: Vec<i32>,
    lessons: Vec<f32>,
}

impl Filled {
    fn new(time: usize) -> Filled {
        let (k, e) = (config().experts(), config().entries);
        Filled {
            base: vec![f32::NAN; time * 256],
            entries: vec![-1; time * e],
            difference: vec![f32::NAN; time * k * e],
            multiple: vec![f32::NAN; time * k],
            statistics: vec![f32::NAN; time * k * STATISTICS],
            leading: vec![-1; time * LEADING],
            lessons: vec![f32::NAN; lesson_size(&config())],
        }
    }

    fn of(
        memory: &Memory<'_>,
        learned: &Learned,
        window: &[u8],
        around: Option<Surroundings<'_>>,
    ) -> Filled {
        let mut filled = Filled::new(window.len());
        let mut rows = Rows {
            base: &mut filled.base,
            entries: &mut filled.entries,
            difference: &mut filled.difference,
            multiple: &mut filled.multiple,
            statistics: &mut filled.statistics,
            leading: &mut filled.leading,
            lessons: &mut filled.lessons,
        };
        Scratch::new(memory).fill(memory, learned.weights(), window, around, &mut rows);
        filled
    }

    /// p of one expert, by a softmax of what is stored.
    fn row(&self, t: usize, expert: usize) -> Vec<f64> {
        let (k, e) = (config().experts(), config().entries);
        let multiple = f64::from(self.multiple[t * k + expert]);
        let mut row: Vec<f64> =
            self.base[t * 256..][..256].iter().map(|x| multiple * f64::from(*x)).collect();
        let difference = &self.difference[(t * k + expert) * e..][..e];
        for (byte, difference) in self.entries[t * e..][..e].iter().zip(difference) {
            row[*byte as usize] += f64::from(*difference);
        }
        let total: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x.exp() / total).collect()
    }
}

type Counts = BTreeMap<u64, BTreeMap<u8, i64>>;

/// Adds `sign` for what follows each context of `text`, read from its start, from
/// byte `from` on.
fn tally(counts: &mut Counts, kind: ContextKind, text: &[u8], from: usize, sign: i64) {
    let kinds = [kind];
    let mut reader = Reader::new(&kinds);
    for (at, pair) in text.windows(2).enumerate() {
        reader.advance(pair[0]);
        if at + 1 >= from && reader.hash(0) != 0 {
            *counts.entry(reader.hash(0)).or_default().entry(pair[1]).or_default() += sign;
        }
    }
}

/// p of all counted experts at the last position of `window`, in full, and the counts of
/// their own contexts.
fn plain(
    learned: &Learned,
    counts: &[Counts],
    window: &[u8],
) -> Vec<(Vec<f64>, BTreeMap<u8, i64>)> {
    let config = config();
    let mut reader = Reader::new(&config.kinds);
    window.iter().for_each(|&byte| reader.advance(byte));
    let mut rows: Vec<(Vec<f64>, BTreeMap<u8, i64>)> = Vec::new();
    for index in 0..config.kinds.len() + config.in_window.len() {
        let back = match index {
            0 => vec![1.0 / 256.0; 256],
            1..=3 => rows[index - 1].0.clone(), // the order before
            4 | 5 => rows[1].0.clone(),         // the base
            _ => rows[3].0.clone(),             // the highest order
        };
        let mut own = BTreeMap::new();
        let kind = index.checked_sub(config.kinds.len()).map_or(index, |at| config.in_window[at]);
        if index < config.kinds.len() {
            own = counts[kind].get(&reader.hash(kind)).cloned().unwrap_or_default();
        } else {
            let mut so_far = Counts::new();
            tally(&mut so_far, config.kinds[kind], window, 0, 1);
            own.extend(so_far.get(&reader.hash(kind)).cloned().unwrap_or_default());
        }
        own.retain(|_, count| *count > 0);
        let total: i64 = own.values().sum();
        if total == 0 || reader.hash(kind) == 0 {
            rows.push((back, BTreeMap::new()));
            continue;
        }
        let lambda =
            f64::from(learned.weights().lambda(index, bucket(total as u32, own.len() as u32)));
        let mut row: Vec<f64> = back.iter().map(|p| lambda * p).collect();
        for (&byte, &count) in &own {
            row[usize::from(byte)] += (1.0 - lambda) * count as f64 / total as f64;
        }
        rows.push((row, own));
    }
    rows.split_off(config.base)
}

fn check(window: &[u8], learned: &Learned, counts: &[Counts], filled: &Filled) {
    for t in 0..window.len() {
        let all = plain(learned, counts, &window[..=t]);
        let experts = config().experts();
        let mixed = filled.row(t, experts - config().mixers.len());
        for (expert, (expected, own)) in all.iter().enumerate() {
            let statistics =
                &filled.statistics[(t * experts + expert) * STATISTICS..][..STATISTICS];
            check_statistics(t, statistics, expected, own, &mixed);
            for (byte, (found, expected)) in filled.row(t, expert).iter().zip(expected).enumerate()
            {
                assert!(
                    (found - expected).abs() < 1e-5 * expected.max(1e-3),
                    "expert {expert} at {t}, byte {byte}: {found} for {expected}"
                );
            }
        }
        let sum: f64 = filled.base[t * 256..][..256].iter().map(|x| f64::from(*x).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "the base sums to {sum}");
    }
}

fn check_statistics(t: usize, found: &[f32], row: &[f64], own: &BTreeMap<u8, i64>, mixed: &[f64]) {
    let total = own.values().sum::<i64>() as f64;
    // Of equals the first, which is the lowest byte.
    let most = own.iter().rev().max_by_key(|&(_, count)| count);
    let likeliest = (0..256).rev().max_by(|&a, &b| mixed[a].total_cmp(&mixed[b])).unwrap();
    let expected = [
        (1.0 + total).ln(),
        (1.0 + own.len() as f64).ln(),
        most.map_or(0.0, |(_, &count)| count as f64 / total),
        most.map_or(0.0, |(&byte, _)| mixed[usize::from(byte)]),
        row[likeliest],
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} for {expected} at {t}");
    }
}

#[test]
fn rows_are_those_of_the_plain_version() {
    let train = text(1, 3000);
    let memory = count(&train);
    let learned = Learned::new(&config());
    let counts: Vec<Counts> = config()
        .kinds
        .iter()
        .map(|&kind| {
            let mut counts = Counts::new();
            tally(&mut counts, kind, &train, 0, 1);
            counts
        })
        .collect();
    // A text of the same kind, and one with bytes and contexts never seen.
    for window in [text(2, 200), b"the zebra \xff\x00 sat the zebra \xff\x00 sat".to_vec()] {
        let filled = Filled::of(&memory, &learned, &window, None);
        check(&window, &learned, &counts, &filled);
    }
}

#[test]
fn a_training_window_is_taken_out_of_the_counts_exactly() {
    let train = text(3, 2000);
    let memory = count(&train);
    let learned = Learned::new(&config());
    let (start, end, margin) = (900, 1050, 40);
    let around = Surroundings {
        earlier: &train[..start - margin],
        before: &train[start - margin..start],
        after: &train[end..end + margin],
    };
    let filled = Filled::of(&memory, &learned, &train[start..end], Some(around));
    let counts: Vec<Counts> = config()
        .kinds
        .iter()
        .map(|&kind| {
            let mut counts = Counts::new();
            tally(&mut counts, kind, &train, 0, 1);
            tally(&mut counts, kind, &train[..end + margin], start - margin, -1);
            counts
        })
        .collect();
    check(&train[start..end], &learned, &counts, &filled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Position t does not see what comes after it, the mixer's row included.
    #[test]
    fn later_bytes_change_nothing(at in 1usize..60, byte: u8, seed in 0u64..100) {
        let memory = count(&text(5, 1500));
        let learned = Learned::new(&config());
        let window = text(seed, 60);
        let mut changed = window.clone();
        changed[at] ^= byte | 1;
        let (a, b) = (
            Filled::of(&memory, &learned, &window, None),
            Filled::of(&memory, &learned, &changed, None),
        );
        let (k, e) = (config().experts(), config().entries);
        prop_assert_eq!(&a.base[..at * 256], &b.base[..at * 256]);
        prop_assert_eq!(&a.entries[..at * e], &b.entries[..at * e]);
        prop_assert_eq!(&a.difference[..at * k * e], &b.difference[..at * k * e]);
        prop_assert_eq!(&a.multiple[..at * k], &b.multiple[..at * k]);
        prop_assert_eq!(&a.statistics[..at * k * STATISTICS], &b.statistics[..at * k * STATISTICS]);
        prop_assert_eq!(&a.leading[..at * LEADING], &b.leading[..at * LEADING]);
    }
}

#[test]
fn learning_makes_new_text_likelier() {
    let train = text(7, 20_000);
    let memory = count(&train);
    let mut learned = Learned::new(&config());
    let bits = |learned: &Learned| {
        let window = text(99, 300);
        let filled = Filled::of(&memory, learned, &window, None);
        let rows = (0..window.len() - 1).map(|t| filled.row(t, config().experts() - 1));
        rows.zip(&window[1..]).map(|(row, &next)| -row[usize::from(next)].log2()).sum::<f64>()
    };
    let before = bits(&learned);
    for round in 0..40 {
        let start = 100 + round * 450;
        let around = Surroundings {
            earlier: &train[..start - 30],
            before: &train[start - 30..start],
            after: &train[start + 400..start + 430],
        };
        let window = &train[start..start + 400];
        let filled = Filled::of(&memory, &learned, window, Some(around));
        learned.learn(&filled.lessons);
    }
    let after = bits(&learned);
    assert!(after < before - 0.5, "{after} bits after, {before} before");
}

#[test]
fn tables_that_are_written_are_read_and_others_refused() {
    let memory = count(&text(1, 3000));
    let bytes = memory.to_bytes();
    let read = Memory::from_bytes(&config(), &bytes).unwrap();
    let learned = Learned::new(&config());
    let window = text(4, 100);
    let of = |memory| Filled::of(memory, &learned, &window, None);
    assert_eq!(of(&memory).difference, of(&read).difference);
    assert!(Memory::from_bytes(&config(), &bytes[..bytes.len() - 1]).is_err());
    assert!(Memory::from_bytes(&config(), &[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_full_memory_lets_rare_contexts_go() {
    let train = text(1, 30_000);
    let whole = count(&train);
    let memory = whole.size() / 2;
    let limits = CountLimits { memory, time: Duration::from_secs(60) };
    let small = Memory::count(&Pool::new(1), &config(), &train, limits).unwrap();
    assert!(small.size() <= memory && small.size() > memory / 4);
    for threads in [2, 9] {
        assert!(Memory::count(&Pool::new(threads), &config(), &train, limits).unwrap() == small);
    }
    // So full that tables give way while others are counted.
    for memory in [whole.size() / 8, whole.size() / 30] {
        let limits = CountLimits { memory, ..limits };
        let counted = [1, 2, 9]
            .map(|threads| Memory::count(&Pool::new(threads), &config(), &train, limits).unwrap());
        assert!(counted.iter().all(|other| *other == counted[0]));
    }
}

#[test]
fn texts_without_contexts_are_no_error() {
    let learned = Learned::new(&config());
    for train in [&b""[..], b"a", b"aaaaaaaaaaaaaaaaaaaaaaaa"] {
        let memory = count(train);
        for window in [&b""[..], b"b", b"aaab"] {
            let filled = Filled::of(&memory, &learned, window, None);
            assert!(filled.base.iter().chain(&filled.difference).all(|x| x.is_finite()));
        }
    }
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let broken: [fn(&mut MemoryConfig); 7] = [
        |config| config.kinds.clear(),
        |config| config.kinds.swap(0, 1),
        |config| config.kinds.swap(3, 4),
        |config| config.base = 4,
        |config| config.in_window.push(6),
        |config| config.entries = 40,
        |config| config.mixer_rate = f32::NAN,
    ];
    for change in broken {
        let mut config = config();
        change(&mut config);
        assert!(config.validate().is_err(), "{config:?}");
    }
}
