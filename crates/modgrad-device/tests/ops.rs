//! The op table on the emulated device, or on the one that `MODGRAD_TEST_DEVICE` names: every
//! op, alone, with results in bf16, and differentiated, in each precision, against the f64
//! reference.

mod common;

use common::device;
use modgrad_testing::compare::{PRECISIONS, failures_on};
use modgrad_testing::rows::table;

fn report(failures: &[String]) {
    let shown: Vec<&str> = failures.iter().map(String::as_str).take(40).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn rows_agree_with_the_reference() {
    let device = device();
    let mut wrong = Vec::new();
    for (precision, tolerance) in PRECISIONS {
        for row in table() {
            let found = failures_on(&row.case(), &device, precision, tolerance);
            wrong.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    report(&wrong);
}

#[test]
fn rows_agree_when_their_results_are_stored_as_bf16() {
    let device = device();
    let mut wrong = Vec::new();
    for row in table() {
        let case = row.case_stored_as_bf16();
        if case.outputs.is_empty() {
            continue;
        }
        for (precision, tolerance) in PRECISIONS {
            let found = failures_on(&case, &device, precision, tolerance);
            wrong.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    report(&wrong);
}

#[test]
fn differentiated_rows_agree_with_the_reference() {
    let device = device();
    let mut wrong = Vec::new();
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        let case = row.case_with_gradients();
        for (precision, tolerance) in PRECISIONS {
            let found = failures_on(&case, &device, precision, tolerance);
            wrong.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    report(&wrong);
}
