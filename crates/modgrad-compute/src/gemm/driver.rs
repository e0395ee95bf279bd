//! Blocking: what a thread packs, in which order it multiplies panels, and how
//! sums reach the output.
//!
//! An element of C is one chain of sums: what is there (where the product is
//! accumulated, else zero), the inner dimension in rising order in blocks whose
//! size depends on the inner dimension alone, then the bias. The chain is the
//! same in every path below; only where the sums wait in between differs.

use super::kernel::{Block, Kernel, Left};
use super::plan::{Plan, Problem};
use crate::bf16;
use crate::pool::share;
use std::cell::Cell;
use std::ops::Range;

/// Units of packed right panels that stay in the second-level cache: 1 MiB.
const CACHED_UNITS: usize = 1 << 18;
/// Units of the inner dimension that are packed at a time; C is f32 meanwhile.
const INNER_UNITS: usize = 2048;
/// Units of left panels that are packed at once: 512 KiB.
const GROUP_UNITS: usize = 1 << 17;
/// Units of a right panel that are packed before the next panel's turn, where
/// that reads memory in order.
const TURN_UNITS: usize = 16;
/// Units of packed left panels that are kept for the next columns: 16 MiB.
const KEPT_UNITS: usize = 1 << 22;

/// The output, row-major.
#[derive(Clone, Copy)]
pub(super) enum Target {
    F32(*mut f32),
    Bf16(*mut bf16),
}

/// One product, as the threads see it.
pub(super) struct Task<'a> {
    /// After the plan's exchange.
    pub problem: Problem,
    pub target: Target,
    /// Columns of C.
    pub target_stride: usize,
    pub accumulate: bool,
    pub bias: Option<&'a [f32]>,
    pub plan: Plan,
}

// SAFETY: threads read the operands and write disjoint parts of the target,
// all of which outlive the region.
unsafe impl Sync for Task<'_> {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Memory that a thread keeps from one product to the next.
#[derive(Default)]
struct Scratch {
    left: Vec<Line>,
    right: Vec<Line>,
    sums: Vec<Line>,
    turned: Vec<Line>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch { left: vec![], right: vec![], sums: vec![], turned: vec![] })
    };
}

fn room(buffer: &mut Vec<Line>, units: usize) -> *mut u32 {
    if buffer.len() * 16 < units {
        buffer.resize(units.div_ceil(16), Line([0; 16]));
    }
    buffer.as_mut_ptr().cast()
}

/// A part of the product: some rows and columns, and a stretch of the inner
/// dimension that is packed at once.
struct Stretch {
    rows: Range<usize>,
    columns: Range<usize>,
    inner: Range<usize>,
    /// Units of a packed panel.
    units: usize,
}

/// Thread `thread`'s part of `task`.
///
/// # Safety
/// The machine must have the kernel's instruction set, the task's pointers
/// must hold what its sizes say.
#[inline(always)]
pub(super) unsafe fn work<K: Kernel>(task: &Task, thread: usize) {
    let (down, across) = task.plan.grid;
    if thread >= down * across {
        return;
    }
    let rows = share(task.problem.rows, K::ROWS, thread / across, down);
    let columns = share(task.problem.columns, K::COLUMNS, thread % across, across);
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    let mut scratch = SCRATCH.take();
    // Narrow sums cannot wait in C for the next stretch.
    let per_unit = if K::PAIRS { 2 } else { 1 };
    let longest = match task.target {
        Target::F32(_) => INNER_UNITS * per_unit,
        Target::Bf16(_) => task.problem.inner,
    };
    // SAFETY: the caller's promise.
    unsafe {
        K::begin();
        for start in (0..task.problem.inner).step_by(longest) {
            let inner = start..task.problem.inner.min(start + longest);
            let units = inner.len().div_ceil(per_unit).next_multiple_of(K::UNIT_MULTIPLE);
            let panels = (CACHED_UNITS / (units * K::COLUMNS)).max(1);
            // Blocks of columns of about the same width.
            let width = {
                let whole = columns.len().div_ceil(K::COLUMNS);
                whole.div_ceil(whole.div_ceil(panels)) * K::COLUMNS
            };
            let rows_kept =
                columns.len() > width && rows.len().next_multiple_of(K::ROWS) * units <= KEPT_UNITS;
            for first in columns.clone().step_by(width) {
                let stretch = Stretch {
                    rows: rows.clone(),
                    columns: first..columns.end.min(first + width),
                    inner: inner.clone(),
                    units,
                };
                let packed = rows_kept && first > columns.start;
                multiply::<K>(task, &stretch, rows_kept, packed, &mut scratch);
            }
        }
        K::end();
    }
    SCRATCH.set(scratch);
}

