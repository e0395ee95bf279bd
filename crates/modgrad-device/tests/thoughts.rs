//! Thoughts and what belongs to them, beside the op table: the same bits again, and pairs and
//! ticks that there are not.

mod common;

use common::device;
use modgrad_graph::backend::Backend;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::Executor;
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use modgrad_graph::{Op, Program, Result, Tensor};
use modgrad_testing::rows::{Row, table};

/// All outputs of a row's op, with one element of an operand in another's place.
fn outcome<B: Backend>(backend: B, row: &Row, change: Option<(usize, f64)>) -> Result<Vec<Tensor>> {
    let mut program = Program::new();
    let (mut names, mut tensors, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (at, operand) in row.operands.iter().enumerate() {
        let (name, mut array) = (format!("x{at}"), operand.array.clone());
        if let Some((_, value)) = change.filter(|(changed, _)| *changed == at) {
            *array.data.last_mut().unwrap() = value;
        }
        let (shape, dtype) = (array.shape.clone(), operand.dtype);
        let input = Op::Input { name: name.clone(), shape, dtype };
        values.push(program.apply(input, &[]).unwrap());
        tensors.push(array.to_tensor(dtype).unwrap());
        names.push(name);
    }
    let outputs = program.push(row.op.clone(), &values).unwrap();
    let named: Vec<String> = (0..outputs.len()).map(|at| format!("y{at}")).collect();
    for (name, output) in named.iter().zip(outputs) {
        program.set_output(name, output).unwrap();
    }
    let wanted: Vec<&str> = named.iter().map(String::as_str).collect();
    let mut executor = Executor::new(backend, &program, &wanted, Precision::F32)?;
    let views: Vec<_> =
        names.iter().map(String::as_str).zip(tensors.iter().map(Into::into)).collect();
    executor.run(&views, RunKey { seed: 0, step: 0 })?;
    wanted.iter().map(|name| executor.output(name)).collect()
}

#[test]
fn thoughts_repeat_to_the_bit() {
    let device = device();
    let of_thought = |row: &Row| {
        matches!(
            row.op,
            Op::SynchronisationGradient
                | Op::Think { .. }
                | Op::ThinkGradient { .. }
                | Op::SpatialThink { .. }
                | Op::SpatialThinkGradient { .. }
        )
    };
    for row in table().iter().filter(|row| of_thought(row)) {
        let first = outcome(device.clone(), row, None).unwrap();
        // Blocks and threads of other launches now run in the opposite order.
        assert_eq!(first, outcome(device.clone(), row, None).unwrap(), "{}", row.name);
    }
}

#[test]
fn pairs_and_ticks_that_there_are_not_are_the_same_error_as_on_the_cpu() {
    let device = device();
    for row in table() {
        let (operands, bound) = match row.op {
            Op::Synchronisation | Op::SynchronisationGradient => {
                (vec![2, 3], row.operands[1].array.shape[2])
            }
            Op::Think { .. } | Op::ThinkGradient { .. } => {
                (vec![4, 5], row.operands[3].array.shape[1])
            }
            Op::SpatialThink { ticks, .. } | Op::SpatialThinkGradient { ticks, .. } => {
                (vec![6], ticks + 1)
            }
            _ => continue,
        };
        for operand in operands {
            let given = row.operands.get(operand);
            if given.is_none_or(|given| given.array.data.is_empty()) {
                continue;
            }
            for wrong in [bound as f64, -1.0] {
                let change = Some((operand, wrong));
                let theirs = outcome(Cpu::new(1), &row, change).unwrap_err();
                let ours = outcome(device.clone(), &row, change);
                assert_eq!(ours.unwrap_err(), theirs, "{}, operand {operand}", row.name);
            }
        }
    }
}
