//! SwiGLU over bf16 with AVX-512: 32 values at a step, as those in even and
//! those in odd places, which masks and shifts widen without a shuffle.
//!
//! The plain loops wait for their arithmetic here, not for memory: they lack
//! fused multiply-adds (which not every machine has), divide, and round with
//! integers. What is left out, the last bits of an exponential, is far below
//! the rounding of the result to bf16.

use crate::bf16;
use std::arch::x86_64::*;
use std::f32::consts::{LN_2, LOG2_E};
use std::mem::transmute;

/// y = value * silu(gate) for each row [value, gate] of `x`.
///
/// # Safety
/// The machine must have AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn swiglu_rows(x: &[bf16], h: usize, y: &mut [bf16]) {
    for (x, y) in x.chunks_exact(2 * h).zip(y.chunks_exact_mut(h)) {
        let (value, gate) = x.split_at(h);
        for first in (0..h).step_by(32) {
            let lanes = mask(h - first);
            // SAFETY: the mask keeps what is beyond the row unread and unwritten.
            unsafe {
                let value = load(value.as_ptr().add(first), lanes);
                let gate = load(gate.as_ptr().add(first), lanes);
                let product = |place: usize| {
                    let activated = _mm512_mul_ps(gate[place], sigmoid(gate[place]));
                    _mm512_mul_ps(value[place], activated)
                };
                store([product(0), product(1)], y.as_mut_ptr().add(first), lanes);
            }
        }
    }
}

/// Rows [dvalue, dgate] of `dx` from the rows of `x` and `dy`.
///
/// # Safety
/// The machine must have AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn swiglu_gradient_rows(x: &[bf16], dy: &[bf16], h: usize, dx: &mut [bf16]) {
    let rows = x.chunks_exact(2 * h).zip(dy.chunks_exact(h));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * h)) {
        let (value, gate) = x.split_at(h);
        let (dvalue, dgate) = dx.split_at_mut(h);
        for first in (0..h).step_by(32) {
            let lanes = mask(h - first);
            // SAFETY: the mask keeps what is beyond the row unread and unwritten.
            unsafe {
                let value = load(value.as_ptr().add(first), lanes);
                let gate = load(gate.as_ptr().add(first), lanes);
                let dy = load(dy.as_ptr().add(first), lanes);
                let gradient = |place: usize| {
                    let open = sigmoid(gate[place]);
                    let activated = _mm512_mul_ps(gate[place], open);
                    // silu' = s + y (1 - s)
                    let slope = _mm512_add_ps(_mm512_fnmadd_ps(activated, open, activated), open);
                    let along = _mm512_mul_ps(dy[place], value[place]);
                    (_mm512_mul_ps(dy[place], activated), _mm512_mul_ps(along, slope))
                };
                let (even, odd) = (gradient(0), gradient(1));
                store([even.0, odd.0], dvalue.as_mut_ptr().add(first), lanes);
                store([even.1, odd.1], dgate.as_mut_ptr().add(first), lanes);
            }
        }
    }
}

/// The lowest `count` bits, at most 32.
#[inline(always)]
fn mask(count: usize) -> u32 {
    ((1u64 << count.min(32)) - 1) as u32
}

/// 32 values as f32: those in even places, those in odd places.
///
/// # Safety
/// AVX-512; values at `from` where the mask has a bit.
#[inline(always)]
unsafe fn load(from: *const bf16, lanes: u32) -> [__m512; 2] {
    // SAFETY: the caller's promise; the rest is arithmetic in registers.
    unsafe {
        let both = _mm512_maskz_loadu_epi16(lanes, from.cast());
        let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        [
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)),
            _mm512_castsi512_ps(_mm512_and_si512(both, high)),
        ]
    }
}

/// Rounds and stores what [`load`] would read.
///
/// # Safety
/// AVX-512 with bf16; room at `to` where the mask has a bit.
#[inline(always)]
unsafe fn store([even, odd]: [__m512; 2], to: *mut bf16, lanes: u32) {
    // SAFETY: the caller's promise; both types are 512 bits.
    unsafe {
        let apart = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
        let joined = _mm512_permutexvar_epi16(INTERLEAVE, apart);
        _mm512_mask_storeu_epi16(to.cast(), lanes, joined);
    }
}

/// Word `i` of the lower half beside word `i` of the upper half.
// SAFETY: both types are 512 bits.
const INTERLEAVE: __m512i = unsafe {
    let mut words = [0u16; 32];
    let mut place = 0;
    while place < 32 {
        words[place] = (place / 2 + place % 2 * 16) as u16;
        place += 1;
    }
    transmute(words)
};

/// 1 / (1 + e^-x) within 3e-6 of itself above x = -88, where it is 6e-39; a NaN
/// stays one.
///
/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn sigmoid(x: __m512) -> __m512 {
    // SAFETY: arithmetic in registers.
    unsafe {
        // The second operand is what a comparison with NaN gives.
        let x = _mm512_max_ps(_mm512_set1_ps(-88.0), x);
        let x = _mm512_min_ps(_mm512_set1_ps(88.0), x);
        // e^-x = 2^whole * 2^rest with |rest| <= 1/2.
        let scale = _mm512_set1_ps(-LOG2_E);
        let whole = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, scale));
        let rest = _mm512_fmsub_ps(x, scale, whole);
        // The series of 2^rest, ln(2)^n / n!; what follows is below 3e-6.
        let mut power = _mm512_set1_ps(1.333_355_8e-3);
        for coefficient in [9.618_129e-3, 5.550_411e-2, 0.240_226_5, LN_2, 1.0] {
            power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(coefficient));
        }
        let denominator = _mm512_add_ps(_mm512_set1_ps(1.0), _mm512_scalef_ps(power, whole));
        // One Newton step takes the reciprocal from 14 bits to those of f32.
        let near = _mm512_rcp14_ps(denominator);
        let correction = _mm512_fnmadd_ps(denominator, near, _mm512_set1_ps(2.0));
        _mm512_mul_ps(near, correction)
    }
}
