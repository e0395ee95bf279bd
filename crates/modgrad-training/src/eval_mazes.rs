//! Evaluation: how well a checkpoint's program finds its way through mazes.
//!
//! The program maps `pixels` f32[B, 3, S, S] (see [`Maze::render`]) to `logits`
//! f32[B, R, 5]: at each of the route's first R steps a score for up, down, left,
//! right, wait. It is run on compiled kernels and sees pixels, nothing else: the
//! solver stands on the other side. A checkpoint may hold one set of weights
//! under several programs: mazes of S × S are scored with `score` where it was
//! made for that size, else with `score_<S>`, such as `score_39`.
//!
//! 1. The move at a step is the one with the highest logit, the last of equals.
//! 2. Scored are the first min(R, length) steps; waits after the goal are not.
//! 3. A move is right if it lies on some shortest path from where the route has
//!    led. After a wrong move the judge takes the first right one in its place
//!    and goes on. Without loops there is one route, and a move is right where it
//!    is the route's.
//! 4. `val_bpb` is 1 − the share of mazes whose first move is right.
//!
//! A program is refused whose logits are not finite, depend on the other mazes of
//! a batch or on the place there, or differ when they are asked for again; and
//! one that knows the pinned mazes: mazes of a secret seed are scored as well, and
//! may not be much harder.

mod error;
mod figures;
mod model;
mod probes;
mod puzzle;
mod trivial;

pub use error::MazeEvalError;
pub use figures::{Estimate, Figures};

use sha2::{Digest, Sha256};
use std::time::Instant;

use crate::checkpoint_bundle::Checkpoint;
use crate::digest::hex;
#[cfg(doc)]
use crate::maze_gen::Maze;
use crate::maze_gen::{Algorithm, Layout, MazeOptions, Stream};
use crate::random::{self, Random};
use model::Model;
use probes::{Probed, run_all};
use puzzle::Puzzle;
use trivial::trivial_scores;

/// The mazes that `val_bpb` is formed over.
pub const PINNED_MAZES: usize = 200;
/// The seed that they are made from.
pub const PINNED_SEED: u64 = 42;
/// Published experiments evaluate on the stream of their seed plus this.
const CORNER_OFFSET: u64 = 999;
/// Mixed into the seed of all other evaluations, so that no seed of a training
/// run that a person would choose makes the mazes it is scored on.
const EVALUATION_STREAM: u64 = 0x8f1c_55d2_7a03_e69b;
/// More mazes are no better measurement.
const MOST_MAZES: usize = 100_000;

/// How an evaluation is run.
#[derive(Clone, Copy)]
pub struct MazeEvalOptions<'a> {
    /// Pixels a side; those of the program `score` where none are asked for.
    pub size: Option<usize>,
    /// How walls are placed.
    pub algorithm: Algorithm,
    /// Where start and goal stand.
    pub layout: Layout,
    /// The share of walls that is opened: see [`MazeOptions`].
    pub loops: f64,
    /// How many mazes.
    pub mazes: usize,
    /// Which mazes. [`Layout::Corner`] is scored on the published stream of this
    /// seed, anything else on one of its own.
    pub seed: u64,
    /// Scores only so many steps, at most the program's own R.
    pub route_length: Option<usize>,
    /// Threads, the calling one counted.
    pub threads: usize,
    /// Fixes the secret, for tests; the system's randomness otherwise.
    pub secret: Option<u64>,
    /// The most memory that mazes and program may need, in bytes.
    pub max_memory: usize,
    /// Told how many batches are done, and of how many.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
    /// Asked after each batch whether to stop.
    pub cancelled: Option<&'a dyn Fn() -> bool>,
}

impl Default for MazeEvalOptions<'_> {
    fn default() -> Self {
        let MazeOptions { algorithm, layout, loops, .. } = MazeOptions::default();
        MazeEvalOptions {
            size: None,
            algorithm,
            layout,
            loops,
            mazes: PINNED_MAZES,
            seed: PINNED_SEED,
            route_length: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            secret: None,
            max_memory: 8 << 30,
            progress: None,
            cancelled: None,
        }
    }
}

