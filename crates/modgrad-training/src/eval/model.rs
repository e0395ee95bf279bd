//! A checkpoint's program `score`, checked and made ready to run.

use modgrad_compute::Pool;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::{Executor, InputView};
use modgrad_graph::planner::{self, GradientTerms};
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use modgrad_graph::{DType, Program, Tensor, TensorSpec};

use super::{EvalError, EvalOptions};
use crate::checkpoint_bundle::Checkpoint;
use crate::loading::{
    BadParameter, bad_threads, bytes_needed, check_parameters, described_inputs, described_output,
    joined, uses_dropout,
};
use crate::metrics::BYTES;

/// The program that is scored, its input and its output.
const PROGRAM: &str = "score";
const TOKENS: &str = "tokens";
const LOGITS: &str = "logits";

/// From a batch of windows u8[B, T] to its logits.
pub(super) type Run = Box<dyn FnMut(&[u8]) -> Result<Tensor, EvalError>>;

/// Runs batches of windows.
pub(super) struct Model {
    backend: Cpu,
    run: Run,
    /// Windows in a batch (B).
    pub(super) batch: usize,
    /// Bytes in a window (T).
    pub(super) context: usize,
}

impl Model {
    /// Checks all that can be known before a run, and loads the weights.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        options: &EvalOptions<'_>,
    ) -> Result<Self, EvalError> {
        let program = checkpoint.programs.get(PROGRAM).ok_or_else(|| EvalError::NoProgram {
            found: joined(checkpoint.programs.keys().cloned()),
        })?;
        let (batch, context) = check_program(program)?;
        if let Some(asked) = options.context
            && asked != context
        {
            return Err(EvalError::Context { asked, program: context });
        }
        check_parameters(checkpoint, program, PROGRAM)
            .map_err(|BadParameter { name, reason }| EvalError::Parameter { name, reason })?;
        let plan =
            planner::plan(program, &[LOGITS], &GradientTerms::new(), Precision::F32, &[], &[])?;
        let needed = bytes_needed(&plan).saturating_add(batch * context * BYTES * 4);
        if needed > options.max_memory {
            return Err(EvalError::Memory { needed, limit: options.max_memory });
        }
        let backend = backend(options)?;
        let mut executor = Executor::new(backend.clone(), program, &[LOGITS], Precision::F32)?;
        for (name, _) in program.parameters() {
            executor.set_parameter(name, InputView::from(&checkpoint.weights[name]))?;
        }
        // A program whose logits do not depend on its input does not read it.
        let reads = executor.plan().inputs.contains_key(TOKENS);
        let run = move |tokens: &[u8]| {
            let shape = [batch, context];
            let view = InputView { shape: &shape, dtype: DType::U8, bytes: tokens };
            let inputs: &[(&str, InputView<'_>)] = if reads { &[(TOKENS, view)] } else { &[] };
            executor.run(inputs, RunKey::default())?;
            Ok(executor.output(LOGITS)?)
        };
        Ok(Model { backend, run: Box::new(run), batch, context })
    }

    /// A model that is not a program, for tests of the rules.
    #[cfg(test)]
    pub(super) fn from_function(batch: usize, context: usize, run: Run) -> Self {
        Model { backend: Cpu::new(2), run, batch, context }
    }

    /// The threads that scoring may use between runs.
    pub(super) fn pool(&self) -> &Pool {
        self.backend.pool()
    }

    /// The logits of a batch of windows, f32[B, T, 256].
    pub(super) fn run(&mut self, tokens: &[u8]) -> Result<Tensor, EvalError> {
        let logits = (self.run)(tokens)?;
        let expected = TensorSpec::f32([self.batch, self.context, BYTES]);
        if logits.spec() != expected {
            let (expected, found) = (expected.to_string(), logits.spec().to_string());
            return Err(EvalError::Logits { expected, found });
        }
        Ok(logits)
    }
}

fn backend(options: &EvalOptions<'_>) -> Result<Cpu, EvalError> {
    if let Some(reason) = bad_threads(options.threads) {
        return Err(EvalError::Option { option: "threads", reason });
    }
    Ok(Cpu::new(options.threads))
}

/// Batch and context of a program that is a byte model and nothing else.
fn check_program(program: &Program) -> Result<(usize, usize), EvalError> {
    let inputs: Vec<_> = program.inputs().collect();
    let (batch, context) = match &inputs[..] {
        [(TOKENS, value)] => match program.spec(*value) {
            TensorSpec { shape, dtype: DType::U8 } if shape.len() == 2 => (shape[0], shape[1]),
            _ => (0, 0),
        },
        _ => (0, 0),
    };
    if batch == 0 || context == 0 {
        return Err(EvalError::Inputs { found: described_inputs(program) });
    }
    if uses_dropout(program) {
        return Err(EvalError::Dropout);
    }
    let expected = TensorSpec::f32([batch, context, BYTES]);
    match program.output(LOGITS) {
        Ok(value) if *program.spec(value) == expected => Ok((batch, context)),
        _ => {
            let found = described_output(program, LOGITS);
            Err(EvalError::Logits { expected: expected.to_string(), found })
        }
    }
}