/// # Safety
/// As for `work`.
#[inline(always)]
unsafe fn multiply<K: Kernel>(
    task: &Task,
    stretch: &Stretch,
    keep: bool,
    kept: bool,
    scratch: &mut Scratch,
) {
    let per_unit = if K::PAIRS { 2 } else { 1 };
    let Stretch { rows, columns, inner, units } = stretch;
    let units = *units;
    let width = columns.len().next_multiple_of(K::COLUMNS);
    // Blocks of about the same length.
    let block_units =
        units.div_ceil(units.div_ceil(K::BLOCK_UNITS)).next_multiple_of(K::UNIT_MULTIPLE);
    // A left operand that is contiguous across rows is packed many rows at a
    // time, for the sake of whole cache lines and few streams.
    let across = task.problem.left.inner_stride != 1 && task.problem.left.index_stride == 1;
    let group = if across { (GROUP_UNITS / (K::ROWS * units)).max(1) } else { 1 };
    let left_panels = if keep { rows.len().div_ceil(K::ROWS) } else { group };
    let packed_right = room(&mut scratch.right, width * units);
    let packed_left = room(&mut scratch.left, left_panels * K::ROWS * units);
    let sums = room(&mut scratch.sums, width * K::ROWS).cast::<f32>();
    let turned = room(&mut scratch.turned, K::COLUMNS * K::ROWS).cast::<f32>();
    let add_first = task.accumulate || inner.start > 0;
    let last = inner.end == task.problem.inner;
    // SAFETY: every panel, block and range is inside what was reserved above
    // or inside the operands and the target, by construction.
    unsafe {
        pack_right::<K>(task, stretch, packed_right);
        for (row_panel, row) in rows.clone().step_by(K::ROWS).enumerate() {
            let height = (rows.end - row).min(K::ROWS);
            let slot = if keep { row_panel } else { row_panel % group };
            if across && !kept && row_panel % group == 0 {
                let end = rows.end.min(row + group * K::ROWS);
                let out = packed_left.add(slot * K::ROWS * units);
                pack_left_across::<K>(task, row..end, stretch, out);
            }
            for unit in (0..units).step_by(block_units) {
                let from = inner.start + unit * per_unit;
                let steps = (inner.end - from).min(block_units * per_unit);
                let here = (units - unit).min(block_units);
                let operand = task.problem.left.at(row, from);
                let left = if K::direct(&operand, height, steps, task.problem.round) {
                    Left {
                        pointer: operand.pointer,
                        row_stride: operand.size() * operand.index_stride,
                        packed: false,
                    }
                } else {
                    let out = packed_left.add(slot * K::ROWS * units + unit * K::ROWS);
                    if !kept && !across {
                        K::pack_left(operand, height, steps, task.problem.round, out);
                    }
                    K::packed_left(&operand, steps, out)
                };
                let (opening, closing) = (unit == 0, unit + here == units);
                for (panel, column) in columns.clone().step_by(K::COLUMNS).enumerate() {
                    let count = (columns.end - column).min(K::COLUMNS);
                    let right = packed_right.add((panel * units + unit) * K::COLUMNS);
                    let whole = height.is_multiple_of(K::ROW_MULTIPLE)
                        && count.is_multiple_of(K::COLUMN_MULTIPLE);
                    let place = Place { row, column, rows: height, columns: count };
                    let mut block = Block {
                        pointer: sums.add(panel * K::COLUMNS),
                        stride: width,
                        rows: height,
                        columns: count,
                        add: add_first || !opening,
                    };
                    let in_place = match task.target {
                        Target::F32(target) if whole && !task.plan.exchanged => {
                            block.pointer = target.add(row * task.target_stride + column);
                            block.stride = task.target_stride;
                            true
                        }
                        _ => false,
                    };
                    if opening && add_first && !in_place {
                        place.read::<K>(task, block);
                    }
                    if closing {
                        place.prefetch::<K>(task);
                    }
                    K::multiply(left, right, here, block);
                    if closing && !in_place {
                        place.write::<K>(task, block, last, turned);
                    } else if closing && last && task.bias.is_some() {
                        place.add_bias(task, block);
                    }
                }
            }
        }
    }
}

/// Packs the columns of a stretch, in the order in which they lie in memory.
///
/// # Safety
/// As for `work`; `out` must have room for whole panels.
#[inline(always)]
unsafe fn pack_right<K: Kernel>(task: &Task, stretch: &Stretch, out: *mut u32) {
    let Stretch { columns, inner, units, .. } = stretch;
    let per_unit = if K::PAIRS { 2 } else { 1 };
    let across = task.problem.right.inner_stride != 1;
    let turn = if across { TURN_UNITS } else { *units };
    for unit in (0..*units).step_by(turn) {
        let from = inner.start + unit * per_unit;
        let steps = (inner.end - from).min(turn * per_unit);
        for (panel, column) in columns.clone().step_by(K::COLUMNS).enumerate() {
            let count = (columns.end - column).min(K::COLUMNS);
            let operand = task.problem.right.at(column, from);
            // SAFETY: the caller's promise; a panel's units follow each other.
            unsafe {
                let out = out.add((panel * units + unit) * K::COLUMNS);
                K::pack_right(operand, count, steps, task.problem.round, out);
            }
        }
    }
}

