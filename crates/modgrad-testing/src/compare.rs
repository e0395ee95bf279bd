//! A backend against the f64 reference.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use modgrad_graph::backend::Backend;
use modgrad_graph::executor::Executor;
use modgrad_graph::reference::{Array, run};
use modgrad_graph::storage::Precision;
use modgrad_graph::{DType, Op, Tensor};

use crate::program::Case;
use crate::rows::{KEY, table};

/// The precisions, and how far a result may be from the reference: the norm of
/// the difference over the norm of the result.
pub const PRECISIONS: [(Precision, f64); 2] = [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)];

/// Every row whose op is `wanted`, by itself in each precision: how many there are, and what
/// is wrong in words.
pub fn table_failures<B: Backend + Clone>(
    backend: &B,
    wanted: impl Fn(&Op) -> bool,
) -> (usize, Vec<String>) {
    let mut failures = Vec::new();
    let rows: Vec<_> = table().into_iter().filter(|row| wanted(&row.op)).collect();
    for (precision, tolerance) in PRECISIONS {
        for row in &rows {
            let found = failures_on(&row.case(), backend, precision, tolerance);
            failures.extend(found.iter().map(|f| format!("{precision:?}, {}: {f}", row.name)));
        }
    }
    (rows.len(), failures)
}

/// As [`compare`]; a panic is one more way to fail.
pub fn failures_on<B: Backend + Clone>(
    case: &Case,
    backend: &B,
    precision: Precision,
    tolerance: f64,
) -> Vec<String> {
    let comparison = || compare(case, backend, precision, tolerance);
    catch_unwind(AssertUnwindSafe(comparison)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map_or("", String::as_str);
        vec![format!("panicked: {message}")]
    })
}

/// Runs all outputs of `case` twice over the same buffers, and returns in words
/// where one is not within `tolerance`.
fn compare<B: Backend + Clone>(
    case: &Case,
    backend: &B,
    precision: Precision,
    tolerance: f64,
) -> Vec<String> {
    let program = &case.program;
    let expected = run(program, &case.inputs, &case.parameters, KEY).expect("the reference runs");
    let names: Vec<&str> = case.outputs.iter().map(String::as_str).collect();
    let mut executor = match Executor::new(backend.clone(), program, &names, precision) {
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
                failures.push(format!("`{name}` {} is off by {difference:.1e}", output.spec()));
            }
        }
    }
    failures
}

/// Given arrays as tensors of the type that the program wants.
pub fn tensors<'a>(
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
