//! Contexts of bytes.

use bytemuck::{Pod, Zeroable};
use modgrad_ffn::hash::stream_seed;
use modgrad_graph::{Op, Result};

use super::Call;
use crate::launch::{Place, index, over, plain};
use crate::source::CONTEXTS;

/// `Slots` of `kernels/contexts.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Slots {
    seeds: [u64; Slots::MOST],
    what: [i32; Slots::MOST],
}

impl Slots {
    const MOST: usize = 16;
}

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::ByteContext { length } => byte_context(&call, *length),
        Op::NgramHash { hash } => {
            let orders: Vec<i32> = hash.orders.iter().map(|order| *order as i32).collect();
            let positions = call.x[0].elements();
            hashed(&call, "ngram_hash", &orders, hash.rows, hash.seed, positions)
        }
        Op::WordHash { hash } => {
            let kinds: Vec<i32> = hash.kinds.iter().map(|kind| *kind as i32).collect();
            let windows = call.x[0].shape[0];
            hashed(&call, "word_hash", &kinds, hash.rows, hash.seed, windows)
        }
        _ => Err(call.missing()),
    }
}

fn byte_context(call: &Call<'_, '_>, length: usize) -> Result<()> {
    let (tokens, out) = (&call.x[0], &call.out[0]);
    let count = out.elements();
    let arguments =
        [tokens.pointer(), out.pointer(), index(tokens.shape[1]), index(length), index(count)];
    call.device.launch(&CONTEXTS, "byte_context", over(count), &arguments)
}

/// Hashes of all slots, for each of `places` and slot one thread.
fn hashed(
    call: &Call<'_, '_>,
    kernel: &str,
    what: &[i32],
    rows: usize,
    seed: u64,
    places: usize,
) -> Result<()> {
    let (tokens, out) = (&call.x[0], &call.out[0]);
    for (chunk, some) in what.chunks(Slots::MOST).enumerate() {
        let first = chunk * Slots::MOST;
        let mut slots = Slots::zeroed();
        for (slot, what) in some.iter().enumerate() {
            slots.seeds[slot] = stream_seed(seed, (first + slot) as u64);
            slots.what[slot] = *what;
        }
        let count = places * some.len();
        let arguments = [
            tokens.pointer(),
            out.pointer(),
            plain(&slots),
            index(first),
            index(some.len()),
            index(what.len()),
            index(rows),
            index(tokens.shape[1]),
            index(count),
        ];
        call.device.launch(&CONTEXTS, kernel, over(count), &arguments)?;
    }
    Ok(())
}
