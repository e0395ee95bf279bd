//! The vector that every machine has, and its kernel.

use super::driver::{self, Task};
use super::kernel::{Block, Kernel, Left, Vector, multiply, vector_kernel};
use super::pack::{self, Operand};

/// What the compilation target guarantees: four lanes.
#[derive(Clone, Copy)]
struct Portable([f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    const ROWS: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };
    const VECTORS: usize = 3;
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0.0; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: four values, as the caller promises.
        Portable(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        // SAFETY: one value, as the caller promises.
        Portable([unsafe { from.read() }; 4])
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four values, as the caller promises.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        for lane in 0..4 {
            self.0[lane] += other.0[lane];
        }
        self
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, left: Self, right: Self) -> Self {
        for lane in 0..4 {
            // `mul_add` is a library call where the target has no fused form.
            self.0[lane] = if cfg!(target_arch = "aarch64") {
                left.0[lane].mul_add(right.0[lane], self.0[lane])
            } else {
                left.0[lane] * right.0[lane] + self.0[lane]
            };
        }
        self
    }

    #[inline(always)]
    unsafe fn pack_right(right: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { pack::panel::<false, 12>(right, count, inner, round, out) }
    }

    #[inline(always)]
    unsafe fn pack_left(left: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        const ROWS: usize = <Portable as Vector>::ROWS;
        // SAFETY: the caller's promise.
        unsafe { pack::panel::<false, ROWS>(left, count, inner, round, out) }
    }
}

vector_kernel!(PortableF32, Portable, 4.0, [1 2 3 4 5 6 7 8],);
