//! The kernel for bf16 tiles: 32 x 32 of C in four tiles, 32 elements of the
//! inner dimension at a step.
//!
//! The left operand is read where it lies when it is bf16 and contiguous along
//! the inner dimension; otherwise, and for the right operand, whole tiles of
//! 1 KiB are packed: `[step][half][16][16 units]`.

use super::blocks::{self, Layout};
use super::driver::{self, Task};
use super::kernel::{Block, Kernel, Left};
use super::pack::Operand;
use crate::bf16;
use std::arch::asm;

pub(super) struct Amx;

/// Tiles as they follow each other in a packed panel of 32.
const LAYOUT: Layout = Layout {
    groups: 2,
    group_offset: 256,
    step_offset: 512,
    stride: 16,
    by_unit: true,
    whole: true,
};

/// The operand of `ldtilecfg`: every tile has 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The product of some of the tiles: each line of assembly is given where it
/// is needed for two row tiles (`rows`) or two column tiles (`columns`).
macro_rules! tiles {
    ($left:ident, $right:ident, $steps:ident, $block:ident,
        zero [$($zero:literal)*] load [$($load:literal)*] step [$($step:literal)*]
        store [$($store:literal)*]) => {
        asm!(
            "test {add}, {add}",
            "jnz 3f",
            $($zero,)*
            "jmp 2f",
            "3:",
            $($load,)*
            "2:",
            $($step,)*
            "add {a0}, {advance}",
            "add {a1}, {advance}",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            $($store,)*
            add = in(reg) $block.add as usize,
            a0 = inout(reg) $left.pointer => _,
            a1 = inout(reg) $left.pointer.wrapping_add(
                if $left.packed { 1024 } else { 16 * $left.row_stride }) => _,
            stride = in(reg) $left.row_stride,
            advance = in(reg) if $left.packed { 2048usize } else { 64 },
            b = inout(reg) $right => _,
            line = in(reg) 64usize,
            steps = inout(reg) $steps => _,
            c0 = in(reg) $block.pointer,
            c1 = in(reg) $block.pointer.wrapping_add(16 * $block.stride),
            c_stride = in(reg) 4 * $block.stride,
            options(nostack),
        )
    };
}

impl Amx {
    /// One thread's part of a task.
    ///
    /// # Safety
    /// The machine must have bf16 tiles, permitted by the system.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn work(task: &Task, thread: usize) {
        // SAFETY: the caller's promise.
        unsafe { driver::work::<Amx>(task, thread) }
    }
}

impl Kernel for Amx {
    const ROWS: usize = 32;
    const COLUMNS: usize = 32;
    const PAIRS: bool = true;
    const UNIT_MULTIPLE: usize = 16;
    const ROW_MULTIPLE: usize = 16;
    const COLUMN_MULTIPLE: usize = 16;
    const BLOCK_UNITS: usize = 192;
    /// A tile's.
    const LEFT_TURN_UNITS: usize = 16;
    const PRODUCTS_PER_CYCLE: f64 = 512.0;

