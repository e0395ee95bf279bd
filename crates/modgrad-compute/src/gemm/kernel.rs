//! What the driver asks of a kernel, and the kernel for machines with fused
//! multiply-add: one body over a small vector trait.

use super::pack::Operand;
use crate::{Element, bf16};

/// A panel of up to `Kernel::ROWS` rows of the left operand.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub pointer: *const u8,
    /// Bytes from one row to the next, where the panel is kept by rows.
    pub row_stride: usize,
    /// Whether the panel is in the order that `Kernel::pack_left` writes.
    pub packed: bool,
}

/// A block of C in f32, with room for a whole block of the kernel.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub pointer: *mut f32,
    /// Floats from one row to the next.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// Whether the product is added to what is there.
    pub add: bool,
}

/// One instruction set's way to multiply a panel of rows by a panel of columns.
///
/// The inner dimension is counted in units of 32 bits: one f32, or two bf16.
///
/// # Safety
/// Every function needs the instruction set, and pointers to whole panels.
pub(super) trait Kernel {
    /// Rows of a panel of the left operand.
    const ROWS: usize;
    /// Columns of a panel of the right operand.
    const COLUMNS: usize;
    /// Whether a unit is two bf16.
    const PAIRS: bool;
    /// Panels are padded with zeros to a multiple of so many units.
    const UNIT_MULTIPLE: usize;
    /// A block may have any multiple of this many rows,
    const ROW_MULTIPLE: usize;
    /// and of this many columns.
    const COLUMN_MULTIPLE: usize;
    /// Units that are summed before the next panel: keeps the left one in L1.
    const BLOCK_UNITS: usize;
    /// Units of a left panel that are packed before the next panel's turn, where that reads
    /// memory in order: as many rows as one set of the nearest cache holds, since rows often
    /// lie a power of two apart.
    const LEFT_TURN_UNITS: usize;
    /// Products of one cycle, about: to weigh packing against multiplying.
    const PRODUCTS_PER_CYCLE: f64;

    /// Prepares the thread.
    unsafe fn begin() {}
    /// Undoes `begin`.
    unsafe fn end() {}
    /// Whether `rows` rows over `inner` elements can be used where they are.
    fn direct(left: &Operand, rows: usize, inner: usize, round: bool) -> bool;
    /// Packs `count` rows; `left` points at the first element.
    unsafe fn pack_left(left: Operand, count: usize, inner: usize, round: bool, out: *mut u32);
    /// The panel that `pack_left` wrote to `out` for the same operand.
    fn packed_left(left: &Operand, inner: usize, out: *const u32) -> Left;
    /// Packs `count` columns; `right` points at the first element.
    unsafe fn pack_right(right: Operand, count: usize, inner: usize, round: bool, out: *mut u32);
    /// `block = left · right`, or `block += left · right`.
    unsafe fn multiply(left: Left, right: *const u32, units: usize, block: Block);
    /// `to[c * to_stride + r] = from[r * from_stride + c]`.
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        shape: (usize, usize),
        to: *mut f32,
        to_stride: usize,
    );
    /// Fetches a line of C that will be written soon.
    #[inline(always)]
    fn prefetch(_line: *const u8) {}
    /// Writes `count` sums, plus `bias` where it is given, as bf16.
    #[inline(always)]
    unsafe fn store_narrow(
        sums: *const f32,
        bias: Option<*const f32>,
        count: usize,
        to: *mut bf16,
    ) {
        for place in 0..count {
            // SAFETY: the caller promises `count` values at every pointer.
            unsafe {
                let bias = bias.map_or(0.0, |bias| *bias.add(place));
                *to.add(place) = Element::from_f32(*sums.add(place) + bias);
            }
        }
    }
}

/// A vector of units with a multiply-add.
///
/// # Safety
/// Every function needs the instruction set; pointers need `LANES` units.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Rows of a block of C held in registers.
    const ROWS: usize;
    /// Vectors that make up a row of that block.
    const VECTORS: usize;
    const PAIRS: bool;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn broadcast(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The sum of two vectors of f32.
    unsafe fn add(self, other: Self) -> Self;
    /// `self + left · right`.
    unsafe fn multiply_add(self, left: Self, right: Self) -> Self;
    /// As `Kernel::prefetch`.
    #[inline(always)]
    fn prefetch(_line: *const u8) {}
    /// As `Kernel::pack_right`.
    unsafe fn pack_right(right: Operand, count: usize, inner: usize, round: bool, out: *mut u32);
    /// Packs up to `ROWS` rows as `[unit][ROWS]`.
    unsafe fn pack_left(left: Operand, count: usize, inner: usize, round: bool, out: *mut u32);
    /// As `Kernel::transpose`.
    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        (rows, columns): (usize, usize),
        to: *mut f32,
        to_stride: usize,
    ) {
        for column in 0..columns {
            for row in 0..rows {
                // SAFETY: inside both blocks, as the caller promises.
                unsafe {
                    *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
                }
            }
        }
    }
}

/// A block of `ROWS` x (`VECTORS` vectors), summed in rising order of units.
///
/// # Safety
/// As for `Kernel::multiply`.
#[inline(always)]
pub(super) unsafe fn multiply<
    V: Vector,
    const ROWS: usize,
    const VECTORS: usize,
    const PACKED: bool,
