//! Functions of each element on its own; [`strided`] has those that also
//! rearrange. One pass over memory, no temporaries.

mod dropout;
mod strided;

pub use dropout::{dropout, dropout_keeps};
pub use strided::{binary_broadcast, copy_strided};

use crate::function::{BinaryFunction, UnaryFunction, specialise};
use crate::{Element, Pool, multiversion};

/// The fewest elements that are worth a thread: a few microseconds of work.
pub(crate) const ELEMENTS_PER_THREAD: usize = 8192;

/// [`ELEMENTS_PER_THREAD`] in rows.
pub(crate) fn rows_per_thread(row_length: usize) -> usize {
    ELEMENTS_PER_THREAD.div_ceil(row_length.max(1))
}

/// Panics with the names and lengths of the operands where they disagree.
#[track_caller]
pub(crate) fn expect_length(operation: &str, operand: &str, found: usize, expected: usize) {
    assert!(
        found == expected,
        "`{operation}`: `{operand}` has {found} elements, expected {expected}"
    );
}

/// Panics where an operand is not a whole number of rows.
#[track_caller]
pub(crate) fn expect_whole_rows(operation: &str, operand: &str, found: usize, row: usize) {
    assert!(
        found.checked_rem(row).unwrap_or(found) == 0,
        "`{operation}`: `{operand}` has {found} elements, expected a multiple of {row}"
    );
}

/// y = function(x).
pub fn unary<X: Element, Y: Element>(pool: &Pool, function: UnaryFunction, x: &[X], y: &mut [Y]) {
    expect_length("unary", "y", y.len(), x.len());
    pool.for_rows(y, 1, ELEMENTS_PER_THREAD, |first, y| {
        unary_range(function, &x[first..first + y.len()], y);
    });
}

multiversion! {
    fn unary_range[X: Element, Y: Element](function: UnaryFunction, x: &[X], y: &mut [Y]) {
        specialise!(UnaryFunction, function, FUNCTION => {
            for (y, x) in y.iter_mut().zip(x) {
                *y = Y::from_f32(FUNCTION.value(x.to_f32()));
            }
        })
    }
}

/// dx = dy * function'(x).
pub fn unary_gradient<X: Element, D: Element, G: Element>(
    pool: &Pool,
    function: UnaryFunction,
    x: &[X],
    dy: &[D],
    dx: &mut [G],
) {
    expect_length("unary_gradient", "dy", dy.len(), x.len());
    expect_length("unary_gradient", "dx", dx.len(), x.len());
    pool.for_rows(dx, 1, ELEMENTS_PER_THREAD, |first, dx| {
        let range = first..first + dx.len();
        unary_gradient_range(function, &x[range.clone()], &dy[range], dx);
    });
}

multiversion! {
    fn unary_gradient_range[X: Element, D: Element, G: Element](
        function: UnaryFunction,
        x: &[X],
        dy: &[D],
        dx: &mut [G],
    ) {
        specialise!(UnaryFunction, function, FUNCTION => {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = G::from_f32(dy.to_f32() * FUNCTION.derivative(x.to_f32()));
            }
        })
    }
}

/// out = function(x, y), all of one length.
pub fn binary<X: Element, Y: Element, O: Element>(
    pool: &Pool,
    function: BinaryFunction,
    x: &[X],
    y: &[Y],
    out: &mut [O],
) {
    expect_length("binary", "y", y.len(), x.len());
    expect_length("binary", "out", out.len(), x.len());
    pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
        let range = first..first + out.len();
        binary_range(function, &x[range.clone()], &y[range], out);
    });
}

multiversion! {
    fn binary_range[X: Element, Y: Element, O: Element](
        function: BinaryFunction,
        x: &[X],
        y: &[Y],
        out: &mut [O],
    ) {
        specialise!(BinaryFunction, function, FUNCTION => {
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                *out = O::from_f32(FUNCTION.value(x.to_f32(), y.to_f32()));
            }
        })
    }
}

/// out = scale * x + offset.
pub fn affine<X: Element, O: Element>(
    pool: &Pool,
    scale: f32,
    offset: f32,
    x: &[X],
    out: &mut [O],
) {
    expect_length("affine", "out", out.len(), x.len());
    pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
        affine_range(scale, offset, &x[first..first + out.len()], out);
    });
}

multiversion! {
    fn affine_range[X: Element, O: Element](scale: f32, offset: f32, x: &[X], out: &mut [O]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = O::from_f32(scale * x.to_f32() + offset);
        }
    }
}

/// into += x.
pub fn accumulate(pool: &Pool, x: &[f32], into: &mut [f32]) {
    expect_length("accumulate", "into", into.len(), x.len());
    pool.for_rows(into, 1, ELEMENTS_PER_THREAD, |first, into| {
        accumulate_range(&x[first..first + into.len()], into);
    });
}

multiversion! {
    fn accumulate_range(x: &[f32], into: &mut [f32]) {
        for (into, x) in into.iter_mut().zip(x) {
            *into += x;
        }
    }
}

/// out = x in the storage type of `out`.
pub fn convert<X: Element, O: Element>(pool: &Pool, x: &[X], out: &mut [O]) {
    expect_length("convert", "out", out.len(), x.len());
    pool.for_rows(out, 1, ELEMENTS_PER_THREAD, |first, out| {
        convert_range(&x[first..first + out.len()], out);
    });
}

multiversion! {
    fn convert_range[X: Element, O: Element](x: &[X], out: &mut [O]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = O::from_f32(x.to_f32());
        }
    }
}

#[cfg(test)]
mod tests;
