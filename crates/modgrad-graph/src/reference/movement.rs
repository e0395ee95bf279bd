//! Ops that only move elements, and the sums that undo them.

use super::Array;
use crate::error::Result;

pub(super) fn transpose(permutation: &[usize], x: &Array) -> Array {
    let shape: Vec<usize> = permutation.iter().map(|&axis| x.shape[axis]).collect();
    Array::from_fn(&shape, |index| {
        let mut source = vec![0; index.len()];
        for (&axis, &i) in permutation.iter().zip(index) {
            source[axis] = i;
        }
        x.at(&source)
    })
}

pub(super) fn broadcast_to(shape: &[usize], x: &Array) -> Array {
    Array::from_fn(shape, |index| x.at(&broadcast_index(index, &x.shape)))
}

/// The index into an operand of `shape` that `index` of a broadcast result
/// reads: axes are aligned at the last, and an axis of size 1 repeats.
pub(super) fn broadcast_index(index: &[usize], shape: &[usize]) -> Vec<usize> {
    let aligned = &index[index.len() - shape.len()..];
    aligned.iter().zip(shape).map(|(&i, &size)| if size == 1 { 0 } else { i }).collect()
}

/// `index` with the index of one axis replaced.
fn replaced(index: &[usize], axis: usize, by: &[usize]) -> Vec<usize> {
    [&index[..axis], by, &index[axis + 1..]].concat()
}

pub(super) fn slice(axis: usize, start: usize, end: usize, step: usize, x: &Array) -> Array {
    let taken: Vec<usize> = (start..end).step_by(step).collect();
    Array::from_fn(&replaced(&x.shape, axis, &[taken.len()]), |index| {
        x.at(&replaced(index, axis, &[taken[index[axis]]]))
    })
}

pub(super) fn slice_gradient(
    axis: usize,
    start: usize,
    step: usize,
    size: usize,
    dy: &Array,
) -> Array {
    let mut dx = Array::zeros(&replaced(&dy.shape, axis, &[size]));
    Array::from_fn(&dy.shape, |index| {
        *dx.at_mut(&replaced(index, axis, &[start + index[axis] * step])) = dy.at(index);
        0.0
    });
    dx
}

pub(super) fn concat(axis: usize, operands: &[&Array]) -> Array {
    let total = operands.iter().map(|operand| operand.shape[axis]).sum();
    Array::from_fn(&replaced(&operands[0].shape, axis, &[total]), |index| {
        let mut i = index[axis];
        for operand in operands {
            if i < operand.shape[axis] {
                return operand.at(&replaced(index, axis, &[i]));
            }
            i -= operand.shape[axis];
        }
        unreachable!("the sizes along the axis add up to {total}")
    })
}

pub(super) fn gather(axis: usize, x: &Array, indices: &Array) -> Result<Array> {
    let indices = Positions::new(indices, x.shape[axis], "gather")?;
    let end = axis + indices.shape.len();
    Ok(Array::from_fn(&replaced(&x.shape, axis, indices.shape), |index| {
        let i = indices.at(&index[axis..end]);
        x.at(&[&index[..axis], &[i], &index[end..]].concat())
    }))
}

pub(super) fn gather_gradient(
    axis: usize,
    size: usize,
    indices: &Array,
    dy: &Array,
) -> Result<Array> {
    let indices = Positions::new(indices, size, "gather_gradient")?;
    let end = axis + indices.shape.len();
    let mut dx = Array::zeros(&[&dy.shape[..axis], &[size], &dy.shape[end..]].concat());
    Array::from_fn(&dy.shape, |index| {
        let i = indices.at(&index[axis..end]);
        *dx.at_mut(&[&index[..axis], &[i], &index[end..]].concat()) += dy.at(index);
        0.0
    });
    Ok(dx)
}

/// Indices that have been seen to lie in their axis.
struct Positions<'a> {
    shape: &'a [usize],
    array: &'a Array,
}

impl<'a> Positions<'a> {
    fn new(array: &'a Array, size: usize, op: &'static str) -> Result<Self> {
        (0..array.data.len()).try_for_each(|i| array.index_at(i, size, op).map(drop))?;
        Ok(Positions { shape: &array.shape, array })
    }

    fn at(&self, index: &[usize]) -> usize {
        self.array.at(index) as usize
    }
}

/// y[:, t] = x[:, t − amount], zeros outside.
pub(super) fn shift(amount: isize, x: &Array) -> Array {
    Array::from_fn(&x.shape, |index| {
        let source = index[1] as i128 - amount as i128;
        if source < 0 || source >= x.shape[1] as i128 {
            return 0.0;
        }
        x.at(&replaced(index, 1, &[source as usize]))
    })
}