    #[inline(always)]
    unsafe fn begin() {
        // SAFETY: reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
        }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: gives up the tile state, which `begin` set up.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }

    #[inline(always)]
    fn direct(left: &Operand, rows: usize, inner: usize, _round: bool) -> bool {
        left.narrow && left.inner_stride == 1 && rows.is_multiple_of(16) && inner.is_multiple_of(32)
    }

    #[inline(always)]
    unsafe fn pack_left(left: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        let layout = Layout { by_unit: false, ..LAYOUT };
        // SAFETY: the caller's promise.
        unsafe { blocks::pack::<true>(left, count, inner, round, layout, out) }
    }

    #[inline(always)]
    fn packed_left(_left: &Operand, _inner: usize, out: *const u32) -> Left {
        Left { pointer: out.cast(), row_stride: 64, packed: true }
    }

    #[inline(always)]
    unsafe fn pack_right(right: Operand, count: usize, inner: usize, round: bool, out: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { blocks::pack::<true>(right, count, inner, round, LAYOUT, out) }
    }

    #[inline(always)]
    unsafe fn multiply(left: Left, right: *const u32, units: usize, block: Block) {
        let steps = units / 16;
        debug_assert!(steps > 0 && units.is_multiple_of(16));
        // SAFETY: whole tiles at every pointer, as the caller promises.
        unsafe {
            match (block.rows > 16, block.columns > 16) {
                (true, true) => tiles!(left, right, steps, block,
                    zero ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"]
                    load ["tileloadd tmm0, [{c0} + {c_stride}]"
                        "tileloadd tmm1, [{c0} + {c_stride} + 64]"
                        "tileloadd tmm2, [{c1} + {c_stride}]"
                        "tileloadd tmm3, [{c1} + {c_stride} + 64]"]
                    step ["tileloadd tmm4, [{a0} + {stride}]"
                        "tileloadd tmm6, [{b} + {line}]"
                        "tileloadd tmm7, [{b} + {line} + 1024]"
                        "tdpbf16ps tmm0, tmm4, tmm6"
                        "tileloadd tmm5, [{a1} + {stride}]"
                        "tdpbf16ps tmm1, tmm4, tmm7"
                        "tdpbf16ps tmm2, tmm5, tmm6"
                        "tdpbf16ps tmm3, tmm5, tmm7"]
                    store ["tilestored [{c0} + {c_stride}], tmm0"
                        "tilestored [{c0} + {c_stride} + 64], tmm1"
                        "tilestored [{c1} + {c_stride}], tmm2"
                        "tilestored [{c1} + {c_stride} + 64], tmm3"]),
                (false, true) => tiles!(left, right, steps, block,
                    zero ["tilezero tmm0" "tilezero tmm1"]
                    load ["tileloadd tmm0, [{c0} + {c_stride}]"
                        "tileloadd tmm1, [{c0} + {c_stride} + 64]"]
                    step ["tileloadd tmm4, [{a0} + {stride}]"
                        "tileloadd tmm6, [{b} + {line}]"
                        "tileloadd tmm7, [{b} + {line} + 1024]"
                        "tdpbf16ps tmm0, tmm4, tmm6"
                        "tdpbf16ps tmm1, tmm4, tmm7"]
                    store ["tilestored [{c0} + {c_stride}], tmm0"
                        "tilestored [{c0} + {c_stride} + 64], tmm1"
                        "/* {c1} */"]),
                (true, false) => tiles!(left, right, steps, block,
                    zero ["tilezero tmm0" "tilezero tmm2"]
                    load ["tileloadd tmm0, [{c0} + {c_stride}]"
                        "tileloadd tmm2, [{c1} + {c_stride}]"]
                    step ["tileloadd tmm4, [{a0} + {stride}]"
                        "tileloadd tmm6, [{b} + {line}]"
                        "tileloadd tmm5, [{a1} + {stride}]"
                        "tdpbf16ps tmm0, tmm4, tmm6"
                        "tdpbf16ps tmm2, tmm5, tmm6"]
                    store ["tilestored [{c0} + {c_stride}], tmm0"
                        "tilestored [{c1} + {c_stride}], tmm2"]),
                (false, false) => tiles!(left, right, steps, block,
                    zero ["tilezero tmm0"]
                    load ["tileloadd tmm0, [{c0} + {c_stride}]"]
                    step ["tileloadd tmm4, [{a0} + {stride}]"
                        "tileloadd tmm6, [{b} + {line}]"
                        "tdpbf16ps tmm0, tmm4, tmm6"]
                    store ["tilestored [{c0} + {c_stride}], tmm0"
                        "/* {c1} */"]),
            }
        }
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        blocks::prefetch(line);
    }

    #[inline(always)]
    unsafe fn store_narrow(
        sums: *const f32,
        bias: Option<*const f32>,
        count: usize,
        to: *mut bf16,
    ) {
        // SAFETY: the caller's promise.
        unsafe { blocks::store_narrow(sums, bias, count, to) }
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
