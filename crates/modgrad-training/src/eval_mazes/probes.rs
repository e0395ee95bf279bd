//! Runs every maze that is scored, then again many of them among mazes of a
//! secret seed: what a maze gets may not depend on that.

use sha2::{Digest, Sha256};

use super::model::{Logits, Model};
use super::puzzle::{Outcome, Puzzle};
use super::{MazeEvalError, MazeEvalOptions, PINNED_MAZES};
use crate::maze_gen::CHANNELS;
use crate::random::Random;

/// So many mazes are run twice where there are more, and one in this many.
const LEAST_REPEATED: usize = PINNED_MAZES;
const REPEATED_ONE_IN: usize = 20;

/// What came of all runs.
pub(super) struct Probed {
    /// Of the scored mazes, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Of the secret ones.
    pub(super) fresh: Vec<Outcome>,
    /// Scored mazes that were run twice.
    pub(super) repeated: usize,
}

/// A maze of the second round.
#[derive(Clone, Copy)]
enum Job {
    Again(usize),
    Fresh(usize),
}

impl Job {
    fn puzzle<'a>(self, puzzles: &'a [Puzzle], fresh: &'a [Puzzle]) -> &'a Puzzle {
        match self {
            Job::Again(maze) => &puzzles[maze],
            Job::Fresh(maze) => &fresh[maze],
        }
    }
}

/// Judges both sets of mazes, in orders that the secret decides.
pub(super) fn run_all(
    model: &mut Model,
    puzzles: &[Puzzle],
    fresh: &[Puzzle],
    random: &mut Random,
    options: &MazeEvalOptions<'_>,
) -> Result<Probed, MazeEvalError> {
    let mut order: Vec<usize> = (0..puzzles.len()).collect();
    random.shuffle(&mut order);
    let repeated = order.len().min(LEAST_REPEATED.max(order.len() / REPEATED_ONE_IN));
    // A secret part of the mazes: the order was shuffled.
    let again = order[..repeated].iter().map(|&maze| Job::Again(maze));
    let mut jobs: Vec<Job> = again.chain((0..fresh.len()).map(Job::Fresh)).collect();
    random.shuffle(&mut jobs);

    let total = order.len().div_ceil(model.batch) + jobs.len().div_ceil(model.batch);
    let mut done = 0;
    let mut tick = || {
        done += 1;
        if let Some(progress) = options.progress {
            progress(done, total);
        }
        match options.cancelled {
            Some(cancelled) if cancelled() => Err(MazeEvalError::Cancelled),
            _ => Ok(()),
        }
    };

    // The maze's digest, its outcome, its place in `order`.
    let mut seen = vec![None; puzzles.len()];
    for (chunk, mazes) in order.chunks(model.batch).enumerate() {
        let logits = model.run(draw(model, mazes.iter().map(|&maze| &puzzles[maze])))?;
        for (place, &maze) in mazes.iter().enumerate() {
            let outcome = puzzles[maze].judge(&logits.moves(place, model.scored)?);
            seen[maze] = Some((digest(&logits, place), outcome, chunk * model.batch + place));
        }
        tick()?;
    }
    let mut fresh_outcomes = vec![None; fresh.len()];
    for jobs in jobs.chunks(model.batch) {
        let company: Vec<&Puzzle> = jobs.iter().map(|job| job.puzzle(puzzles, fresh)).collect();
        let logits = model.run(draw(model, company.iter().copied()))?;
        for (place, job) in jobs.iter().enumerate() {
            match *job {
                Job::Fresh(maze) => {
                    let moves = logits.moves(place, model.scored)?;
                    fresh_outcomes[maze] = Some(fresh[maze].judge(&moves));
                }
                Job::Again(maze) => {
                    let (before, _, at) = seen[maze].expect("every maze was run");
                    let found = digest(&logits, place);
                    if found != before {
                        let chunk = order.chunks(model.batch).nth(at / model.batch);
                        let first = chunk.unwrap_or_default().iter().map(|&maze| &puzzles[maze]);
                        let first = Run { puzzles: first.collect(), place: at % model.batch };
                        let second = Run { puzzles: company, place };
                        let same = first.gives(model, before)? && second.gives(model, found)?;
                        let mixes = MazeEvalError::CrossRow { maze };
                        return Err(if same { mixes } else { MazeEvalError::State { maze } });
                    }
                }
            }
        }
        tick()?;
    }
    let outcomes = seen.into_iter().flatten().map(|(_, outcome, _)| outcome).collect();
    let fresh = fresh_outcomes.into_iter().flatten().collect();
    Ok(Probed { outcomes, fresh, repeated })
}

/// A batch that was run, and a place in it. Run again as it was, it tells a model
/// that looks at company from one that keeps state.
struct Run<'a> {
    puzzles: Vec<&'a Puzzle>,
    place: usize,
}

impl Run<'_> {
    fn gives(&self, model: &mut Model, expected: [u8; 32]) -> Result<bool, MazeEvalError> {
        let logits = model.run(draw(model, self.puzzles.iter().copied()))?;
        Ok(digest(&logits, self.place) == expected)
    }
}

/// A batch of pixels; where mazes are fewer than places they come again.
fn draw<'a>(model: &Model, puzzles: impl Iterator<Item = &'a Puzzle> + Clone) -> Vec<f32> {
    let row = CHANNELS * model.size * model.size;
    let mut pixels = vec![0.0; model.batch * row];
    for (row, puzzle) in pixels.chunks_exact_mut(row).zip(puzzles.cycle()) {
        puzzle.maze.render(row);
    }
    pixels
}

fn digest(logits: &Logits, place: usize) -> [u8; 32] {
    Sha256::digest(logits.bytes(place)).into()
}
