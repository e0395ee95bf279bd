//! The table: at least one row for each op, with operands of odd, empty and
//! single sizes.

mod elementwise;
mod embeddings;
mod linear;
mod memory;
mod movement;
mod normalisation;
mod sequences;
mod spatial;
mod thought;

use modgrad_graph::Op;
use modgrad_graph::reference::{Array, RunKey, evaluate};

use super::random::{Operand, Random};

/// The key that rows are run with; it matters to dropout only.
pub const KEY: RunKey = RunKey { seed: 11, step: 3 };

/// An op on operands.
pub struct Row {
    pub name: String,
    pub op: Op,
    pub operands: Vec<Operand>,
    /// Which outputs a loss may depend on; none for gradient and integer ops.
    pub differentiable: Vec<usize>,
}

/// Collects rows, each with randomness of its own.
pub struct Table {
    pub rows: Vec<Row>,
    random: Random,
}

impl Table {
    /// A row whose first output is differentiable.
    fn add(&mut self, op: Op, operands: Vec<Operand>) {
        self.add_with(op, operands, &[0]);
    }

    /// A row of which no output is differentiable.
    fn add_fixed(&mut self, op: Op, operands: Vec<Operand>) {
        self.add_with(op, operands, &[]);
    }

    fn add_with(&mut self, op: Op, operands: Vec<Operand>, differentiable: &[usize]) {
        let shapes: Vec<_> = operands.iter().map(|operand| &operand.array.shape).collect();
        let name = format!("row {}: {op:?} on {shapes:?}", self.rows.len());
        self.rows.push(Row { name, op, operands, differentiable: differentiable.to_vec() });
    }
}

/// Every row.
pub fn table() -> Vec<Row> {
    let mut table = Table { rows: Vec::new(), random: Random(1) };
    elementwise::add_to(&mut table);
    movement::add_to(&mut table);
    linear::add_to(&mut table);
    normalisation::add_to(&mut table);
    embeddings::add_to(&mut table);
    memory::add_to(&mut table);
    sequences::add_to(&mut table);
    thought::add_to(&mut table);
    spatial::add_to(&mut table);
    // Drawn last, so that the rows above keep their operands.
    sequences::add_wide_heads(&mut table);
    sequences::add_recurrences(&mut table);
    table.rows
}

/// The outputs of `op` as f32 holds them, for gradient ops that take what
/// their forward op made.
fn forward(op: Op, operands: &[Operand]) -> Vec<Operand> {
    let arrays: Vec<&Array> = operands.iter().map(|operand| &operand.array).collect();
    let outputs = evaluate(&op, &arrays, KEY).unwrap();
    let rounded = |output: Array| output.map(|x| f64::from(x as f32));
    outputs.into_iter().map(|output| Operand::f32(rounded(output))).collect()
}
