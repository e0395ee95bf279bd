//! Dropout whose mask is a function of (key, index): nothing to store, and
//! the same for every split into threads.
//!
//! The generator: `s0, s1` are the halves of splitmix64 of the key and the
//! high 32 bits of the index; the low 32 bits are mixed twice with a 32-bit
//! finaliser, `mix(mix(low ^ s0) + s1)`; the upper 24 bits are the uniform.
//! All per-element arithmetic is in 32 bits, so it vectorises everywhere.

use super::{ELEMENTS_PER_THREAD, expect_length};
use crate::{Element, Pool, multiversion};

/// out = x / keep where (key, index) draws below `keep_probability`, else 0.
pub fn dropout<X: Element, O: Element>(
    pool: &Pool,
    keep_probability: f32,
    key: u64,
    x: &[X],
    out: &mut [O],
) {
    expect_length("dropout", "out", out.len(), x.len());
    let threshold = threshold(keep_probability);
    let scale = 1.0 / keep_probability;
    pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
        let mut done = 0;
        // The seeds change where the high half of the index does.
        while done < out.len() {
            let index = (first + done) as u64;
            let left = (1u64 << 32) - (index & 0xffff_ffff);
            let count = (out.len() - done).min(usize::try_from(left).unwrap_or(usize::MAX));
            let x = &x[first + done..first + done + count];
            let seeds = seeds(key, index >> 32);
            dropout_range(threshold, scale, seeds, index as u32, x, &mut out[done..done + count]);
            done += count;
        }
    });
}

/// Whether [`dropout`] with this key keeps the element at `index`.
pub fn dropout_keeps(key: u64, index: u64, keep_probability: f32) -> bool {
    draw(seeds(key, index >> 32), index as u32) < threshold(keep_probability)
}

multiversion! {
    fn dropout_range[X: Element, O: Element](
        threshold: u32,
        scale: f32,
        seeds: (u32, u32),
        first: u32,
        x: &[X],
        out: &mut [O],
    ) {
        let mut index = first;
        for (out, x) in out.iter_mut().zip(x) {
            let kept = x.to_f32() * scale;
            *out = O::from_f32(if draw(seeds, index) < threshold { kept } else { 0.0 });
            index = index.wrapping_add(1);
        }
    }
}

/// The 24-bit draws below this are kept.
fn threshold(keep_probability: f32) -> u32 {
    assert!(
        (0.0..=1.0).contains(&keep_probability),
        "`dropout`: `keep_probability` is {keep_probability}, expected 0 to 1"
    );
    (keep_probability as f64 * (1u32 << 24) as f64).round() as u32
}

/// Both seeds of the 2^32 elements whose index has this high half.
fn seeds(key: u64, high: u64) -> (u32, u32) {
    let mut z = key.wrapping_add((high + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z as u32, (z >> 32) as u32)
}

#[inline(always)]
fn draw(seeds: (u32, u32), low: u32) -> u32 {
    mix(mix(low ^ seeds.0).wrapping_add(seeds.1)) >> 8
}

/// The `lowbias32` finaliser: every input bit flips each output bit about
/// half of the time.
#[inline(always)]
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}
