//! Rows of tables, looked up and summed.

use super::Array;
use crate::error::Result;

pub(super) fn embedding(table: &Array, indices: &Array) -> Result<Array> {
    let mut y = Array::zeros(&[&indices.shape[..], &[table.width()]].concat());
    for position in 0..indices.data.len() {
        let index = indices.index_at(position, table.shape[0], "embedding")?;
        y.row_mut(position).copy_from_slice(table.row(index));
    }
    Ok(y)
}

/// The sum of the rows that the last axis of `indices` names.
pub(super) fn embedding_bag(table: &Array, indices: &Array) -> Result<Array> {
    let bag = indices.width();
    let mut y = Array::zeros(&[indices.leading(), &[table.width()]].concat());
    for position in 0..indices.data.len() {
        let index = indices.index_at(position, table.shape[0], "embedding_bag")?;
        add(y.row_mut(position / bag), table.row(index));
    }
    Ok(y)
}

/// dtable[indices[i]] += dy[i / bag].
pub(super) fn embedding_gradient(
    rows: usize,
    bag: usize,
    indices: &Array,
    dy: &Array,
) -> Result<Array> {
    let mut dtable = Array::zeros(&[rows, dy.width()]);
    for position in 0..indices.data.len() {
        let index = indices.index_at(position, rows, "embedding_gradient")?;
        add(dtable.row_mut(index), dy.row(position / bag));
    }
    Ok(dtable)
}

fn add(sum: &mut [f64], row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
}
