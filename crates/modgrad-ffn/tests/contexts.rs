//! Every context against a plain definition, position by position.

use std::collections::{HashMap, HashSet};

use modgrad_compute::Pool;
use modgrad_ffn::hash::{absorb, absorb_byte, mix, reduce, stream_seed};
use modgrad_ffn::{NgramHash, WordHash, WordKind, byte_context, ngram_hash, word_hash};
use proptest::prelude::*;

/// (batch, time)
const SIZES: [(usize, usize); 8] =
    [(0, 5), (3, 0), (1, 1), (4, 1), (1, 9), (2, 33), (3, 130), (1, 1001)];

/// Text-like bytes: few letters, so that contexts repeat, and some of all else.
fn text(length: usize, seed: u64) -> Vec<u8> {
    const ALPHABET: &[u8] = b"aabbAB  ..,\n\n01\xc3\xa9\xff\0";
    (0..length as u64)
        .map(|i| {
            let random = mix(seed.wrapping_mul(1_000_003).wrapping_add(i));
            if random.is_multiple_of(50) {
                (random >> 32) as u8
            } else {
                ALPHABET[(random >> 40) as usize % ALPHABET.len()]
            }
        })
        .collect()
}

fn bytes(config: usize, threads: usize, batch: usize, time: usize, tokens: &[u8]) -> Vec<i32> {
    let mut out = vec![-1; batch * time * config];
    byte_context(&Pool::new(threads), batch, time, config, tokens, &mut out);
    out
}

fn ngrams(
    config: &NgramHash,
    threads: usize,
    batch: usize,
    time: usize,
    tokens: &[u8],
) -> Vec<i32> {
    let mut out = vec![-1; batch * time * config.orders.len()];
    ngram_hash(&Pool::new(threads), config, batch, time, tokens, &mut out);
    out
}

fn words(config: &WordHash, threads: usize, batch: usize, time: usize, tokens: &[u8]) -> Vec<i32> {
    let mut out = vec![-1; batch * time * config.kinds.len()];
    word_hash(&Pool::new(threads), config, batch, time, tokens, &mut out);
    out
}

fn every_order() -> NgramHash {
    NgramHash { orders: (1..=32).collect(), rows: 1 << 20, seed: 3 }
}

fn every_kind() -> WordHash {
    WordHash { kinds: WordKind::ALL.to_vec(), rows: 1 << 20, seed: 3 }
}