>(
    left: Left,
    right: *const u32,
    units: usize,
    block: Block,
) {
    // SAFETY: every pointer stays inside the panels and the block.
    unsafe {
        let mut sums = [[V::zero(); VECTORS]; ROWS];
        let mut rows = [left.pointer.cast::<f32>(); ROWS];
        for (row, pointer) in rows.iter_mut().enumerate() {
            *pointer = left.pointer.add(row * left.row_stride).cast();
        }
        let mut packed = left.pointer.cast::<f32>();
        let mut right = right.cast::<f32>();
        for unit in 0..units {
            let mut columns = [V::zero(); VECTORS];
            for (vector, column) in columns.iter_mut().enumerate() {
                *column = V::load(right.add(vector * V::LANES));
            }
            for row in 0..ROWS {
                let at = if PACKED { packed.add(row) } else { rows[row].add(unit) };
                let value = V::broadcast(at);
                for vector in 0..VECTORS {
                    sums[row][vector] = sums[row][vector].multiply_add(value, columns[vector]);
                }
            }
            packed = packed.wrapping_add(V::ROWS);
            right = right.add(V::VECTORS * V::LANES);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let at = block.pointer.add(row * block.stride + vector * V::LANES);
                let sum = if block.add { V::load(at).add(sum) } else { sum };
                sum.store(at);
            }
        }
    }
}

/// Wraps the generic body for one instruction set: a `Kernel` and its `work`.
macro_rules! vector_kernel {
    ($name:ident, $vector:ty, $products:literal, [$($row:literal)*], $(#[$attribute:meta])*) => {
        pub(super) struct $name;

        impl $name {
            $(#[$attribute])*
            unsafe fn block<const ROWS: usize, const VECTORS: usize, const PACKED: bool>(
                left: Left,
                right: *const u32,
                units: usize,
                block: Block,
            ) {
                // SAFETY: the caller's promise.
                unsafe { multiply::<$vector, ROWS, VECTORS, PACKED>(left, right, units, block) }
            }

            unsafe fn rows<const VECTORS: usize, const PACKED: bool>(
                left: Left,
                right: *const u32,
                units: usize,
                block: Block,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    match block.rows {
                        $($row => Self::block::<$row, VECTORS, PACKED>(left, right, units, block),)*
                        _ => unreachable!("a block has at most `ROWS` rows"),
                    }
                }
            }

            /// One thread's part of a task.
            ///
            /// # Safety
            /// The machine must have the instruction set.
            $(#[$attribute])*
            pub(super) unsafe fn work(task: &Task, thread: usize) {
                // SAFETY: the caller's promise.
                unsafe { driver::work::<$name>(task, thread) }
            }
        }

        impl Kernel for $name {
            const ROWS: usize = <$vector>::ROWS;
            const COLUMNS: usize = <$vector>::VECTORS * <$vector>::LANES;
            const PAIRS: bool = <$vector>::PAIRS;
            const UNIT_MULTIPLE: usize = 1;
            const ROW_MULTIPLE: usize = 1;
            const COLUMN_MULTIPLE: usize = <$vector>::LANES;
            const BLOCK_UNITS: usize = 512;
            const LEFT_TURN_UNITS: usize = 4;
            const PRODUCTS_PER_CYCLE: f64 = $products;

            fn direct(left: &Operand, _rows: usize, inner: usize, round: bool) -> bool {
                left.inner_stride == 1
                    && !round
                    && left.narrow == Self::PAIRS
                    && (!Self::PAIRS || inner.is_multiple_of(2))
            }

            #[inline(always)]
            unsafe fn pack_left(
                left: Operand,
                count: usize,
                inner: usize,
                round: bool,
                out: *mut u32,
            ) {
                const PAIRS: bool = <$vector>::PAIRS;
                // SAFETY: the caller's promise.
                unsafe {
                    if left.inner_stride == 1 {
                        pack::rows::<PAIRS>(left, count, inner, round, out);
                    } else {
                        <$vector>::pack_left(left, count, inner, round, out);
                    }
                }
            }

            #[inline(always)]
            fn packed_left(left: &Operand, inner: usize, out: *const u32) -> Left {
                let packed = left.inner_stride != 1;
                let units = if Self::PAIRS { inner.div_ceil(2) } else { inner };
                Left { pointer: out.cast(), row_stride: 4 * units, packed }
            }

            #[inline(always)]
            unsafe fn pack_right(
                right: Operand,
                count: usize,
                inner: usize,
                round: bool,
                out: *mut u32,
            ) {
                // SAFETY: the caller's promise.
                unsafe { <$vector>::pack_right(right, count, inner, round, out) }
            }

            #[inline(always)]
            unsafe fn multiply(left: Left, right: *const u32, units: usize, block: Block) {
                // SAFETY: the caller's promise.
                unsafe {
                    match (block.columns.div_ceil(<$vector>::LANES), left.packed) {
                        (1, false) => Self::rows::<1, false>(left, right, units, block),
                        (2, false) => Self::rows::<2, false>(left, right, units, block),
                        (_, false) => Self::rows::<3, false>(left, right, units, block),
                        (1, true) => Self::rows::<1, true>(left, right, units, block),
                        (2, true) => Self::rows::<2, true>(left, right, units, block),
                        (_, true) => Self::rows::<3, true>(left, right, units, block),
                    }
                }
            }

            #[inline(always)]
            fn prefetch(line: *const u8) {
                <$vector>::prefetch(line);
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
                unsafe { <$vector>::transpose(from, from_stride, shape, to, to_stride) }
            }
        }
    };
}
pub(super) use vector_kernel;
