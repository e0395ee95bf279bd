//! Packing of operands into panels, for any storage, strides and rounding:
//! plain loops that the compiler vectorises for the set they are inlined into.

use super::{Data, Matrix};
use crate::{Element, bf16};

/// An operand seen from its outer index (a row of A or a column of B).
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub pointer: *const u8,
    /// Whether the elements are bf16.
    pub narrow: bool,
    /// From one index to the next, in elements.
    pub index_stride: usize,
    /// From one step of the inner dimension to the next, in elements.
    pub inner_stride: usize,
}

impl Operand {
    /// The rows of `matrix`.
    pub fn rows(matrix: &Matrix) -> Operand {
        let (pointer, narrow) = match matrix.data {
            Data::F32(values) => (values.as_ptr().cast(), false),
            Data::Bf16(values) => (values.as_ptr().cast(), true),
        };
        Operand {
            pointer,
            narrow,
            index_stride: matrix.row_stride,
            inner_stride: matrix.column_stride,
        }
    }

    /// Bytes of an element.
    #[inline(always)]
    pub fn size(&self) -> usize {
        if self.narrow { 2 } else { 4 }
    }

    /// The same operand from (`index`, `inner`) on.
    #[inline(always)]
    pub fn at(self, index: usize, inner: usize) -> Operand {
        let offset = self.size() * (index * self.index_stride + inner * self.inner_stride);
        Operand { pointer: self.pointer.wrapping_add(offset), ..self }
    }
}

#[inline(always)]
fn narrow<T: Element>(value: T) -> u32 {
    value.bf16_bits() as u32
}

#[inline(always)]
fn wide(value: f32, round: bool) -> u32 {
    if round { narrow(value) << 16 } else { value.to_bits() }
}

/// Packs `count` of `WIDTH` indices as `[unit][WIDTH]`, absent ones as zero.
///
/// # Safety
/// The operand must hold `count` x `inner` elements, `out` as many whole units.
#[inline(always)]
pub(super) unsafe fn panel<const PAIRS: bool, const WIDTH: usize>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    // SAFETY: the caller's promise; the element type is as `narrow` says.
    unsafe {
        if operand.narrow {
            panel_of::<bf16, PAIRS, WIDTH>(operand, count, inner, false, out);
        } else {
            panel_of::<f32, PAIRS, WIDTH>(operand, count, inner, round, out);
        }
    }
}

#[inline(always)]
unsafe fn panel_of<T: Element, const PAIRS: bool, const WIDTH: usize>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    let per_unit = if PAIRS { 2 } else { 1 };
    let units = inner.div_ceil(per_unit);
    let (across, along) = (operand.index_stride, operand.inner_stride);
    // SAFETY: only elements (index < count, step < inner) are read, as promised.
    let unit_at = |index: usize, unit: usize| unsafe {
        let from = operand.pointer.cast::<T>().add(index * across + unit * per_unit * along);
        if PAIRS {
            let second = unit * 2 + 1 < inner;
            let high = if second { narrow(*from.add(along)) } else { 0 };
            narrow(*from) | high << 16
        } else {
            wide((*from).to_f32(), round)
        }
    };
    // SAFETY: `out` holds `units` x `WIDTH`.
    unsafe {
        if count == WIDTH && across == 1 && inner.is_multiple_of(per_unit) {
            let mut from = operand.pointer.cast::<T>();
            for unit in 0..units {
                let out = out.add(unit * WIDTH);
                for index in 0..WIDTH {
                    let low = *from.add(index);
                    *out.add(index) = if PAIRS {
                        narrow(low) | narrow(*from.add(along + index)) << 16
                    } else {
                        wide(low.to_f32(), round)
                    };
                }
                from = from.wrapping_add(per_unit * along);
            }
        } else {
            for index in 0..WIDTH {
                for unit in 0..units {
                    let value = if index < count { unit_at(index, unit) } else { 0 };
                    *out.add(unit * WIDTH + index) = value;
                }
            }
        }
    }
}

/// Packs `count` rows that are contiguous along the inner dimension as
/// `[row][unit]`.
///
/// # Safety
/// As for `panel`; the inner stride must be 1.
#[inline(always)]
pub(super) unsafe fn rows<const PAIRS: bool>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    // SAFETY: the caller's promise; the element type is as `narrow` says.
    unsafe {
        if operand.narrow {
            rows_of::<bf16, PAIRS>(operand, count, inner, false, out)
        } else {
            rows_of::<f32, PAIRS>(operand, count, inner, round, out)
        }
    }
}

#[inline(always)]
unsafe fn rows_of<T: Element, const PAIRS: bool>(
    operand: Operand,
    count: usize,
    inner: usize,
    round: bool,
    out: *mut u32,
) {
    let units = if PAIRS { inner.div_ceil(2) } else { inner };
    // SAFETY: reads `count` x `inner` elements, writes `count` x `units` units.
    unsafe {
        for row in 0..count {
            let from = operand.pointer.cast::<T>().add(row * operand.index_stride);
            let out = out.add(row * units);
            if PAIRS {
                let out = out.cast::<u16>();
                for step in 0..inner {
                    *out.add(step) = (*from.add(step)).bf16_bits();
                }
                if !inner.is_multiple_of(2) {
                    *out.add(inner) = 0;
                }
            } else {
                for step in 0..inner {
                    *out.add(step) = wide((*from.add(step)).to_f32(), round);
                }
            }
        }
    }
}
