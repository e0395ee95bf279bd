//! The CPU backend against the f64 reference: every op, alone and
//! differentiated, in each precision and on each instruction set.

#[allow(dead_code)] // Each test file uses a part.
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use common::program::Case;
use common::rows::{KEY, table};
use modgrad_compute::Isa;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::Executor;
use modgrad_graph::gradient::differentiate;
use modgrad_graph::reference::{Array, run};
use modgrad_graph::storage::Precision;
use modgrad_graph::{DType, Error, Op, Tensor};

/// The precisions, and how far a result may be from the reference: the norm of
/// the difference over the norm of the result.
const PRECISIONS: [(Precision, f64); 2] = [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)];

/// As [`compare_with_cpu`]; a panic is one more way to fail.
fn failures_on(case: &Case, cpu: &Cpu, precision: Precision, tolerance: f64) -> Vec<String> {
    let compare = || compare_with_cpu(case, cpu, precision, tolerance);
    catch_unwind(AssertUnwindSafe(compare)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map_or("", String::as_str);
        vec![format!("panicked: {message}")]
    })
}

/// Runs all outputs of `case` twice over the same buffers, and returns in words
/// where one is not within `tolerance`.
fn compare_with_cpu(case: &Case, cpu: &Cpu, precision: Precision, tolerance: f64) -> Vec<String> {
    let program = &case.program;
    let expected = run(program, &case.inputs, &case.parameters, KEY).expect("the reference runs");
    let names: Vec<&str> = case.outputs.iter().map(String::as_str).collect();
    let mut executor = match Executor::new(cpu.clone(), program, &names, precision) {
        Ok(executor) => executor,
        Err(error) => return vec![format!("not prepared: {error}")],
    };
    let parameters = tensors(&case.parameters, program.parameters(), case);
    for (name, tensor) in &parameters {
        executor.set_parameter(name, tensor.into()).expect("a parameter");
    }
    let inputs = tensors(&case.inputs, program.inputs(), case);
    let views: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor.into())).collect();
    let mut failures = Vec::new();
    for _ in 0..2 {
        if let Err(error) = executor.run(&views, KEY) {
            return vec![format!("not run: {error}")];
        }
        for &name in &names {
            let value = program.output(name).expect("an output");
            let output = executor.output(name).expect("an output");
            if output.spec() != *program.spec(value) {
                failures.push(format!("`{name}` is {}", output.spec()));
                continue;
            }
            let difference = difference(&Array::from(&output), &expected[value]);
            let allowed = if output.dtype() == DType::F32 { tolerance } else { 0.0 };
            if difference.is_nan() || difference > allowed {
                failures.push(format!("`{name}` {} is off by {difference:e}", output.spec()));
            }
        }
    }
    failures
}

/// Given arrays as tensors of the type that the program wants.
fn tensors<'a>(
    arrays: &BTreeMap<String, Array>,
    wanted: impl Iterator<Item = (&'a str, usize)>,
    case: &Case,
) -> Vec<(&'a str, Tensor)> {
    wanted
        .map(|(name, value)| {
            let dtype = case.program.spec(value).dtype;
            (name, arrays[name].to_tensor(dtype).expect("operands are of their type"))
        })
        .collect()
}

/// ‖x − expected‖ over ‖expected‖, or over that of elements of a thousandth:
/// what cancels to nearly nothing has no digits to compare. A loss is a sum of
/// terms near 1 that cancel, so it counts as a tenth at least.
fn difference(x: &Array, expected: &Array) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut x.data.iter().zip(&expected.data).map(|(x, y)| x - y));
    let each = if expected.shape.is_empty() { 0.1 } else { 1e-3 };
    let floor = each * (expected.data.len() as f64).sqrt();
    let scale = norm(&mut expected.data.iter().copied()).max(floor);
    if off == 0.0 { 0.0 } else { off / scale }
}

