//! Packing with AVX-512: squares of 16 indices x 16 units in registers.

use super::pack::Operand;
use crate::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::transmute;

/// Where the squares of a panel go, in units.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Squares side by side.
    pub groups: usize,
    pub group_offset: usize,
    /// From 16 units to the next 16.
    pub step_offset: usize,
    /// From one vector of a square to the next.
    pub stride: usize,
    /// Whether a stored vector holds one unit of 16 indices, or one index's 16 units.
    pub by_unit: bool,
    /// Whether the last square is written whole, with zeros.
    pub whole: bool,
}

/// Packs `count` indices over `inner` elements.
///
/// # Safety
/// AVX-512 (with bf16 for `PAIRS`); whole elements at `operand`, whole squares at `out`.
#[inline(always)]
pub(super) unsafe fn pack<const PAIRS: bool>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    layout: Layout,
    out: *mut u32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (operand.narrow, operand.inner_stride == 1, operand.index_stride == 1) {
            (false, true, _) => {
                squares::<PAIRS, false, 0>(operand, count, inner, round, layout, out)
            }
            (true, true, _) => squares::<PAIRS, true, 0>(operand, count, inner, round, layout, out),
            (false, _, true) => {
                squares::<PAIRS, false, 1>(operand, count, inner, round, layout, out)
            }
            (true, _, true) => squares::<PAIRS, true, 1>(operand, count, inner, round, layout, out),
            (false, ..) => squares::<PAIRS, false, 2>(operand, count, inner, round, layout, out),
            (true, ..) => squares::<PAIRS, true, 2>(operand, count, inner, round, layout, out),
        }
    }
}

/// `WAY`: 0 contiguous along the inner dimension, 1 along the index, 2 neither.
#[inline(always)]
unsafe fn squares<const PAIRS: bool, const NARROW: bool, const WAY: u8>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    layout: Layout,
    out: *mut u32,
) {
    let per_unit = if PAIRS { 2 } else { 1 };
    let units = inner.div_ceil(per_unit);
    for first_unit in (0..units).step_by(16) {
        let first_inner = first_unit * per_unit;
        let steps = (inner - first_inner).min(16 * per_unit);
        for group in 0..layout.groups {
            let indices = count.saturating_sub(16 * group).min(16);
            let from = operand.at(16 * group, first_inner);
            let out = out
                .wrapping_add(group * layout.group_offset + first_unit / 16 * layout.step_offset);
            // SAFETY: at most `indices` x `steps` elements are read; the
            // square lies inside the panel.
            unsafe {
                if indices == 16 && steps == 16 * per_unit && WAY != 2 {
                    // Constants here let the whole square stay in registers.
                    let steps = 16 * per_unit;
                    let square = if WAY == 0 {
                        by_index::<PAIRS, NARROW>(from, 16, steps, round)
                    } else {
                        by_unit::<PAIRS, NARROW>(from, 16, steps, round)
                    };
                    store::<WAY>(square, layout, 16, out);
                } else {
                    let square = match WAY {
                        0 => by_index::<PAIRS, NARROW>(from, indices, steps, round),
                        1 => by_unit::<PAIRS, NARROW>(from, indices, steps, round),
                        _ => strided::<PAIRS, NARROW>(from, indices, steps, round),
                    };
                    let last = if layout.whole { 16 } else { (units - first_unit).min(16) };
                    store::<WAY>(square, layout, last, out);
                }
            }
        }
    }
}

/// Writes the first `last` vectors of a square, turned if the layout wants it.
#[inline(always)]
unsafe fn store<const WAY: u8>(square: [__m512i; 16], layout: Layout, last: usize, out: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let square = if layout.by_unit == (WAY == 1) { square } else { transpose(square) };
        for (place, vector) in square.into_iter().enumerate() {
            if place < last {
                _mm512_storeu_si512(out.add(place * layout.stride).cast(), vector);
            }
        }
    }
}