/// Packs rows that are contiguous across the inner dimension.
///
/// # Safety
/// As for `pack_right`.
#[inline(always)]
unsafe fn pack_left_across<K: Kernel>(
    task: &Task,
    rows: Range<usize>,
    stretch: &Stretch,
    out: *mut u32,
) {
    let Stretch { inner, units, .. } = stretch;
    let per_unit = if K::PAIRS { 2 } else { 1 };
    for unit in (0..*units).step_by(K::LEFT_TURN_UNITS) {
        let from = inner.start + unit * per_unit;
        let steps = (inner.end - from).min(K::LEFT_TURN_UNITS * per_unit);
        for (panel, row) in rows.clone().step_by(K::ROWS).enumerate() {
            let count = (rows.end - row).min(K::ROWS);
            let operand = task.problem.left.at(row, from);
            // SAFETY: the caller's promise; a panel's units follow each other.
            unsafe {
                let out = out.add((panel * units + unit) * K::ROWS);
                K::pack_left(operand, count, steps, task.problem.round, out);
            }
        }
    }
}

/// Where a block of sums belongs, in the plan's rows and columns.
struct Place {
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

impl Place {
    /// Asks for the lines that `write` or the kernel will fill.
    #[inline(always)]
    fn prefetch<K: Kernel>(&self, task: &Task) {
        let Place { mut row, mut column, mut rows, mut columns } = *self;
        if task.plan.exchanged {
            (row, column, rows, columns) = (column, row, columns, rows);
        }
        let (base, size) = match task.target {
            Target::F32(target) => (target.cast::<u8>(), 4),
            Target::Bf16(target) => (target.cast::<u8>(), 2),
        };
        for row in row..row + rows {
            let first = base.wrapping_add(size * (row * task.target_stride + column));
            for line in (0..size * columns).step_by(64) {
                K::prefetch(first.wrapping_add(line));
            }
        }
    }

    /// The sums that are already in C.
    #[inline(always)]
    unsafe fn read<K: Kernel>(&self, task: &Task, block: Block) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let (mut down, mut across) = (self.row + row, self.column + column);
                if task.plan.exchanged {
                    (down, across) = (across, down);
                }
                let at = down * task.target_stride + across;
                // SAFETY: inside C and the block.
                unsafe {
                    *block.pointer.add(row * block.stride + column) = match task.target {
                        Target::F32(target) => *target.add(at),
                        Target::Bf16(target) => (*target.add(at)).to_f32(),
                    };
                }
            }
        }
    }

    /// Rounds the sums into C, with the bias where they are final.
    #[inline(always)]
    unsafe fn write<K: Kernel>(&self, task: &Task, block: Block, last: bool, turned: *mut f32) {
        let Place { row, column, rows, columns } = *self;
        let (row, column, rows, columns, from, stride) = if task.plan.exchanged {
            // SAFETY: `turned` holds a whole block.
            unsafe {
                K::transpose(block.pointer, block.stride, (rows, columns), turned, K::ROWS);
            }
            (column, row, columns, rows, turned.cast_const(), K::ROWS)
        } else {
            (row, column, rows, columns, block.pointer.cast_const(), block.stride)
        };
        let bias = if last { task.bias } else { None };
        let bias = bias.map(|bias| &bias[column..column + columns]);
        for offset in 0..rows {
            let at = (row + offset) * task.target_stride + column;
            // SAFETY: inside the sums and this thread's part of C.
            unsafe {
                let sums = std::slice::from_raw_parts(from.add(offset * stride), columns);
                match task.target {
                    Target::F32(target) => store(sums, bias, target.add(at)),
                    Target::Bf16(target) => {
                        let bias = bias.map(<[f32]>::as_ptr);
                        K::store_narrow(sums.as_ptr(), bias, columns, target.add(at));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_bias(&self, task: &Task, block: Block) {
        let Some(bias) = task.bias else { return };
        for row in 0..self.rows {
            for (column, bias) in bias[self.column..][..self.columns].iter().enumerate() {
                // SAFETY: inside the block.
                unsafe { *block.pointer.add(row * block.stride + column) += bias };
            }
        }
    }
}

/// Writes one row of sums.
///
/// # Safety
/// `to` must hold as many elements as `sums`.
#[inline(always)]
unsafe fn store(sums: &[f32], bias: Option<&[f32]>, to: *mut f32) {
    // SAFETY: the caller's promise.
    let to = unsafe { std::slice::from_raw_parts_mut(to, sums.len()) };
    match bias {
        Some(bias) => {
            for ((to, sum), bias) in to.iter_mut().zip(sums).zip(bias) {
                *to = sum + bias;
            }
        }
        None => to.copy_from_slice(sums),
    }
}
