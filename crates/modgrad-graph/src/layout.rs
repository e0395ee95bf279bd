//! Where the elements of row-major tensors lie.

/// [outer, axis, inner] around an axis.
pub fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Elements from one place of each axis to the next.
pub fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Strides that read `from` as if it had the shape `to`: 0 where it repeats.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let strides = contiguous_strides(from);
    let added = to.len() - from.len();
    (0..to.len())
        .map(|axis| match axis.checked_sub(added) {
            Some(own) if from[own] != 1 => strides[own],
            _ => 0,
        })
        .collect()
}
