//! What every evaluator checks of a checkpoint's program before it runs it.

use modgrad_graph::planner::{Memory, Plan};
use modgrad_graph::{Op, Program};

use crate::checkpoint_bundle::Checkpoint;
use crate::text::one_line;

/// More threads than any machine has; each costs a stack.
const MOST_THREADS: usize = 1024;

/// A parameter that is missing, or not what a program declares.
pub(crate) struct BadParameter {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// Holds the checkpoint's weights against what its program `program_name` reads.
pub(crate) fn check_parameters(
    checkpoint: &Checkpoint,
    program: &Program,
    program_name: &str,
) -> Result<(), BadParameter> {
    for (name, value) in program.parameters() {
        let wrong = |reason| BadParameter { name: one_line(name), reason };
        let expected = program.spec(value);
        let Some(tensor) = checkpoint.weights.get(name) else {
            return Err(wrong(format!(
                "program `{program_name}` needs it, the checkpoint has none"
            )));
        };
        if tensor.spec() != *expected {
            return Err(wrong(format!("expected {expected}, found {}", tensor.spec())));
        }
        if tensor.as_f32().is_some_and(|values| values.iter().any(|value| !value.is_finite())) {
            return Err(wrong("it is not finite".to_owned()));
        }
    }
    Ok(())
}

/// Whether a program rolls dice.
pub(crate) fn uses_dropout(program: &Program) -> bool {
    program.nodes().iter().any(|node| matches!(node.op, Op::Dropout { .. }))
}

/// What is wrong with a number of threads.
pub(crate) fn bad_threads(threads: usize) -> Option<String> {
    let possible = (1..=MOST_THREADS).contains(&threads);
    (!possible).then(|| format!("{threads} is not between 1 and {MOST_THREADS}"))
}

/// Scratch and parameters of a plan.
pub(crate) fn bytes_needed(plan: &Plan) -> usize {
    let separate = plan
        .parameters
        .values()
        .filter(|place| matches!(place.memory, Memory::Separate(_)))
        .map(|place| place.spec.elements().saturating_mul(place.spec.dtype.size()));
    let flat = plan.flat_elements.saturating_mul(4);
    plan.slots.iter().copied().chain(separate).fold(flat, usize::saturating_add)
}

/// The inputs of a program, for a message.
pub(crate) fn described_inputs(program: &Program) -> String {
    joined(program.inputs().map(|(name, value)| format!("{name} {}", program.spec(value))))
}

/// What a program has in the place of its output `name`, for a message.
pub(crate) fn described_output(program: &Program, name: &str) -> String {
    match program.output(name) {
        Ok(value) => program.spec(value).to_string(),
        Err(_) => format!("only the outputs [{}]", joined(program.outputs().keys().cloned())),
    }
}

/// Words in one line.
pub(crate) fn joined(words: impl Iterator<Item = String>) -> String {
    one_line(&words.collect::<Vec<_>>().join(", "))
}