/// A score, what it was formed over, and what it is to be held against.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MazeScore {
    /// 1 − the first step's accuracy.
    pub val_bpb: f64,
    /// The model's figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The same of predictors that no one would call a model.
    pub trivial: Vec<TrivialScore>,
    /// The first step on mazes of a secret seed, other ones each time.
    pub fresh_first_step: Estimate,
    /// How many those were.
    pub fresh_mazes: usize,
    /// The program that was run.
    pub program: String,
    /// Which mazes.
    #[serde(flatten)]
    pub options: MazeOptions,
    /// How many.
    pub mazes: usize,
    /// Their seed.
    pub seed: u64,
    /// SHA-256 over the walls, start and goal of all of them.
    pub mazes_sha256: String,
    /// Steps that were scored, at most (R).
    pub route_length: usize,
    /// Mazes whose whole route is no longer than that.
    pub mazes_in_reach: usize,
    /// Steps of a whole route, on average.
    pub mean_length: f64,
    /// Mazes that were run a second time, in other company.
    pub repeated: usize,
    /// Wall-clock time.
    pub seconds: f64,
}

/// The figures of a trivial predictor.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrivialScore {
    /// Its name.
    pub name: &'static str,
    /// What it reaches on the same mazes.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Scores the checkpoint's program for mazes.
pub fn eval_mazes(
    checkpoint: &Checkpoint,
    options: &MazeEvalOptions<'_>,
) -> Result<MazeScore, MazeEvalError> {
    let start = Instant::now();
    if !(1..=MOST_MAZES).contains(&options.mazes) {
        let reason = format!("{} is not between 1 and {MOST_MAZES}", options.mazes);
        return Err(MazeEvalError::Option { option: "mazes", reason });
    }
    let model = Model::new(checkpoint, options)?;
    score(model, options, start)
}

/// Scores and probes a model that is ready to run.
fn score(
    mut model: Model,
    options: &MazeEvalOptions<'_>,
    start: Instant,
) -> Result<MazeScore, MazeEvalError> {
    let secret = options.secret.map_or_else(random::from_system, Ok);
    let mut random = Random::new(secret.map_err(MazeEvalError::Randomness)?);
    let maze = model.maze_options(options);
    let puzzles = Puzzle::all(model.pool(), &maze, stream(&maze, options.seed), options.mazes)?;
    let secret_stream = Stream::Indexed { seed: random.next(), first: 0 };
    let fresh = options.mazes.min(PINNED_MAZES);
    let fresh = Puzzle::all(model.pool(), &maze, secret_stream, fresh)?;

    let Probed { outcomes, fresh: fresh_outcomes, repeated } =
        run_all(&mut model, &puzzles, &fresh, &mut random, options)?;
    figures::refuse_memory(&outcomes, &fresh_outcomes)?;
    let figures = Figures::of(&outcomes, model.scored);
    let lengths = || puzzles.iter().map(|puzzle| puzzle.solution.length());
    Ok(MazeScore {
        val_bpb: 1.0 - figures.first_step.value,
        figures,
        trivial: trivial_scores(model.pool(), &maze, &puzzles, model.scored)?,
        fresh_first_step: Figures::of(&fresh_outcomes, model.scored).first_step,
        fresh_mazes: fresh.len(),
        program: model.name.clone(),
        options: maze,
        mazes: puzzles.len(),
        seed: options.seed,
        mazes_sha256: digest(&puzzles),
        route_length: model.scored,
        mazes_in_reach: lengths().filter(|&length| length <= model.scored).count(),
        mean_length: lengths().sum::<usize>() as f64 / puzzles.len() as f64,
        repeated,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The mazes of a seed that evaluation goes by.
fn stream(options: &MazeOptions, seed: u64) -> Stream {
    match options.layout {
        Layout::Corner => Stream::Sequential { seed: seed.wrapping_add(CORNER_OFFSET) },
        Layout::Open => Stream::Indexed { seed: seed ^ EVALUATION_STREAM, first: 0 },
    }
}

fn digest(puzzles: &[Puzzle]) -> String {
    let mut hasher = Sha256::new();
    for Puzzle { maze, .. } in puzzles {
        hasher.update(maze.walls());
        hasher.update((maze.start() as u64).to_le_bytes());
        hasher.update((maze.goal() as u64).to_le_bytes());
    }
    hex(&hasher.finalize())
}

#[cfg(test)]
mod tests;
