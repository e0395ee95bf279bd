//! Bits per byte of the online mixer alone, after it has read a share of the text.
//!
//!     cargo run --release -p modgrad-ffn --example memory_bench -- TRAIN VAL [windows]

use std::time::{Duration, Instant};

use modgrad_compute::Pool;
use modgrad_ffn::WordKind;
use modgrad_ffn::memory::{
    ContextKind, CountLimits, LEADING, Learned, Memory, MemoryConfig, MixerSets, Rows, STATISTICS,
    Scratch, Surroundings, lesson_size,
};

const TIME: usize = 4096;
const MARGIN: usize = 256;

struct Buffers {
    base: Vec<f32>,
    entries: Vec<i32>,
    difference: Vec<f32>,
    multiple: Vec<f32>,
    statistics: Vec<f32>,
    leading: Vec<i32>,
    lessons: Vec<f32>,
}

impl Buffers {
    fn new(config: &MemoryConfig) -> Buffers {
        let (k, e) = (config.experts(), config.entries);
        Buffers {
            base: vec![0.0; TIME * 256],
            entries: vec![0; TIME * e],
            difference: vec![0.0; TIME * k * e],
            multiple: vec![0.0; TIME * k],
            statistics: vec![0.0; TIME * k * STATISTICS],
            leading: vec![0; TIME * LEADING],
            lessons: vec![0.0; lesson_size(config)],
        }
    }

    fn rows(&mut self) -> Rows<'_> {
        Rows {
            base: &mut self.base,
            entries: &mut self.entries,
            difference: &mut self.difference,
            multiple: &mut self.multiple,
            statistics: &mut self.statistics,
            leading: &mut self.leading,
            lessons: &mut self.lessons,
        }
    }

    /// −log2 p of `byte` at position t under expert `expert`.
    fn bits(&self, config: &MemoryConfig, t: usize, expert: usize, byte: u8) -> f64 {
        let (k, e) = (config.experts(), config.entries);
        let multiple = f64::from(self.multiple[t * k + expert]);
        let mut row: Vec<f64> =
            self.base[t * 256..][..256].iter().map(|x| multiple * f64::from(*x)).collect();
        let difference = &self.difference[(t * k + expert) * e..][..e];
        for (byte, difference) in self.entries[t * e..][..e].iter().zip(difference) {
            row[*byte as usize] += f64::from(*difference);
        }
        let total: f64 = row.iter().map(|x| x.exp()).sum();
        (total.ln() - row[usize::from(byte)]) / std::f64::consts::LN_2
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let read = |at: usize| std::fs::read(&arguments[at]).expect("a file");
    let (train, val) = (read(1), read(2));
    let windows: usize = arguments.get(3).map_or(400, |n| n.parse().expect("a number"));
    let orders = [1, 2, 3, 4, 5, 6, 7, 9, 12, 16].map(ContextKind::Order);
    let words = [WordKind::Prefix, WordKind::PreviousWordAndPrefix].map(ContextKind::Word);
    let config = MemoryConfig {
        kinds: [&orders[..], &words].concat(),
        base: 2,
        in_window: vec![1, 2, 3, 5, 10, 11],
        entries: 48,
        mixers: vec![MixerSets::Depth, MixerSets::Certainty, MixerSets::LastByte],
        mixer_rate: 0.0003,
    };
    let pool = Pool::new(2);
    let start = Instant::now();
    let limits = CountLimits { memory: 1 << 30, time: Duration::from_secs(60) };
    let memory = Memory::count(&pool, &config, &train, limits).expect("a valid configuration");
    let megabytes = memory.size() as f64 / 1e6;
    println!("counted {} bytes in {:.1?}: {megabytes:.0} MB", memory.counted(), start.elapsed());
    let mut learned = Learned::new(&config);
    let mut scratch = Scratch::new(&memory);
    let mut buffers = Buffers::new(&config);
    let start = Instant::now();
    for window in 0..windows {
        let stretch = (train.len() - TIME - 2 * MARGIN - 64) / windows;
        let at = 64 + MARGIN + window * 7919 % windows * stretch;
        let around = Surroundings {
            earlier: &train[at - MARGIN - 64..at - MARGIN],
            before: &train[at - MARGIN..at],
            after: &train[at + TIME..at + TIME + MARGIN],
        };
        let bytes = &train[at..at + TIME];
        let rows = &mut buffers.rows();
        scratch.fill(&memory, learned.weights(), bytes, Some(around), rows);
        learned.learn(&buffers.lessons);
    }
    let per_position = start.elapsed().as_secs_f64() * 1e6 / (windows * TIME) as f64;
    println!("{windows} windows: {per_position:.2} µs a position on one thread");
    let mut bits = vec![0.0; config.experts()];
    let mut targets = 0;
    for bytes in val.chunks(TIME) {
        let (bytes, rest) = bytes.split_at(bytes.len().min(TIME));
        assert!(rest.is_empty());
        scratch.fill(&memory, learned.weights(), bytes, None, &mut buffers.rows());
        for (t, pair) in bytes.windows(2).enumerate() {
            for (expert, bits) in bits.iter_mut().enumerate() {
                *bits += buffers.bits(&config, t, expert, pair[1]);
            }
            targets += 1;
        }
    }
    for (expert, bits) in bits.iter().enumerate() {
        println!("expert {expert}: {:.4} bits per byte", bits / f64::from(targets));
    }
}
