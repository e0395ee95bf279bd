//! Rows of tables.

use modgrad_graph::{Op, Result};

use super::indices::{index_suffix, look, sum_by_index};
use super::{Call, floats, last};
use crate::launch::{Place, index, over, suffix};
use crate::source::ROWS;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Embedding => rows(&call, 1),
        Op::EmbeddingBag => rows(&call, last(call.x[1].shape)),
        Op::EmbeddingGradient { rows, bag } => {
            let width = last(call.x[1].shape);
            sum_by_index(&call, 1, *rows, width, *bag)
        }
        _ => Err(call.missing()),
    }
}

fn rows(call: &Call<'_, '_>, bag: usize) -> Result<()> {
    let (table, indices, y) = (&call.x[0], &call.x[1], &call.out[0]);
    let ([rows, width], count) = ([table.shape[0], table.shape[1]], y.elements());
    floats(call.op, &[y.storage])?;
    if count == 0 {
        return look(call, indices, rows);
    }
    let kernel = format!("table_rows_{}_{}", index_suffix(call, indices)?, suffix(y.storage));
    let mut arguments = vec![
        table.pointer(),
        indices.pointer(),
        y.pointer(),
        index(rows),
        index(width),
        index(bag),
        index(count),
    ];
    arguments.extend(call.device.index_check(call.op.name(), rows));
    call.device.launch(&ROWS, &kernel, over(count), &arguments)
}
