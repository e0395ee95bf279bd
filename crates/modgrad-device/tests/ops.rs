//! The op table on the emulated device, or on the one that `MODGRAD_TEST_DEVICE` names: every
//! op, alone, with results in bf16, and differentiated, in each precision, against the f64
//! reference.

mod common;

use std::collections::BTreeSet;

use common::device;
use modgrad_device::Device;
use modgrad_graph::storage::Precision;
use modgrad_testing::compare::{PRECISIONS, failures_on};
use modgrad_testing::program::Case;
use modgrad_testing::rows::table;

/// Ops that the device does not have yet. One that it has must not stand here.
const MISSING: &[&str] = &[
    // thought
    "think",
    "think_gradient",
    // spatial
    "spatial_think",
    "spatial_think_gradient",
];

/// The failures of a case, without those that say that a missing op is missing.
fn failures(case: &Case, device: &Device, precision: Precision, tolerance: f64) -> Vec<String> {
    let mut failures = failures_on(case, device, precision, tolerance);
    failures.retain(|failure| !MISSING.iter().any(|op| says_missing(failure, op)));
    failures
}

fn says_missing(failure: &str, op: &str) -> bool {
    failure.contains(&format!("`{op}` is not yet on the device"))
}

fn report(failures: &[String]) {
    let shown: Vec<&str> = failures.iter().map(String::as_str).take(40).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn rows_agree_with_the_reference() {
    let device = device();
    let mut wrong = Vec::new();
    let mut passed = BTreeSet::new();
    for (precision, tolerance) in PRECISIONS {
        for row in table() {
            let found = failures_on(&row.case(), &device, precision, tolerance);
            if found.is_empty() {
                passed.insert(row.op.name());
            }
            let listed = MISSING.contains(&row.op.name());
            if listed && found.iter().all(|failure| says_missing(failure, row.op.name())) {
                continue;
            }
            wrong.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    for op in MISSING.iter().filter(|op| passed.contains(*op)) {
        wrong.push(format!("`{op}` passes on a row: take it off the list MISSING"));
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
            let found = failures(&case, &device, precision, tolerance);
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
            let found = failures(&case, &device, precision, tolerance);
            wrong.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    report(&wrong);
}
