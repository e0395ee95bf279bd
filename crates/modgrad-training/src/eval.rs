//! Evaluation: how many bits a byte of a text costs under a checkpoint.
//!
//! The checkpoint's program `score` maps `tokens` u8[B, T] to `logits`
//! f32[B, T, 256]; row t of a window predicts the byte after byte t. Here it is
//! run on compiled kernels over the whole text, and refused unless
//!
//! 1. every row is 256 finite logits; the cost is formed from them in f64;
//! 2. every byte but the first is scored once, in windows that start afresh;
//! 3. no row depends on bytes after it, at secret windows and positions;
//! 4. nothing depends on the order of windows, on their company in the batch or
//!    on their place there;
//! 5. the text is the one that was pinned.
//!
//! Differences are looked for bit by bit. A leak that shows at a share f of all
//! (window, position) pairs escapes n probes with a chance of (1 − f)^n: 0.6 % for
//! 2 % and 256 probes. Positions take turns, so one that stands at fixed positions
//! of windows no longer than n cannot hide there.

mod error;
mod model;
mod probes;
mod windows;

pub use error::EvalError;

use modgrad_graph::Tensor;
use std::time::Instant;

use crate::checkpoint_bundle::Checkpoint;
use crate::digest::{same, sha256_hex};
use crate::metrics::{BYTES, BitsPerByte, PositionBucket, row_bits};
use crate::random::{self, Random};
use model::Model;
use probes::Probes;
use windows::Windows;

/// Fewer (window, position) pairs are no proof of causality.
pub const LEAST_PROBES: usize = 256;

/// How an evaluation is run. None of it changes the number, but for `max_bytes`.
#[derive(Clone, Copy)]
pub struct EvalOptions<'a> {
    /// Threads, the calling one counted.
    pub threads: usize,
    /// Scores only so many bytes from the start of the data.
    pub max_bytes: Option<usize>,
    /// Refuses a program of any other context.
    pub context: Option<usize>,
    /// Refuses data of any other SHA-256.
    pub expected_sha256: Option<&'a str>,
    /// Secret (window, position) pairs at which causality is checked.
    pub probes: usize,
    /// Fixes the secret, for tests; the system's randomness otherwise.
    pub seed: Option<u64>,
    /// The most memory that the program may need, in bytes.
    pub max_memory: usize,
    /// Told how many batches are done, and of how many.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
    /// Asked after each batch whether to stop.
    pub cancelled: Option<&'a dyn Fn() -> bool>,
}

impl Default for EvalOptions<'_> {
    fn default() -> Self {
        EvalOptions {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_bytes: None,
            context: None,
            expected_sha256: None,
            probes: LEAST_PROBES,
            seed: None,
            max_memory: 8 << 30,
            progress: None,
            cancelled: None,
        }
    }
}

/// A score, and what it was formed over.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LanguageScore {
    /// The mean cost of a target.
    pub bits_per_byte: f64,
    /// Targets: the scored bytes less one.
    pub n_targets: u64,
    /// The program's context.
    pub context: usize,
    /// Windows scored.
    pub windows: usize,
    /// SHA-256 of all the data, whatever part of it was scored.
    pub sha256: String,
    /// Length of all the data.
    pub bytes: u64,
    /// (window, position) pairs at which causality was checked; 0 where a
    /// context of 1 leaves nothing to check.
    pub probes: usize,
    /// Wall-clock time.
    pub seconds: f64,
    /// The mean by position within the window.
    pub bits_by_position: Vec<PositionBucket>,
}

/// Scores the checkpoint's program `score` on `data`.
pub fn eval_ffn(
    checkpoint: &Checkpoint,
    data: &[u8],
    options: &EvalOptions<'_>,
) -> Result<LanguageScore, EvalError> {
    let start = Instant::now();
    let sha256 = sha256_hex(data);
    if let Some(expected) = options.expected_sha256
        && !same(expected, &sha256)
    {
        return Err(EvalError::Pin { expected: expected.to_owned(), found: sha256 });
    }
    let text = &data[..options.max_bytes.unwrap_or(usize::MAX).min(data.len())];
    if text.len() < 2 {
        return Err(EvalError::TooShort { bytes: text.len() });
    }
    if options.probes < LEAST_PROBES {
        let reason = format!("{} are too few, at least {LEAST_PROBES}", options.probes);
        return Err(EvalError::Option { option: "probes", reason });
    }
    let mut model = Model::new(checkpoint, options)?;
    let windows = Windows::new(text, model.context);
    let (bits, probes) = judge(&mut model, &windows, options)?;
    Ok(LanguageScore {
        bits_per_byte: bits.mean()?,
        n_targets: windows.targets() as u64,
        context: model.context,
        windows: windows.count(),
        sha256,
        bytes: data.len() as u64,
        probes,
        seconds: start.elapsed().as_secs_f64(),
        bits_by_position: bits.by_position(),
    })
}

/// Scores the model and probes it; returns the number of secret pairs too.
fn judge(
    model: &mut Model,
    windows: &Windows<'_>,
    options: &EvalOptions<'_>,
) -> Result<(BitsPerByte, usize), EvalError> {
    let seed = options.seed.map_or_else(random::from_system, Ok).map_err(EvalError::Randomness)?;
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..windows.count()).collect();
    random.shuffle(&mut order);
    let mut probes = Probes::draw(&mut random, windows, model.context, options.probes);

    let total = order.len().div_ceil(model.batch) + probes.batches(model.batch);
    let mut done = 0;
    let mut tick = || {
        done += 1;
        if let Some(progress) = options.progress {
            progress(done, total);
        }
        match options.cancelled {
            Some(cancelled) if cancelled() => Err(EvalError::Cancelled),
            _ => Ok(()),
        }
    };
    let bits = score(model, windows, &order, &mut probes, &mut tick)?;
    probes.check(model, windows, &order, &mut random, &mut tick)?;
    Ok((bits, probes.pairs))
}

/// Scores every window, in the given order.
fn score(
    model: &mut Model,
    windows: &Windows<'_>,
    order: &[usize],
    probes: &mut Probes,
    tick: &mut dyn FnMut() -> Result<(), EvalError>,
) -> Result<BitsPerByte, EvalError> {
    let context = model.context;
    let mut bits = BitsPerByte::new(windows.targets(), context);
    let mut tokens = vec![0; model.batch * context];
    for batch in order.chunks(model.batch) {
        tokens.fill(0);
        for (row, &window) in tokens.chunks_exact_mut(context).zip(batch) {
            windows.write(window, row);
        }
        let logits = model.run(&tokens)?;
        for (place, &window) in batch.iter().enumerate() {
            bits.add_window(window, &costs(model, &logits, place, windows.targets_of(window)))?;
        }
        probes.remember(model, batch, &logits);
        tick()?;
    }
    Ok(bits)
}

/// What each target of the window at `place` in the batch costs.
fn costs(model: &Model, logits: &Tensor, place: usize, targets: &[u8]) -> Vec<f64> {
    let logits = logits.as_f32().unwrap_or_default();
    let rows = logits.chunks_exact(BYTES).skip(place * model.context);
    let mut bits = vec![f64::NAN; targets.len()];
    model.pool().for_rows(&mut bits, 1, 8, |first, bits| {
        let rows = rows.clone().skip(first);
        for ((bits, row), &target) in bits.iter_mut().zip(rows).zip(&targets[first..]) {
            *bits = row_bits(row, usize::from(target));
        }
    });
    bits
}

#[cfg(test)]
mod tests;