/// The lowest `count` bits.
#[inline(always)]
fn mask(count: usize) -> u32 {
    ((1u64 << count.min(32)) - 1) as u32
}

/// The address `elements` further on.
#[inline(always)]
fn at<const NARROW: bool>(pointer: *const u8, elements: usize) -> *const u8 {
    pointer.wrapping_add(elements * if NARROW { 2 } else { 4 })
}

/// Up to 16 values as f32, rounded to bf16 where asked.
#[inline(always)]
unsafe fn load<const NARROW: bool>(from: *const u8, count: usize, round: bool) -> __m512i {
    // SAFETY: the mask keeps absent values unread.
    unsafe {
        if NARROW {
            let half = _mm256_maskz_loadu_epi16(mask(count) as u16, from.cast());
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
        } else {
            let values = _mm512_maskz_loadu_epi32(mask(count) as u16, from.cast());
            if round { round_to_bf16(values) } else { values }
        }
    }
}

/// To the nearest bf16, ties to even; a NaN stays a NaN.
#[inline(always)]
unsafe fn round_to_bf16(values: __m512i) -> __m512i {
    // SAFETY: arithmetic in registers.
    unsafe {
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(values), _mm512_set1_epi32(1));
        let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(
            _mm512_castsi512_ps(values),
            _mm512_castsi512_ps(values),
        );
        let rounded = _mm512_add_epi32(values, bias);
        let quiet = _mm512_or_si512(values, _mm512_set1_epi32(0x40_0000));
        let kept = _mm512_mask_mov_epi32(rounded, nan, quiet);
        _mm512_and_si512(kept, _mm512_set1_epi32(0xffff_0000_u32 as i32))
    }
}

/// Two vectors of f32 as bf16: `low` in the lower half.
#[inline(always)]
unsafe fn narrow(low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: both types are 512 bits.
    unsafe {
        transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(
            _mm512_castsi512_ps(high),
            _mm512_castsi512_ps(low),
        ))
    }
}

/// A vector for each index: its 16 units.
#[inline(always)]
unsafe fn by_index<const PAIRS: bool, const NARROW: bool>(
    operand: Operand,
    indices: usize,
    steps: usize,
    round: bool,
) -> [__m512i; 16] {
    // SAFETY: absent values are masked.
    unsafe {
        let mut square = [_mm512_setzero_si512(); 16];
        for (index, vector) in square.iter_mut().enumerate() {
            if index < indices {
                let from = at::<NARROW>(operand.pointer, index * operand.index_stride);
                *vector = match (PAIRS, NARROW) {
                    (true, true) => _mm512_maskz_loadu_epi16(mask(steps), from.cast()),
                    (true, false) => narrow(
                        load::<false>(from, steps.min(16), false),
                        load::<false>(from.wrapping_add(64), steps.saturating_sub(16), false),
                    ),
                    (false, _) => load::<NARROW>(from, steps, round),
                };
            }
        }
        square
    }
}

/// 16 indices at one step of the inner dimension.
#[inline(always)]
unsafe fn step_at<const NARROW: bool>(
    operand: Operand,
    indices: usize,
    steps: usize,
    round: bool,
    step: usize,
) -> __m512i {
    let count = if step < steps { indices } else { 0 };
    // SAFETY: as for `by_unit`.
    unsafe {
        load::<NARROW>(at::<NARROW>(operand.pointer, step * operand.inner_stride), count, round)
    }
}