/// Every row by itself, on one thread and on three.
#[test]
fn rows_agree_with_the_reference() {
    let mut failures = Vec::new();
    for threads in [1, 3] {
        let cpu = Cpu::new(threads);
        for (precision, tolerance) in PRECISIONS {
            for row in table() {
                for failure in failures_on(&row.case(), &cpu, precision, tolerance) {
                    failures
                        .push(format!("{precision:?}, {threads} threads, {}: {failure}", row.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The results go on to an op that reads bf16, so that in bf16 they are rounded
/// where their op can write bf16.
#[test]
fn rows_agree_when_their_results_are_stored_as_bf16() {
    let mut failures = Vec::new();
    let cpu = Cpu::new(2);
    for row in table() {
        let mut case = row.case();
        for name in std::mem::take(&mut case.outputs) {
            let value = case.program.output(&name).unwrap();
            if case.program.spec(value).dtype == DType::F32 {
                let op = Op::Affine { scale: -0.5, offset: 0.0 };
                let half = case.program.apply(op, &[value]).unwrap();
                case.set_output(&format!("half of {name}"), half);
            }
        }
        if case.outputs.is_empty() {
            continue;
        }
        for (precision, tolerance) in PRECISIONS {
            for failure in failures_on(&case, &cpu, precision, tolerance) {
                failures.push(format!("{precision:?}, {}: {failure}", row.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Each row with a loss and the gradients of all its operands, so that buffers
/// are shared and gradient rules meet the planner.
#[test]
fn differentiated_rows_agree_with_the_reference() {
    let mut failures = Vec::new();
    let cpu = Cpu::new(2);
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        let mut case = row.case_with_loss();
        let loss = case.program.output("loss").unwrap();
        let inputs = case.program.inputs();
        let (names, values): (Vec<String>, Vec<usize>) = inputs
            .filter(|(_, value)| case.program.spec(*value).dtype == DType::F32)
            .map(|(name, value)| (format!("gradient of {name}"), value))
            .unzip();
        let gradients = differentiate(&mut case.program, loss, &values).unwrap();
        for (name, gradient) in names.iter().zip(gradients) {
            if let Some(gradient) = gradient {
                case.set_output(name, gradient);
            }
        }
        for (precision, tolerance) in PRECISIONS {
            for failure in failures_on(&case, &cpu, precision, tolerance) {
                failures.push(format!("{precision:?}, {}: {failure}", row.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// An instruction set is chosen once a process, so each has one of its own.
#[test]
fn every_instruction_set_agrees_with_the_reference() {
    let this_test = std::env::current_exe().unwrap();
    for isa in Isa::ALL.into_iter().filter(|&isa| isa <= Isa::detect()) {
        let output = Command::new(&this_test)
            .args(["--exact", "rows_agree_with_the_reference"])
            .args(["rows_agree_when_their_results_are_stored_as_bf16"])
            .args(["differentiated_rows_agree_with_the_reference"])
            .env("MODGRAD_ISA", isa.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on {}:\n{said}", isa.name());
        assert!(said.contains("3 passed"), "on {}:\n{said}", isa.name());
    }
}

/// An index that is too large, and one that is negative. Gradient ops are left
/// out: they take the indices that their forward ops have accepted.
#[test]
fn an_index_outside_its_axis_is_an_error_of_the_run() {
    let mut refused = BTreeSet::new();
    let cpu = Cpu::new(2);
    for row in table() {
        let takes_indices = matches!(
            row.op,
            Op::Embedding | Op::EmbeddingBag | Op::Gather { .. } | Op::CrossEntropy
        );
        if !takes_indices || row.operands[1].array.data.is_empty() {
            continue;
        }
        let dtype = row.operands[1].dtype;
        let too_small = (dtype == DType::I32).then_some(-1.0);
        for bad in [200.0].into_iter().chain(too_small) {
            let mut case = row.case();
            let indices = case.inputs.get_mut("x1").unwrap();
            *indices.data.last_mut().unwrap() = bad;
            let reference = run(&case.program, &case.inputs, &case.parameters, KEY);
            assert!(reference.is_err(), "{}", row.name);
            let error = run_once(&case, &cpu).expect_err(&row.name).to_string();
            assert!(error.contains(&bad.to_string()), "{}: {error}", row.name);
            refused.insert(row.op.name());
        }
    }
    assert_eq!(refused.len(), 4, "{refused:?}");
}

fn run_once(case: &Case, cpu: &Cpu) -> Result<(), Error> {
    let names: Vec<&str> = case.outputs.iter().map(String::as_str).collect();
    let mut executor = Executor::new(cpu.clone(), &case.program, &names, Precision::F32)?;
    let inputs = tensors(&case.inputs, case.program.inputs(), case);
    let views: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor.into())).collect();
    executor.run(&views, KEY)
}
