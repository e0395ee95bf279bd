//! The vectors of AVX2, AVX-512 and its bf16 dot products, and their kernels.

use super::blocks::{self, Layout};
use super::driver::{self, Task};
use super::kernel::{Block, Kernel, Left, Vector, multiply, vector_kernel};
use super::pack::{self, Operand};
use std::arch::x86_64::*;
use std::mem::transmute;

#[derive(Clone, Copy)]
struct Avx2(__m256);

impl Vector for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    const VECTORS: usize = 3;
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2.
        Avx2(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Avx2(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Avx2(unsafe { _mm256_broadcast_ss(&*from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn multiply_add(self, left: Self, right: Self) -> Self {
        // SAFETY: the caller has FMA.
        Avx2(unsafe { _mm256_fmadd_ps(left.0, right.0, self.0) })
    }

    #[inline(always)]
    unsafe fn pack_right(right: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { pack::panel::<false, 24>(right, count, inner, round, out) }
    }

    #[inline(always)]
    unsafe fn pack_left(left: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { pack::panel::<false, 4>(left, count, inner, round, out) }
    }
}

vector_kernel!(Avx2F32, Avx2, 16.0, [1 2 3 4], #[target_feature(enable = "avx2,fma")]);

/// The parts of an AVX-512 vector that do not depend on the unit.
macro_rules! avx512_vector {
    ($name:ident, $pairs:literal, $multiply_add:expr) => {
        #[derive(Clone, Copy)]
        struct $name(__m512);

        impl Vector for $name {
            const LANES: usize = 16;
            const ROWS: usize = 8;
            const VECTORS: usize = 3;
            const PAIRS: bool = $pairs;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller has AVX-512.
                $name(unsafe { _mm512_setzero_ps() })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                $name(unsafe { _mm512_loadu_ps(from) })
            }

            #[inline(always)]
            unsafe fn broadcast(from: *const f32) -> Self {
                // SAFETY: the caller's promise; a pair may stand at any even address.
                $name(unsafe { _mm512_set1_ps(from.read_unaligned()) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_ps(to, self.0) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller has AVX-512.
                $name(unsafe { _mm512_add_ps(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn multiply_add(self, left: Self, right: Self) -> Self {
                // SAFETY: the caller has AVX-512, with bf16 where units are pairs.
                $name(unsafe { $multiply_add(self.0, left.0, right.0) })
            }

            #[inline(always)]
            fn prefetch(line: *const u8) {
                blocks::prefetch(line);
            }

            #[inline(always)]
            unsafe fn pack_right(
                right: Operand,
                count: usize,
                inner: usize,
                round: bool,
                out: *mut u32,
            ) {
                let layout = Layout {
                    groups: 3,
                    group_offset: 16,
                    step_offset: 16 * 48,
                    stride: 48,
                    by_unit: true,
                    whole: false,
                };
                // SAFETY: the caller's promise.
                unsafe { blocks::pack::<$pairs>(right, count, inner, round, layout, out) }
            }

            #[inline(always)]
            unsafe fn pack_left(
                left: Operand,
                count: usize,
                inner: usize,
                round: bool,
                out: *mut u32,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    if left.index_stride == 1 {
                        blocks::eights::<$pairs>(left, count, inner, round, out);
                    } else {
                        pack::panel::<$pairs, 8>(left, count, inner, round, out);
                    }
                }
            }

            #[inline(always)]
            unsafe fn transpose(
                from: *const f32,
                from_stride: usize,
                shape: (usize, usize),
                to: *mut f32,
                to_stride: usize,
            ) {
                // SAFETY: the caller's promise.
                unsafe { blocks::transpose_block(from, from_stride, shape, to, to_stride) }
            }
        }
    };
}

#[inline(always)]
unsafe fn fused(sum: __m512, left: __m512, right: __m512) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe { _mm512_fmadd_ps(left, right, sum) }
}

#[inline(always)]
unsafe fn dot_pairs(sum: __m512, left: __m512, right: __m512) -> __m512 {
    // SAFETY: the caller has AVX-512 bf16; the types are 512 bits of pairs.
    unsafe {
        _mm512_dpbf16_ps(
            sum,
            transmute::<__m512, __m512bh>(left),
            transmute::<__m512, __m512bh>(right),
        )
    }
}

avx512_vector!(Avx512, false, fused);
avx512_vector!(Avx512Pairs, true, dot_pairs);

vector_kernel!(Avx512F32, Avx512, 32.0, [1 2 3 4 5 6 7 8],
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
vector_kernel!(Avx512Bf16, Avx512Pairs, 64.0, [1 2 3 4 5 6 7 8],
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]);