/// The hash of the last bytes of `seen`, from the definition in words: chunks
/// of eight bytes from the newest back, each read with its newest byte lowest;
/// the slot's seed is changed by the number of bytes that are missing.
fn plain_ngram(config: &NgramHash, slot: usize, seen: &[u8]) -> i32 {
    let order = config.orders[slot];
    let missing = order.saturating_sub(seen.len()) as u64;
    let mut newest_first: Vec<u8> = seen.iter().rev().take(order).copied().collect();
    newest_first.resize(order, 0);
    let mut state =
        stream_seed(config.seed, slot as u64) ^ missing.wrapping_mul(0xd6e8_feb8_6659_fd93);
    for chunk in newest_first.chunks(8) {
        let word = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state = absorb(state, word);
    }
    (slot * config.rows + reduce(state, config.rows)) as i32
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// The hash of a word context, from the whole text seen so far.
fn plain_word(config: &WordHash, slot: usize, seen: &[u8]) -> i32 {
    let word = |word: &[u8]| word.iter().fold(0, |state, &byte| absorb_byte(state, byte));
    let folded = |bytes: &[u8]| word(&bytes.to_ascii_lowercase());
    let mut parts: Vec<&[u8]> = seen.split(|&byte| !is_word_byte(byte)).collect();
    let prefix = parts.pop().unwrap();
    let complete: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let back = |n: usize| complete.len().checked_sub(n).map_or(0, |i| folded(complete[i]));
    let separator = seen.iter().rev().find(|&&byte| !is_word_byte(byte));
    let line = seen[..seen.len() - 1].iter().rposition(|&byte| byte == b'\n');
    let line = &seen[line.map_or(0, |newline| newline + 1)..];
    let bucket = match line.len() as u64 {
        column @ 0..=3 => column,
        column @ 4..=31 => 3 + column / 4,
        column @ 32..=127 => 9 + column / 16,
        _ => 17,
    };
    let line_start = line.iter().take(3).rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let seed = stream_seed(config.seed, slot as u64);
    let chain = |words: &[u64]| words.iter().fold(seed, |state, &word| absorb(state, word));
    let hash = match config.kinds[slot] {
        WordKind::Prefix => mix(seed ^ word(prefix)),
        WordKind::FoldedPrefix => mix(seed ^ folded(prefix)),
        WordKind::PreviousWordAndPrefix => chain(&[back(1), folded(prefix)]),
        WordKind::TwoPreviousWordsAndPrefix => chain(&[back(2), back(1), folded(prefix)]),
        WordKind::SkippedWordAndPrefix => chain(&[back(2), folded(prefix)]),
        WordKind::SeparatorAndPrefix => {
            chain(&[separator.map_or(0, |&byte| u64::from(byte) + 1), folded(prefix)])
        }
        WordKind::LineStart => mix(seed ^ (line_start | bucket << 24)),
    };
    (slot * config.rows + reduce(hash, config.rows)) as i32
}

/// Compares all contexts of one batch with their definitions.
fn check(batch: usize, time: usize, tokens: &[u8], threads: usize) {
    const LENGTH: usize = 5;
    let (ngram_config, word_config) = (every_order(), every_kind());
    let byte_indices = bytes(LENGTH, threads, batch, time, tokens);
    let ngram_indices = ngrams(&ngram_config, threads, batch, time, tokens);
    let word_indices = words(&word_config, threads, batch, time, tokens);
    for position in 0..batch * time {
        let seen = &tokens[position / time * time..=position];
        for j in 0..LENGTH {
            let expected = seen.iter().rev().nth(j).map_or(256, |&byte| i32::from(byte));
            assert_eq!(byte_indices[position * LENGTH + j], expected);
        }
        for slot in 0..ngram_config.orders.len() {
            let found = ngram_indices[position * ngram_config.orders.len() + slot];
            assert_eq!(found, plain_ngram(&ngram_config, slot, seen), "{position} slot {slot}");
        }
        for slot in 0..word_config.kinds.len() {
            let found = word_indices[position * word_config.kinds.len() + slot];
            assert_eq!(found, plain_word(&word_config, slot, seen), "{position} slot {slot}");
        }
    }
}

#[test]
fn agrees_with_the_definition() {
    for (batch, time) in SIZES {
        for threads in [1, 2, 3] {
            check(batch, time, &text(batch * time, 1), threads);
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_the_definition_anywhere(batch in 0..4usize, time in 0..80usize, seed: u64) {
        check(batch, time, &text(batch * time, seed), 2);
    }

    #[test]
    fn agrees_with_the_definition_on_any_bytes(tokens in proptest::collection::vec(any::<u8>(), 0..100)) {
        check(1, tokens.len(), &tokens, 1);
    }
}

#[test]
fn no_slots_and_no_length_are_fine() {
    let tokens = text(6, 1);
    assert!(bytes(0, 2, 2, 3, &tokens).is_empty());
    assert!(ngrams(&NgramHash { orders: vec![], ..every_order() }, 2, 2, 3, &tokens).is_empty());
    assert!(words(&WordHash { kinds: vec![], ..every_kind() }, 2, 2, 3, &tokens).is_empty());
}

#[test]
fn windows_do_not_see_each_other_and_nothing_looks_ahead() {
    let (batch, time) = (3, 70);
    let tokens = text(batch * time, 2);
    let all = |tokens: &[u8], batch: usize, time: usize| {
        (
            bytes(20, 2, batch, time, tokens),
            ngrams(&every_order(), 2, batch, time, tokens),
            words(&every_kind(), 2, batch, time, tokens),
        )
    };
    let before = all(&tokens, batch, time);
    for (window, t) in [(0, 0), (0, 69), (1, 0), (1, 31), (1, 40), (2, 5), (2, 68)] {
        // All other windows, and all later bytes of this one, change.
        let mut spoiled: Vec<u8> = tokens.iter().map(|byte| !byte).collect();
        let seen = window * time..window * time + t + 1;
        spoiled[seen.clone()].copy_from_slice(&tokens[seen.clone()]);
        let after = all(&spoiled, batch, time);
        let part = |slots: usize| seen.start * slots..seen.end * slots;
        assert_eq!(before.0[part(20)], after.0[part(20)]);
        assert_eq!(before.1[part(32)], after.1[part(32)]);
        assert_eq!(before.2[part(7)], after.2[part(7)]);
        // A window cut short has the same beginning.
        let cut = all(&tokens[seen.clone()], 1, t + 1);
        assert_eq!(before.0[part(20)], cut.0);
        assert_eq!(before.1[part(32)], cut.1);
        assert_eq!(before.2[part(7)], cut.2);
    }
}

/// With rows enough that no two contexts should meet, equal indices mean equal
/// contexts: the last n bytes, or all bytes where fewer exist.
#[test]
fn an_order_n_index_names_the_last_n_bytes() {
    let time = 400;
    // Three letters repeat often; few of the n-grams are new.
    let tokens: Vec<u8> = text(time, 3).iter().map(|byte| b"ab\0"[*byte as usize % 3]).collect();
    let config = NgramHash { orders: (1..=32).collect(), rows: 60_000_000, seed: 9 };
    let indices = ngrams(&config, 1, 1, time, &tokens);
    for (slot, &order) in config.orders.iter().enumerate() {
        let mut owner: HashMap<i32, (usize, &[u8])> = HashMap::new();
        let mut contexts = HashSet::new();
        for t in 0..time {
            let context = (order.saturating_sub(t + 1), &tokens[(t + 1).saturating_sub(order)..=t]);
            let first = owner.entry(indices[t * 32 + slot]).or_insert(context);
            assert_eq!(*first, context, "order {order} at {t}");
            contexts.insert(context);
        }
        assert_eq!(owner.len(), contexts.len());
    }
}

#[test]
fn the_start_of_a_window_is_no_ngram_of_its_inside() {
    // Position 1 of the first window holds "ab" and a start; the others hold
    // three bytes that end in "ab", the zero byte among them.
    let config = NgramHash { orders: vec![3], rows: 1 << 30, seed: 5 };
    let start = ngrams(&config, 1, 1, 2, b"ab")[1];
    for first in 0..=255 {
        assert_ne!(ngrams(&config, 1, 1, 3, &[first, b'a', b'b'])[2], start);
    }
}

#[test]
fn slots_and_seeds_hash_independently() {
    let (rows, time) = (1000, 5000);
    let tokens: Vec<u8> = (0..time as u64).map(|i| mix(i + 1) as u8).collect();
    let twice = NgramHash { orders: vec![4, 4], rows, seed: 1 };
    let other = NgramHash { seed: 2, ..twice.clone() };
    let (a, b) = (ngrams(&twice, 1, 1, time, &tokens), ngrams(&other, 1, 1, time, &tokens));
    let same = |pairs: &mut dyn Iterator<Item = (i32, i32)>| pairs.filter(|(x, y)| x == y).count();
    let between_slots = same(&mut a.chunks(2).map(|row| (row[0], row[1] - rows as i32)));
    let between_seeds = same(&mut a.iter().zip(&b).map(|(x, y)| (*x, *y)));
    assert!(between_slots < 20 && between_seeds < 40, "{between_slots} {between_seeds}");
    assert!(a.chunks(2).all(|row| row[0] < rows as i32 && row[1] >= rows as i32));
}

/// The distinct contexts of structured text must fill rows as random numbers
/// would, also where the number of rows is no power of two.
#[test]
fn the_rows_fill_like_random_ones() {
    for rows in [1, 2, 97, 1 << 10, 3000] {
        // Counting upwards in decimal: neighbouring contexts differ in a digit.
        let tokens: Vec<u8> = (0..8000).flat_map(|i| format!("{i:07} ").into_bytes()).collect();
        let config = NgramHash { orders: vec![8, 12, 20], rows, seed: 11 };
        let indices = ngrams(&config, 2, 1, tokens.len(), &tokens);
        for (slot, &order) in config.orders.iter().enumerate() {
            let mut seen = HashSet::new();
            let mut counts = vec![0u32; rows];
            for t in order..tokens.len() {
                if seen.insert(&tokens[t + 1 - order..=t]) {
                    counts[indices[t * 3 + slot] as usize - slot * rows] += 1;
                }
            }
            let expected = seen.len() as f64 / rows as f64;
            let chi_square: f64 =
                counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            // Six standard deviations of chi-square with rows - 1 degrees.
            let freedom = rows as f64 - 1.0;
            let off = (chi_square - freedom).abs();
            assert!(off <= 6.0 * (2.0 * freedom).sqrt(), "{rows} rows, order {order}: {off}");
        }
    }
}

/// One changed bit of the context changes each bit of the row half the time.
#[test]
fn one_bit_of_context_changes_half_the_index() {
    const BITS: usize = 20;
    for order in [2, 8, 9, 32] {
        let config = NgramHash { orders: vec![order], rows: 1 << BITS, seed: 4 };
        let index = |context: &[u8]| *ngrams(&config, 1, 1, order, context).last().unwrap();
        for place in [0, order / 2, order - 1] {
            let mut flips = [0u32; BITS];
            const TRIALS: u32 = 400;
            for trial in 0..TRIALS {
                let mut context: Vec<u8> =
                    (0..order as u64).map(|i| mix(u64::from(trial) << 8 | i) as u8).collect();
                let before = index(&context);
                context[place] ^= 1 << (trial % 8);
                let changed = before ^ index(&context);
                for (bit, count) in flips.iter_mut().enumerate() {
                    *count += (changed >> bit) as u32 & 1;
                }
            }
            // Six standard deviations of a fair coin.
            assert!(flips.iter().all(|count| count.abs_diff(TRIALS / 2) < 60), "{flips:?}");
        }
    }
}

/// Tables in checkpoints are indexed by these: they must never change.
#[test]
fn the_indices_never_change() {
    let tokens = b"The cat, the Cat's\n42 hats.";
    let time = tokens.len();
    let ngram = NgramHash { orders: vec![1, 2, 3, 8, 9, 17, 32], rows: 1_000_003, seed: 42 };
    let indices = ngrams(&ngram, 1, 1, time, tokens);
    assert_eq!(indices[..7], NGRAMS_FIRST);
    assert_eq!(indices[(time - 1) * 7..], NGRAMS_LAST);
    let word = WordHash { kinds: WordKind::ALL.to_vec(), rows: 1_000_003, seed: 42 };
    let indices = words(&word, 1, 1, time, tokens);
    assert_eq!(indices[..7], WORDS_FIRST);
    assert_eq!(indices[(time - 3) * 7..(time - 2) * 7], WORDS_THIRD_LAST);
}

// From another implementation, written in Python after the definitions.
const NGRAMS_FIRST: [i32; 7] = [332180, 1573145, 2436287, 3634818, 4275460, 5575075, 6000377];
const NGRAMS_LAST: [i32; 7] = [409729, 1752878, 2149891, 3654536, 4758296, 5738723, 6234346];
const WORDS_FIRST: [i32; 7] = [432442, 1195093, 2085405, 3650769, 4795934, 5341475, 6512315];
const WORDS_THIRD_LAST: [i32; 7] = [208363, 1424501, 2466241, 3264657, 4324740, 5498502, 6764416];

#[test]
fn configurations_travel_as_json() {
    let ngram = NgramHash { orders: vec![1, 5], rows: 7, seed: u64::MAX };
    let json = serde_json::to_string(&ngram).unwrap();
    assert_eq!(json, r#"{"orders":[1,5],"rows":7,"seed":18446744073709551615}"#);
    assert_eq!(serde_json::from_str::<NgramHash>(&json).unwrap(), ngram);
    let word = WordHash {
        kinds: vec![WordKind::PreviousWordAndPrefix, WordKind::LineStart],
        rows: 7,
        seed: 1,
    };
    let json = serde_json::to_string(&word).unwrap();
    assert_eq!(json, r#"{"kinds":["previous_word_and_prefix","line_start"],"rows":7,"seed":1}"#);
    assert_eq!(serde_json::from_str::<WordHash>(&json).unwrap(), word);
}

#[test]
fn what_cannot_be_hashed_is_refused_in_words() {
    let valid = NgramHash { orders: vec![1, 32], rows: 1, seed: 0 };
    assert_eq!(valid.validate(), Ok(()));
    let reason = |config: NgramHash| config.validate().unwrap_err();
    assert_eq!(
        reason(NgramHash { orders: vec![2, 33], ..valid.clone() }),
        "`orders` holds 33; an order is 1 to 32"
    );
    assert!(reason(NgramHash { orders: vec![0], ..valid.clone() }).contains("holds 0"));
    assert!(reason(NgramHash { rows: 0, ..valid.clone() }).contains("at least one row"));
    assert!(reason(NgramHash { rows: 1 << 30, ..valid.clone() }).contains("i32"));
    assert!(reason(NgramHash { rows: usize::MAX, ..valid }).contains("i32"));
    assert!(WordHash { kinds: vec![WordKind::Prefix], rows: 0, seed: 0 }.validate().is_err());
}

#[test]
#[should_panic(expected = "an order is 1 to 32")]
fn an_order_too_high_panics() {
    ngrams(&NgramHash { orders: vec![40], rows: 1, seed: 0 }, 1, 1, 1, b"a");
}

#[test]
#[should_panic(expected = "out must be [batch, time, slots] = [1, 2, 3]")]
fn a_wrong_length_panics() {
    byte_context(&Pool::new(1), 1, 2, 3, b"ab", &mut [0; 5]);
}
