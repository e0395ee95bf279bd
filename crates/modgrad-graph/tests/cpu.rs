//! The CPU backend against the f64 reference: every op, alone and
//! differentiated, in each precision and on each instruction set.

use std::collections::BTreeSet;
use std::process::Command;

use modgrad_compute::Isa;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::Executor;
use modgrad_graph::reference::run;
use modgrad_graph::storage::Precision;
use modgrad_graph::{DType, Error, Op};
use modgrad_testing::compare::{PRECISIONS, failures_on, tensors};
use modgrad_testing::program::Case;
use modgrad_testing::rows::{KEY, table};

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

#[test]
fn rows_agree_when_their_results_are_stored_as_bf16() {
    let mut failures = Vec::new();
    let cpu = Cpu::new(2);
    for row in table() {
        let case = row.case_stored_as_bf16();
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

#[test]
fn differentiated_rows_agree_with_the_reference() {
    let mut failures = Vec::new();
    let cpu = Cpu::new(2);
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        let case = row.case_with_gradients();
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
