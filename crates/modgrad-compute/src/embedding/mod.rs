//! Table look-ups and their gradients. Large tables are bound by memory
//! latency, so rows are prefetched a few look-ups ahead.
//!
//! [`SparseGradient`] holds the gradient of a table too large to hold densely.

mod sparse;

pub use crate::softmax::Index;
pub use sparse::SparseGradient;

use crate::elementwise::{expect_length, rows_per_thread};
use crate::pool::SharedMut;
use crate::{Element, Pool, multiversion};

/// Tables above this many bytes are not expected in the second-level cache.
const CACHED_BYTES: usize = 1 << 20;
/// How many look-ups ahead a row is fetched.
pub(crate) const LOOKUPS_AHEAD: usize = 8;
/// Columns that a bag is summed over at once, on the stack.
const STRIPE: usize = 256;

/// out[i] = table[indices[i]], rows of `d`.
pub fn embedding<I: Index, O: Element>(
    pool: &Pool,
    table: &[f32],
    d: usize,
    indices: &[I],
    out: &mut [O],
) {
    embedding_bag(pool, table, d, indices, 1, out);
}

/// out[i] = the sum of the rows of `table` that `indices[i * bag..][..bag]`
/// name, in their order.
pub fn embedding_bag<I: Index, O: Element>(
    pool: &Pool,
    table: &[f32],
    d: usize,
    indices: &[I],
    bag: usize,
    out: &mut [O],
) {
    expect_bags("embedding_bag", "out", indices.len(), bag, d, out.len());
    expect_rows("embedding_bag", indices, table.len().checked_div(d).unwrap_or(0));
    pool.for_rows(out, d, rows_per_thread(d * bag), |first, out| {
        let rows = first..first + out.len() / d;
        embedding_rows(table, d, &indices[rows.start * bag..rows.end * bag], bag, out);
    });
}

multiversion! {
    fn embedding_rows[I: Index, O: Element](
        table: &[f32],
        d: usize,
        indices: &[I],
        bag: usize,
        out: &mut [O],
    ) {
        let far = size_of_val(table) > CACHED_BYTES;
        for (position, out) in out.chunks_exact_mut(d).enumerate() {
            let bag = position * bag..(position + 1) * bag;
            if far {
                for ahead in bag.clone() {
                    if let Some(index) = indices.get(ahead + LOOKUPS_AHEAD) {
                        prefetch(&table[index.to_usize() * d..][..d]);
                    }
                }
            }
            if let [index] = indices[bag.clone()] {
                for (out, x) in out.iter_mut().zip(&table[index.to_usize() * d..][..d]) {
                    *out = O::from_f32(*x);
                }
                continue;
            }
            let mut sums = [0.0f32; STRIPE];
            for (stripe, out) in out.chunks_mut(STRIPE).enumerate() {
                let sums = &mut sums[..out.len()];
                sums.fill(0.0);
                for index in &indices[bag.clone()] {
                    let row = &table[index.to_usize() * d + stripe * STRIPE..][..out.len()];
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += x;
                    }
                }
                for (out, sum) in out.iter_mut().zip(&*sums) {
                    *out = O::from_f32(*sum);
                }
            }
        }
    }
}

/// dtable[r] += the sum of `dy` over the bags that hold r, in their order.
///
/// Each thread owns a stripe of columns or, where the rows are too short for
/// that, every n-th row. Either way an element is summed in the order of the
/// indices, so the threads do not show in the result.
pub fn embedding_gradient<I: Index, D: Element>(
    pool: &Pool,
    indices: &[I],
    bag: usize,
    dy: &[D],
    d: usize,
    dtable: &mut [f32],
) {
    /// The narrowest stripe: two cache lines of the table.
    const NARROWEST: usize = 32;
    expect_bags("embedding_gradient", "dy", indices.len(), bag, d, dy.len());
    expect_rows("embedding_gradient", indices, dtable.len().checked_div(d).unwrap_or(0));
    let small = indices.len() * d <= crate::elementwise::ELEMENTS_PER_THREAD;
    let threads = if small { 1 } else { pool.threads() };
    let far = size_of_val(dtable) > CACHED_BYTES;
    let dtable = SharedMut::new(dtable);
    if threads == 1 || d >= NARROWEST * threads {
        pool.for_ranges(d, if threads == 1 { d } else { NARROWEST }, |columns| {
            let part = Part { columns: (columns.start, columns.end), every: 1, first: 0, far };
            add_rows(indices, bag, dy, d, part, &dtable);
        });
    } else {
        pool.run(&|thread| {
            let part = Part { columns: (0, d), every: threads, first: thread, far };
            add_rows(indices, bag, dy, d, part, &dtable);
        });
    }
}

/// The part of a table that one thread adds to: some columns of the rows
/// `first`, `first + every`, ...
#[derive(Clone, Copy)]
struct Part {
    columns: (usize, usize),
    every: usize,
    first: usize,
    /// Whether the table is worth prefetching.
    far: bool,
}

multiversion! {
    /// Adds each row of `dy` to the rows of its bag, inside `part`, which is
    /// the calling thread's alone.
    fn add_rows[I: Index, D: Element](
        indices: &[I],
        bag: usize,
        dy: &[D],
        d: usize,
        part: Part,
        dtable: &SharedMut<f32>,
    ) {
        let (start, end) = part.columns;
        // SAFETY: the rows and columns asked for below are inside the part.
        let stretch = |row: usize| unsafe { dtable.slice(row * d + start..row * d + end) };
        let owned = |row: usize| part.every == 1 || row % part.every == part.first;
        let mut ahead = indices[LOOKUPS_AHEAD.min(indices.len())..].iter();
        for (dy, bag) in dy.chunks_exact(d).zip(indices.chunks_exact(bag)) {
            let dy = &dy[start..end];
            for index in bag {
                if let Some(index) = ahead.next() && part.far && owned(index.to_usize()) {
                    prefetch(stretch(index.to_usize()));
                }
                if owned(index.to_usize()) {
                    for (sum, dy) in stretch(index.to_usize()).iter_mut().zip(dy) {
                        *sum += dy.to_f32();
                    }
                }
            }
        }
    }
}

/// Panics where `found` is not `d` elements for each bag of indices.
#[track_caller]
fn expect_bags(operation: &str, operand: &str, indices: usize, bag: usize, d: usize, found: usize) {
    assert!(bag > 0, "`{operation}`: a bag holds at least one index");
    assert!(
        indices.is_multiple_of(bag),
        "`{operation}`: {indices} indices are not whole bags of {bag}"
    );
    expect_length(operation, operand, found, indices / bag * d);
}

/// Panics where an index is not below `rows`.
#[track_caller]
fn expect_rows<I: Index>(operation: &str, indices: &[I], rows: usize) {
    if largest_index(indices) < rows || indices.is_empty() {
        return;
    }
    let outside = indices.iter().position(|index| index.to_usize() >= rows);
    let position = outside.expect("the largest index is one of them");
    // A negative index is shown as it was stored.
    let index = indices[position].to_usize() as isize;
    panic!(
        "`{operation}`: index {index} at position {position} is outside the table of {rows} rows"
    );
}

multiversion! {
    fn largest_index[I: Index](indices: &[I]) -> usize {
        let mut largest = 0;
        for index in indices {
            largest = largest.max(index.to_usize());
        }
        largest
    }
}

/// Asks the processor for the cache lines of a row.
#[inline(always)]
pub(crate) fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can observe, and
        // SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

#[cfg(test)]
mod tests;
