//! A checkpoint's program for mazes of one size, checked and made ready to run.

use modgrad_compute::Pool;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::{Executor, InputView};
use modgrad_graph::planner::{self, GradientTerms};
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use modgrad_graph::{DType, Program, Tensor, TensorSpec};

use super::{MazeEvalError, MazeEvalOptions};
use crate::checkpoint_bundle::Checkpoint;
use crate::loading::{
    BadParameter, bad_threads, bytes_needed, check_parameters, described_inputs, described_output,
    joined, uses_dropout,
};
use crate::maze_gen::{CHANNELS, MOVE_NAMES, MazeOptions};
use crate::text::one_line;

/// The program that is scored; with `_<size>` after it, the one for that size.
const PROGRAM: &str = "score";
const PIXELS: &str = "pixels";
const LOGITS: &str = "logits";
/// Logits at a step (M).
pub(super) const MOVES: usize = MOVE_NAMES.len();

/// From a batch of mazes f32[B, 3, S, S] to its logits.
pub(super) type Run = Box<dyn FnMut(Vec<f32>) -> modgrad_graph::Result<Tensor>>;

/// Runs batches of mazes.
pub(super) struct Model {
    backend: Cpu,
    run: Run,
    /// The program's name.
    pub(super) name: String,
    /// Mazes in a batch (B).
    pub(super) batch: usize,
    /// Pixels a side (S).
    pub(super) size: usize,
    /// Steps that the program predicts (R).
    steps: usize,
    /// Steps that are scored.
    pub(super) scored: usize,
}

impl Model {
    /// Checks all that can be known before a run, and loads the weights.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        options: &MazeEvalOptions<'_>,
    ) -> Result<Self, MazeEvalError> {
        if let Some(reason) = bad_threads(options.threads) {
            return Err(MazeEvalError::Option { option: "threads", reason });
        }
        let (name, program) = choose(checkpoint, options.size)?;
        let Shape { batch, size, steps } = check_program(&name, program, options.size)?;
        let scored = options.route_length.unwrap_or(steps);
        if scored == 0 || scored > steps {
            return Err(MazeEvalError::RouteLength { program: name, asked: scored, found: steps });
        }
        MazeOptions { size, loops: options.loops, ..MazeOptions::default() }.check()?;
        check_parameters(checkpoint, program, &name)
            .map_err(|BadParameter { name, reason }| MazeEvalError::Parameter { name, reason })?;
        let failed = |error| MazeEvalError::Program { program: name.clone(), error };
        let plan =
            planner::plan(program, &[LOGITS], &GradientTerms::new(), Precision::F32, &[], &[]);
        // Twice as many mazes as are scored, of at most two bytes a pixel; a batch
        // of pixels and of logits.
        let mazes = options.mazes.saturating_mul(2);
        let needed = [4 * mazes.saturating_mul(size * size), 4 * batch * CHANNELS * size * size]
            .into_iter()
            .chain([4 * batch * steps * MOVES])
            .fold(bytes_needed(&plan.map_err(failed)?), usize::saturating_add);
        let (limit, mazes) = (options.max_memory, options.mazes);
        if needed > limit {
            return Err(MazeEvalError::Memory { program: name, mazes, needed, limit });
        }
        let backend = Cpu::new(options.threads);
        let mut executor =
            Executor::new(backend.clone(), program, &[LOGITS], Precision::F32).map_err(failed)?;
        for (parameter, _) in program.parameters() {
            let weight = InputView::from(&checkpoint.weights[parameter]);
            executor.set_parameter(parameter, weight).map_err(failed)?;
        }
        // A program whose logits do not depend on its input does not read it.
        let reads = executor.plan().inputs.contains_key(PIXELS);
        let run = move |pixels: Vec<f32>| {
            let pixels = Tensor::f32([batch, CHANNELS, size, size], pixels)?;
            let view = (PIXELS, InputView::from(&pixels));
            let inputs = if reads { std::slice::from_ref(&view) } else { &[] };
            executor.run(inputs, RunKey::default())?;
            executor.output(LOGITS)
        };
        Ok(Model { backend, run: Box::new(run), name, batch, size, steps, scored })
    }

    /// A model that is not a program, for tests of the rules.
    #[cfg(test)]
    pub(super) fn from_function(batch: usize, size: usize, steps: usize, run: Run) -> Self {
        let (backend, name) = (Cpu::new(2), PROGRAM.to_owned());
        Model { backend, run, name, batch, size, steps, scored: steps }
    }

    /// The threads that scoring may use between runs.
    pub(super) fn pool(&self) -> &Pool {
        self.backend.pool()
    }

    /// The mazes that it is to be scored on.
    pub(super) fn maze_options(&self, options: &MazeEvalOptions<'_>) -> MazeOptions {
        let MazeEvalOptions { algorithm, layout, loops, .. } = *options;
        MazeOptions { size: self.size, algorithm, layout, loops }
    }

    /// The logits of a batch of mazes: R·M of them a maze.
    pub(super) fn run(&mut self, pixels: Vec<f32>) -> Result<Logits, MazeEvalError> {
        let logits = (self.run)(pixels)
            .map_err(|error| MazeEvalError::Program { program: self.name.clone(), error })?;
        if logits.spec() != TensorSpec::f32([self.batch, self.steps, MOVES]) {
            let (program, found) = (self.name.clone(), logits.spec().to_string());
            return Err(MazeEvalError::Logits { program, batch: self.batch, found });
        }
        Ok(Logits { logits, row: self.steps * MOVES })
    }
}