/// A vector for each unit: that of 16 indices.
#[inline(always)]
unsafe fn by_unit<const PAIRS: bool, const NARROW: bool>(
    operand: Operand,
    indices: usize,
    steps: usize,
    round: bool,
) -> [__m512i; 16] {
    // SAFETY: absent values are masked, absent steps not read.
    unsafe {
        let mut square = [_mm512_setzero_si512(); 16];
        for (unit, vector) in square.iter_mut().enumerate() {
            *vector = match (PAIRS, NARROW) {
                (false, _) => step_at::<NARROW>(operand, indices, steps, round, unit),
                (true, true) => {
                    // bf16 values sit in the upper halves of the lanes.
                    let low = _mm512_srli_epi32::<16>(step_at::<NARROW>(
                        operand,
                        indices,
                        steps,
                        round,
                        2 * unit,
                    ));
                    _mm512_or_si512(
                        low,
                        step_at::<NARROW>(operand, indices, steps, round, 2 * unit + 1),
                    )
                }
                (true, false) => {
                    let both = narrow(
                        step_at::<NARROW>(operand, indices, steps, round, 2 * unit),
                        step_at::<NARROW>(operand, indices, steps, round, 2 * unit + 1),
                    );
                    _mm512_permutexvar_epi16(INTERLEAVE, both)
                }
            };
        }
        square
    }
}

/// Packs up to 8 indices that lie side by side as `[unit][8]`, absent ones as zero.
///
/// # Safety
/// AVX-512 (with bf16 for `PAIRS`); whole elements at `operand`, whole units at `out`.
#[inline(always)]
pub(super) unsafe fn eights<const PAIRS: bool>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if operand.narrow {
            eights_of::<PAIRS, true>(operand, count, inner, round, out);
        } else {
            eights_of::<PAIRS, false>(operand, count, inner, round, out);
        }
    }
}

#[inline(always)]
unsafe fn eights_of<const PAIRS: bool, const NARROW: bool>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    let lanes = mask(count) as u8;
    // SAFETY: absent values are masked, absent steps not read.
    let step = |step: usize| unsafe {
        let from = at::<NARROW>(operand.pointer, step * operand.inner_stride);
        match (NARROW, step < inner) {
            (_, false) => _mm256_setzero_si256(),
            (true, _) => _mm256_cvtepu16_epi32(_mm_maskz_loadu_epi16(lanes, from.cast())),
            (false, _) => _mm256_maskz_loadu_epi32(lanes, from.cast()),
        }
    };
    let per_unit = if PAIRS { 2 } else { 1 };
    for unit in 0..inner.div_ceil(per_unit) {
        // SAFETY: as above, and a whole unit at `out`.
        unsafe {
            let first = step(unit * per_unit);
            let packed = match (PAIRS, NARROW) {
                (true, true) => _mm256_or_si256(first, _mm256_slli_epi32::<16>(step(unit * 2 + 1))),
                (true, false) => {
                    let (low, high) =
                        (_mm256_castsi256_ps(first), _mm256_castsi256_ps(step(unit * 2 + 1)));
                    let both = transmute::<__m256bh, __m256i>(_mm256_cvtne2ps_pbh(high, low));
                    _mm256_permutexvar_epi16(INTERLEAVE_EIGHTS, both)
                }
                (false, true) => _mm256_slli_epi32::<16>(first),
                (false, false) if round => {
                    _mm512_castsi512_si256(round_to_bf16(_mm512_castsi256_si512(first)))
                }
                (false, false) => first,
            };
            _mm256_storeu_si256(out.add(unit * 8).cast(), packed);
        }
    }
}

/// Word `i` of the lower half beside word `i` of the upper half.
const fn interleaved<const WORDS: usize>() -> [u16; WORDS] {
    let mut words = [0; WORDS];
    let mut place = 0;
    while place < WORDS {
        words[place] = (place / 2 + place % 2 * (WORDS / 2)) as u16;
        place += 1;
    }
    words
}

// SAFETY: both types are 512 bits.
const INTERLEAVE: __m512i = unsafe { transmute(interleaved::<32>()) };
// SAFETY: both types are 256 bits.
const INTERLEAVE_EIGHTS: __m256i = unsafe { transmute(interleaved::<16>()) };

