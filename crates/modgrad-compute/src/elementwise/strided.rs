//! Broadcasting and strided copies: axes are merged where they are contiguous,
//! then the last one is walked by a fast loop.
//!
//! Strides are in elements; stride 0 repeats. Outputs are contiguous.

use super::{ELEMENTS_PER_THREAD, expect_length};
use crate::function::{BinaryFunction, specialise};
use crate::pool::SharedMut;
use crate::{Element, Pool, multiversion};

/// The most axes that are left after merging.
const MAX_AXES: usize = 8;
/// The side of the square blocks of a transpose: one cache line of f32.
const TILE: usize = 16;
/// The side of a block of tiles: its lines stay in the second-level cache and
/// its pages in the TLB.
const BLOCK: usize = 128;

/// One axis of an iteration over `N` operands.
#[derive(Clone, Copy, Debug)]
struct Axis<const N: usize> {
    size: usize,
    strides: [usize; N],
}

/// The axes without those of size 1, neighbours merged where all operands
/// allow it. Never empty.
fn merge_axes<const N: usize>(shape: &[usize], strides: [&[usize]; N]) -> Vec<Axis<N>> {
    let mut axes: Vec<Axis<N>> = Vec::with_capacity(shape.len().max(1));
    for (position, &size) in shape.iter().enumerate().filter(|(_, size)| **size != 1) {
        let strides = strides.map(|operand| operand[position]);
        match axes.last_mut() {
            Some(outer) if (0..N).all(|n| outer.strides[n] == strides[n] * size) => {
                *outer = Axis { size: outer.size * size, strides };
            }
            _ => axes.push(Axis { size, strides }),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, strides: [0; N] });
    }
    assert!(axes.len() <= MAX_AXES, "more than {MAX_AXES} axes after merging: {shape:?}");
    axes
}

/// A position in some axes and the offset of each operand there.
struct Walker<'a, const N: usize> {
    axes: &'a [Axis<N>],
    index: [usize; MAX_AXES],
    offsets: [usize; N],
}

impl<'a, const N: usize> Walker<'a, N> {
    /// The `flat`th position in row-major order.
    #[inline(always)]
    fn at(axes: &'a [Axis<N>], mut flat: usize) -> Self {
        let mut walker = Walker { axes, index: [0; MAX_AXES], offsets: [0; N] };
        for (position, axis) in axes.iter().enumerate().rev() {
            let index = flat % axis.size;
            flat /= axis.size;
            walker.index[position] = index;
            for n in 0..N {
                walker.offsets[n] += index * axis.strides[n];
            }
        }
        walker
    }

    /// On to the next position; after the last comes the first.
    #[inline(always)]
    fn advance(&mut self) {
        for (position, axis) in self.axes.iter().enumerate().rev() {
            self.index[position] += 1;
            for n in 0..N {
                self.offsets[n] += axis.strides[n];
            }
            if self.index[position] < axis.size {
                return;
            }
            self.index[position] = 0;
            for n in 0..N {
                self.offsets[n] -= axis.size * axis.strides[n];
            }
        }
    }
}

/// Panics where the strided view reaches beyond its slice.
#[track_caller]
fn expect_reach(
    operation: &str,
    operand: &str,
    length: usize,
    shape: &[usize],
    strides: &[usize],
    offset: usize,
) {
    assert!(
        strides.len() == shape.len(),
        "`{operation}`: `{operand}` has {} strides for {} axes",
        strides.len(),
        shape.len()
    );
    let last =
        shape.iter().zip(strides).fold(offset, |sum, (size, stride)| sum + (size - 1) * stride);
    assert!(
        last < length,
        "`{operation}`: the view of `{operand}` reaches element {last} of {length}"
    );
}

/// out = function(x, y) over `shape`, each operand with its own strides.
pub fn binary_broadcast(
    pool: &Pool,
    function: BinaryFunction,
    x: &[f32],
    x_strides: &[usize],
    y: &[f32],
    y_strides: &[usize],
    shape: &[usize],
    out: &mut [f32],
) {
    expect_length("binary_broadcast", "out", out.len(), shape.iter().product());
    if out.is_empty() {
        return;
    }
    expect_reach("binary_broadcast", "x", x.len(), shape, x_strides, 0);
    expect_reach("binary_broadcast", "y", y.len(), shape, y_strides, 0);
    let axes = merge_axes(shape, [x_strides, y_strides]);
    pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
        broadcast_range(function, x, y, &axes, first, out);
    });
}

multiversion! {
    fn broadcast_range(
        function: BinaryFunction,
        x: &[f32],
        y: &[f32],
        axes: &[Axis<2>],
        first: usize,
        out: &mut [f32],
    ) {
        let (last, outer) = axes.split_last().expect("axes are never empty");
        let mut walker = Walker::at(outer, first / last.size);
        let mut start = first % last.size;
        let mut rest = out;
        specialise!(BinaryFunction, function, FUNCTION => {
            while !rest.is_empty() {
                let run = (last.size - start).min(rest.len());
                let (out, after) = rest.split_at_mut(run);
                let [x_stride, y_stride] = last.strides;
                let x = &x[walker.offsets[0] + start * x_stride..];
                let y = &y[walker.offsets[1] + start * y_stride..];
                match last.strides {
                    [1, 1] => {
                        for ((out, x), y) in out.iter_mut().zip(&x[..run]).zip(&y[..run]) {
                            *out = FUNCTION.value(*x, *y);
                        }
                    }
                    [1, 0] => {
                        let y = y[0];
                        for (out, x) in out.iter_mut().zip(&x[..run]) {
                            *out = FUNCTION.value(*x, y);
                        }
                    }
                    [0, 1] => {
                        let x = x[0];
                        for (out, y) in out.iter_mut().zip(&y[..run]) {
                            *out = FUNCTION.value(x, *y);
                        }
                    }
                    _ => {
                        for (i, out) in out.iter_mut().enumerate() {
                            *out = FUNCTION.value(x[i * x_stride], y[i * y_stride]);
                        }
                    }
                }
                rest = after;
                start = 0;
                walker.advance();
            }
        })
    }
}