/// What a program says about a batch.
pub(super) struct Logits {
    logits: Tensor,
    row: usize,
}

impl Logits {
    /// The logits of the maze at `place`.
    fn of(&self, place: usize) -> &[f32] {
        let all = self.logits.as_f32().unwrap_or_default();
        &all[place * self.row..(place + 1) * self.row]
    }

    /// The same in memory, to be compared bit by bit.
    pub(super) fn bytes(&self, place: usize) -> &[u8] {
        let row = self.row * size_of::<f32>();
        &self.logits.bytes()[place * row..(place + 1) * row]
    }

    /// The move at each of the first `scored` steps: the highest logit, the last
    /// of equals. All logits must be finite, those of later steps too.
    pub(super) fn moves(&self, place: usize, scored: usize) -> Result<Vec<u8>, MazeEvalError> {
        let row = self.of(place);
        if let Some(index) = row.iter().position(|logit| !logit.is_finite()) {
            return Err(MazeEvalError::NonFinite { step: index / MOVES });
        }
        let highest = |logits: &[f32]| {
            (0..MOVES).fold(0, |best, code| if logits[code] >= logits[best] { code } else { best })
        };
        Ok(row.chunks_exact(MOVES).take(scored).map(|logits| highest(logits) as u8).collect())
    }
}

/// The program for mazes of a size, or for whatever `score` was made for.
fn choose(
    checkpoint: &Checkpoint,
    size: Option<usize>,
) -> Result<(String, &Program), MazeEvalError> {
    let sized = size.map(|size| format!("{PROGRAM}_{size}"));
    let fits = |program: &&Program| match (read_pixels(program), size) {
        (Some((_, found)), Some(size)) => found == size,
        // Without a size there is no other; what is wrong with it is said later.
        (_, None) => true,
        (None, Some(_)) => false,
    };
    if let Some(program) = checkpoint.programs.get(PROGRAM).filter(fits) {
        return Ok((PROGRAM.to_owned(), program));
    }
    if let Some(name) = &sized
        && let Some(program) = checkpoint.programs.get(name)
    {
        return Ok((name.clone(), program));
    }
    let asked = match (&sized, size) {
        (Some(sized), Some(size)) => {
            format!("`{PROGRAM}` for mazes of {size}x{size}, nor `{sized}`")
        }
        _ => format!("`{PROGRAM}`"),
    };
    let described = |(name, program): (&String, &Program)| {
        format!("{}: {}", one_line(name), described_inputs(program))
    };
    Err(MazeEvalError::NoProgram {
        asked,
        found: joined(checkpoint.programs.iter().map(described)),
    })
}

/// (B, S) of a program whose one input is a batch of mazes.
fn read_pixels(program: &Program) -> Option<(usize, usize)> {
    let inputs: Vec<_> = program.inputs().collect();
    let [(PIXELS, value)] = inputs[..] else { return None };
    match program.spec(value) {
        TensorSpec { shape, dtype: DType::F32 } => match shape[..] {
            [batch, CHANNELS, height, width] if batch > 0 && height == width => {
                Some((batch, height))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The sizes of a program.
struct Shape {
    batch: usize,
    size: usize,
    steps: usize,
}

/// The sizes of a program that maps mazes to routes and does nothing else.
fn check_program(
    name: &str,
    program: &Program,
    asked: Option<usize>,
) -> Result<Shape, MazeEvalError> {
    let read = read_pixels(program).filter(|(_, size)| asked.is_none_or(|asked| asked == *size));
    let program_name = || name.to_owned();
    let Some((batch, size)) = read else {
        let size = asked.map_or("size".to_owned(), |size| size.to_string());
        let found = described_inputs(program);
        return Err(MazeEvalError::Inputs { program: program_name(), size, found });
    };
    if uses_dropout(program) {
        return Err(MazeEvalError::Dropout { program: program_name() });
    }
    let logits = program.output(LOGITS).ok().map(|value| program.spec(value));
    if let Some(TensorSpec { shape, dtype: DType::F32 }) = logits
        && let [found, steps, MOVES] = shape[..]
        && found == batch
        && steps > 0
    {
        return Ok(Shape { batch, size, steps });
    }
    let found = described_output(program, LOGITS);
    Err(MazeEvalError::Logits { program: program_name(), batch, found })
}
