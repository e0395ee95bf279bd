//! Every op, row by row: its shapes, its gradient rule and its kernels against
//! the f64 reference.

use std::collections::BTreeSet;

use modgrad_graph::gradient::differentiate;
use modgrad_graph::reference::{Array, check_gradients, evaluate, run};
use modgrad_graph::{DType, Error, Op, Program, ValueId};
use modgrad_testing::rows::{KEY, table};

/// Ops without a row: every row's program is made of them.
const LEAVES: [&str; 2] = ["input", "parameter"];

/// The names of all ops, as the reader of programs knows them.
fn all_names() -> BTreeSet<String> {
    let unknown = serde_json::json!({ "op": "no_such_op" });
    let message = serde_json::from_value::<Op>(unknown).unwrap_err().to_string();
    let (_, list) = message.split_once("expected one of").expect("serde lists the variants");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_op_has_a_row_under_the_name_it_is_read_by() {
    let names: BTreeSet<String> = table().iter().map(|row| row.op.name().to_owned()).collect();
    let mut expected = all_names();
    assert!(expected.len() > 40, "{expected:?}");
    LEAVES.iter().for_each(|leaf| assert!(expected.remove(*leaf)));
    assert_eq!(names, expected);
    for row in table() {
        assert_eq!(serde_json::to_value(&row.op).unwrap()["op"], row.op.name());
    }
}

#[test]
fn the_shape_rule_says_what_the_reference_returns() {
    for row in table() {
        let case = row.case();
        let arrays: Vec<_> = row.operands.iter().map(|operand| &operand.array).collect();
        let outputs =
            evaluate(&row.op, &arrays, KEY).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(outputs.len(), case.program.outputs().len(), "{}", row.name);
        for (index, output) in outputs.iter().enumerate() {
            let spec = case.program.spec(case.program.output(&format!("y{index}")).unwrap());
            assert_eq!(spec.shape, output.shape, "output {index} of {}", row.name);
            assert_eq!(spec.elements(), output.data.len(), "output {index} of {}", row.name);
            assert!(output.data.iter().all(|x| x.is_finite()), "output {index} of {}", row.name);
            output
                .to_tensor(spec.dtype)
                .unwrap_or_else(|error| panic!("output {index} of {}: {error}", row.name));
        }
    }
}

#[test]
fn gradient_rules_agree_with_differences() {
    const EPSILON: f64 = 1e-5;
    const MOST_ELEMENTS: usize = 24;
    const TOLERANCE: f64 = 1e-6;
    let mut failures = Vec::new();
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        let case = row.case_with_loss();
        let checks = check_gradients(
            &case.program,
            "loss",
            &case.inputs,
            &case.parameters,
            KEY,
            EPSILON,
            MOST_ELEMENTS,
        );
        match checks {
            Err(error) => failures.push(format!("{}: {error}", row.name)),
            Ok(checks) => failures.extend(
                checks
                    .iter()
                    .filter(|check| check.worst_relative_error > TOLERANCE)
                    .map(|check| format!("{}: {check:?}", row.name)),
            ),
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// A rule may leave out what is not wanted, but nothing else changes.
#[test]
fn an_operand_has_the_same_gradient_alone_and_among_all() {
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        let case = row.case_with_loss();
        let loss = case.program.output("loss").unwrap();
        let inputs = case.program.inputs().map(|(_, value)| value);
        let floats: Vec<_> =
            inputs.filter(|&value| case.program.spec(value).dtype == DType::F32).collect();
        let gradients = |wanted: &[ValueId]| -> Vec<Option<Array>> {
            let mut program = case.program.clone();
            let found = differentiate(&mut program, loss, wanted).unwrap();
            let values = run(&program, &case.inputs, &case.parameters, KEY).unwrap();
            found.into_iter().map(|value| value.map(|value| values[value].clone())).collect()
        };
        let all = gradients(&floats);
        for (value, expected) in floats.iter().zip(all) {
            assert!(expected.is_some(), "value {value} of {}", row.name);
            assert_eq!(gradients(&[*value]), [expected], "value {value} of {}", row.name);
        }
    }
}

/// Statistics that an op saves for its gradient are no part of a loss.
#[test]
fn a_loss_through_saved_statistics_is_refused() {
    let mut refused = BTreeSet::new();
    for mut row in table() {
        let saved: &[usize] = match row.op {
            Op::RmsNorm { .. } | Op::CausalAttention { .. } => &[1],
            Op::LayerNorm { .. } => &[1, 2],
            Op::Think { .. } => &[2, 3, 4, 5],
            Op::SpatialThink { kept, .. } if kept > 0 => &[1, 2, 3],
            _ => continue,
        };
        for &output in saved {
            row.differentiable = vec![output];
            let mut case = row.case_with_loss();
            let loss = case.program.output("loss").unwrap();
            let inputs: Vec<_> = case.program.inputs().map(|(_, value)| value).collect();
            let result = differentiate(&mut case.program, loss, &inputs);
            let is_refused = matches!(result, Err(Error::NotDifferentiable { .. }));
            assert!(is_refused, "{}: {result:?}", row.name);
            refused.insert(row.op.name());
        }
    }
    assert_eq!(refused.len(), 5);
}

#[test]
fn every_row_survives_being_written_and_read() {
    for row in table() {
        let program = row.case().program;
        let read = Program::from_json(&program.to_json());
        assert_eq!(read.as_ref(), Ok(&program), "{}", row.name);
    }
}