/// out[index] = x[x_offset + index · x_strides] over `shape`: any transpose,
/// slice or broadcast, into contiguous `out`.
pub fn copy_strided<X: Element, O: Element>(
    pool: &Pool,
    x: &[X],
    x_strides: &[usize],
    x_offset: usize,
    shape: &[usize],
    out: &mut [O],
) {
    expect_length("copy_strided", "out", out.len(), shape.iter().product());
    if out.is_empty() {
        return;
    }
    expect_reach("copy_strided", "x", x.len(), shape, x_strides, x_offset);
    let x = &x[x_offset..];
    let axes = merge_axes(shape, [x_strides]);
    let (last, outer) = axes.split_last().expect("axes are never empty");
    let contiguous = outer.iter().rposition(|axis| axis.strides == [1]);
    match contiguous {
        Some(axis) if last.strides[0] > 1 && last.size > 1 => {
            transpose(pool, x, &axes, axis, out);
        }
        _ => pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
            copy_range(x, &axes, first, out);
        }),
    }
}

multiversion! {
    fn copy_range[X: Element, O: Element](x: &[X], axes: &[Axis<1>], first: usize, out: &mut [O]) {
        let (last, outer) = axes.split_last().expect("axes are never empty");
        let mut walker = Walker::at(outer, first / last.size);
        let mut start = first % last.size;
        let mut rest = out;
        while !rest.is_empty() {
            let run = (last.size - start).min(rest.len());
            let (out, after) = rest.split_at_mut(run);
            let stride = last.strides[0];
            let x = &x[walker.offsets[0] + start * stride..];
            match stride {
                1 => {
                    for (out, x) in out.iter_mut().zip(&x[..run]) {
                        *out = O::from_f32(x.to_f32());
                    }
                }
                0 => out.fill(O::from_f32(x[0].to_f32())),
                _ => {
                    for (out, x) in out.iter_mut().zip(x.iter().step_by(stride)) {
                        *out = O::from_f32(x.to_f32());
                    }
                }
            }
            rest = after;
            start = 0;
            walker.advance();
        }
    }
}

/// The case where another axis than the last is contiguous in `x`: square
/// blocks over the two, so that both sides are touched in whole cache lines
/// and few pages at a time.
fn transpose<X: Element, O: Element>(
    pool: &Pool,
    x: &[X],
    axes: &[Axis<1>],
    contiguous: usize,
    out: &mut [O],
) {
    // The strides of `out`, and the axes outside the two.
    let mut placed: Vec<Axis<2>> = Vec::with_capacity(axes.len());
    let mut stride = 1;
    for axis in axes.iter().rev() {
        placed.push(Axis { size: axis.size, strides: [axis.strides[0], stride] });
        stride *= axis.size;
    }
    placed.reverse();
    let across = placed.pop().expect("a transpose has two axes");
    let along = placed.remove(contiguous);
    let blocks = [along, across].map(|axis| axis.size.div_ceil(BLOCK));
    let per_position = blocks[0] * blocks[1];
    let units = placed.iter().map(|axis| axis.size).product::<usize>() * per_position;
    let out = SharedMut::new(out);
    pool.for_ranges(units, 1, |range| {
        for unit in range {
            let [from, to] = Walker::at(&placed, unit / per_position).offsets;
            let row = unit % per_position / blocks[1] * BLOCK;
            let column = unit % blocks[1] * BLOCK;
            let block = Block {
                x: &x[from + row + column * across.strides[0]..],
                x_stride: across.strides[0],
                rows: BLOCK.min(along.size - row),
                columns: BLOCK.min(across.size - column),
                start: to + row * along.strides[1] + column,
                pitch: along.strides[1],
            };
            transpose_block(block, &out);
        }
    });
}

/// A part of a transpose: element j of row i is `x[i + j * x_stride]`, and
/// goes to `out[start + i * pitch + j]`.
struct Block<'a, X> {
    x: &'a [X],
    x_stride: usize,
    rows: usize,
    columns: usize,
    start: usize,
    pitch: usize,
}

multiversion! {
    fn transpose_block[X: Element, O: Element](block: Block<X>, out: &SharedMut<O>) {
        for row in (0..block.rows).step_by(TILE) {
            let rows = TILE.min(block.rows - row);
            for column in (0..block.columns).step_by(TILE) {
                let columns = TILE.min(block.columns - column);
                transpose_tile(&block, row, rows, column, columns, out);
            }
        }
    }
}

#[inline(always)]
fn transpose_tile<X: Element, O: Element>(
    block: &Block<X>,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    out: &SharedMut<O>,
) {
    let mut tile = [[0.0f32; TILE]; TILE];
    for (index, values) in tile[..columns].iter_mut().enumerate() {
        let x = &block.x[row + (column + index) * block.x_stride..][..rows];
        for (value, x) in values.iter_mut().zip(x) {
            *value = x.to_f32();
        }
    }
    for index in 0..rows {
        let start = block.start + (row + index) * block.pitch + column;
        // SAFETY: each block is visited once in a region, and the blocks of
        // one transpose write disjoint parts of rows.
        let out = unsafe { out.slice(start..start + columns) };
        for (out, values) in out.iter_mut().zip(&tile) {
            *out = O::from_f32(values[index]);
        }
    }
}
