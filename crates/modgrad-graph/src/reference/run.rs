//! A whole program in f64.

use std::collections::BTreeMap;

use super::{Array, RunKey, evaluate};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::program::{Program, ValueId};

/// Every value of `program`, by [`ValueId`].
///
/// All inputs and parameters of the program must be given, and no others.
pub fn run(
    program: &Program,
    inputs: &BTreeMap<String, Array>,
    parameters: &BTreeMap<String, Array>,
    key: RunKey,
) -> Result<Vec<Array>> {
    check_given("input", program, program.inputs(), inputs)?;
    check_given("parameter", program, program.parameters(), parameters)?;
    let mut values: Vec<Array> = Vec::with_capacity(program.values());
    for node in program.nodes() {
        let outputs = match &node.op {
            Op::Input { name, .. } => vec![inputs[name].clone()],
            Op::Parameter { name, .. } => vec![parameters[name].clone()],
            op => {
                let operands: Vec<&Array> = node.inputs.iter().map(|&id| &values[id]).collect();
                evaluate(op, &operands, key)?
            }
        };
        values.extend(outputs);
    }
    Ok(values)
}

/// Refuses a missing, an unknown and a misshapen array, by name.
fn check_given<'a>(
    kind: &'static str,
    program: &Program,
    wanted: impl Iterator<Item = (&'a str, ValueId)>,
    given: &BTreeMap<String, Array>,
) -> Result<()> {
    let wanted: Vec<_> = wanted.collect();
    for &(name, value) in &wanted {
        let spec = program.spec(value);
        let array = given.get(name).ok_or_else(|| {
            Error::named(kind, name, format!("it is missing; the program needs {spec}"))
        })?;
        array.check_against(spec).map_err(|reason| Error::named(kind, name, reason))?;
    }
    match given.keys().find(|&given| wanted.iter().all(|(name, _)| name != given)) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
            let reason = format!("the program has only [{}]", names.join(", "));
            Err(Error::named(kind, unknown, reason))
        }
    }
}