/// As `by_index`, value by value.
#[inline(always)]
unsafe fn strided<const PAIRS: bool, const NARROW: bool>(
    operand: Operand,
    indices: usize,
    steps: usize,
    round: bool,
) -> [__m512i; 16] {
    let mut rows = [[0f32; 32]; 16];
    for (index, row) in rows.iter_mut().enumerate().take(indices) {
        for (step, value) in row.iter_mut().enumerate().take(steps) {
            let from = operand.at(index, step).pointer;
            // SAFETY: (index, step) is inside the operand.
            *value = unsafe {
                if NARROW {
                    f32::from_bits((from.cast::<u16>().read() as u32) << 16)
                } else {
                    from.cast::<f32>().read()
                }
            };
        }
    }
    let whole =
        Operand { pointer: rows.as_ptr().cast(), narrow: false, index_stride: 32, inner_stride: 1 };
    // SAFETY: `rows` holds 16 x 32 values.
    unsafe { by_index::<PAIRS, false>(whole, 16, if PAIRS { 32 } else { 16 }, round) }
}

/// The square with vectors and lanes exchanged.
#[inline(always)]
pub(super) unsafe fn transpose(square: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: shuffles in registers.
    unsafe {
        let zero = _mm512_setzero_si512();
        let (mut pairs, mut fours) = ([zero; 16], [zero; 16]);
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(square[2 * i], square[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(square[2 * i], square[2 * i + 1]);
        }
        for i in 0..4 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            fours[4 * i] = _mm512_unpacklo_epi64(a, c);
            fours[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
            fours[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
            fours[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        // fours[4i + j], lane group g: indices 4i..4i+4 of unit 4g + j.
        let mut out = [zero; 16];
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            let even_low = _mm512_shuffle_i32x4::<0x88>(a, b);
            let even_high = _mm512_shuffle_i32x4::<0x88>(c, d);
            let odd_low = _mm512_shuffle_i32x4::<0xdd>(a, b);
            let odd_high = _mm512_shuffle_i32x4::<0xdd>(c, d);
            out[j] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
        }
        out
    }
}

/// Fetches a line for writing; any address will do.
#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    // SAFETY: a hint, which never faults.
    unsafe { asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags)) };
}

/// Writes `count` sums as bf16, plus `bias` where it is given.
///
/// # Safety
/// AVX-512 with bf16; `count` values at every pointer.
#[inline(always)]
pub(super) unsafe fn store_narrow(
    sums: *const f32,
    bias: Option<*const f32>,
    count: usize,
    to: *mut bf16,
) {
    for place in (0..count).step_by(16) {
        let lanes = mask((count - place).min(16)) as u16;
        // SAFETY: absent values are masked.
        unsafe {
            let mut values = _mm512_maskz_loadu_ps(lanes, sums.add(place));
            if let Some(bias) = bias {
                values = _mm512_add_ps(values, _mm512_maskz_loadu_ps(lanes, bias.add(place)));
            }
            let narrow = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
            _mm256_mask_storeu_epi16(to.add(place).cast(), lanes, narrow);
        }
    }
}

/// Transposes a block of f32, squares in registers and the rest by values.
///
/// # Safety
/// AVX-512; whole blocks at both pointers.
#[inline(always)]
pub(super) unsafe fn transpose_block(
    from: *const f32,
    from_stride: usize,
    (rows, columns): (usize, usize),
    to: *mut f32,
    to_stride: usize,
) {
    for row in (0..rows).step_by(16) {
        for column in (0..columns).step_by(16) {
            let (height, width) = ((rows - row).min(16), (columns - column).min(16));
            // SAFETY: absent rows are not read, absent columns and lanes masked.
            unsafe {
                let mut square = [_mm512_setzero_si512(); 16];
                for (offset, vector) in square.iter_mut().enumerate().take(height) {
                    let from = from.add((row + offset) * from_stride + column);
                    *vector = _mm512_maskz_loadu_epi32(mask(width) as u16, from.cast());
                }
                for (offset, vector) in transpose(square).into_iter().enumerate().take(width) {
                    let to = to.add((column + offset) * to_stride + row);
                    _mm512_mask_storeu_epi32(to.cast(), mask(height) as u16, vector);
                }
            }
        }
    }
}
