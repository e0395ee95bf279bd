//! Predictors that every model must beat, scored by the same judge.
//!
//! Two of them are fitted, on mazes of the same kind and another seed. The others
//! read the walls, and none reads the solution.

use modgrad_compute::Pool;

use super::TrivialScore;
use super::figures::Figures;
use super::puzzle::{Outcome, Puzzle};
use crate::maze_gen::{Maze, MazeError, MazeOptions, Stream, WAIT, moved};
use crate::random::Random;

/// Seeds of the mazes that are fitted on, and of random turns.
const FITTING_SEED: u64 = 0x27d4_eb2f_1656_67c5;
const TURNING_SEED: u64 = 0x1656_67b1_9e37_79f9;
/// Mazes to fit on, and pixels that all of them may have, but for a few mazes.
const FITTED_MAZES: usize = 4000;
const FITTED_PIXELS: usize = 20_000_000;
const LEAST_FITTED: usize = 20;

/// A predictor.
enum Trivial {
    /// One move throughout.
    Always(u8),
    /// At each step the move that is right most often there.
    Positions(Best),
    /// The same, for each set of ways that lead from the start.
    FirstWays(Vec<Best>),
    /// Follows corridors, back from dead ends; takes this turn at junctions.
    Corridors(Turn),
}

/// Which way to go on where there are several.
#[derive(Clone, Copy)]
enum Turn {
    /// Any.
    Random,
    /// Down, else right, else up.
    DownRight,
    /// The way whose pixel is nearest to the goal.
    TowardGoal,
}

/// The move that was right most often at each step, and how often each was.
struct Best {
    counts: Vec<[usize; 4]>,
}

impl Best {
    fn new(steps: usize) -> Self {
        Best { counts: vec![[0; 4]; steps] }
    }

    fn count(&mut self, puzzle: &Puzzle) {
        for (counts, (pixel, _)) in self.counts.iter_mut().zip(puzzle.solution.route()) {
            for (code, count) in (0..WAIT).zip(counts) {
                *count += usize::from(puzzle.solution.is_right(pixel, code));
            }
        }
    }

    fn moves(&self) -> Vec<u8> {
        let best = |counts: &[usize; 4]| {
            // The first of equals.
            (0..4).rev().max_by_key(|&code| counts[code]).unwrap_or_default() as u8
        };
        self.counts.iter().map(best).collect()
    }
}

impl Trivial {
    fn moves(&self, maze: &Maze, steps: usize, random: &mut Random) -> Vec<u8> {
        match self {
            Trivial::Always(code) => vec![*code; steps],
            Trivial::Positions(best) => best.moves(),
            Trivial::FirstWays(best) => best[first_ways(maze)].moves(),
            Trivial::Corridors(turn) => walk(maze, *turn, steps, random),
        }
    }
}

/// The figures of all of them on the given mazes.
pub(super) fn trivial_scores(
    pool: &Pool,
    options: &MazeOptions,
    puzzles: &[Puzzle],
    steps: usize,
) -> Result<Vec<TrivialScore>, MazeError> {
    let fitted = FITTED_PIXELS / (options.size * options.size);
    let fitted = fitted.clamp(LEAST_FITTED, FITTED_MAZES);
    let stream = Stream::Indexed { seed: FITTING_SEED, first: 0 };
    let fitted = Puzzle::all(pool, options, stream, fitted)?;
    let mut positions = Best::new(steps);
    let mut first: Vec<Best> = (0..16).map(|_| Best::new(steps)).collect();
    for puzzle in &fitted {
        positions.count(puzzle);
        first[first_ways(&puzzle.maze)].count(puzzle);
    }
    let predictors = [
        ("always_up", Trivial::Always(0)),
        ("always_down", Trivial::Always(1)),
        ("always_left", Trivial::Always(2)),
        ("always_right", Trivial::Always(3)),
        ("best_move_per_step", Trivial::Positions(positions)),
        ("best_move_per_step_given_first_ways", Trivial::FirstWays(first)),
        ("corridors_turning_at_random", Trivial::Corridors(Turn::Random)),
        ("corridors_turning_down_or_right", Trivial::Corridors(Turn::DownRight)),
        ("corridors_turning_toward_the_goal", Trivial::Corridors(Turn::TowardGoal)),
    ];
    let score = |(name, predictor): (&'static str, Trivial)| {
        let mut random = Random::new(TURNING_SEED);
        let outcomes: Vec<Outcome> = puzzles
            .iter()
            .map(|puzzle| puzzle.judge(&predictor.moves(&puzzle.maze, steps, &mut random)))
            .collect();
        TrivialScore { name, figures: Figures::of(&outcomes, steps) }
    };
    Ok(predictors.into_iter().map(score).collect())
}

/// The ways from the start, as bits.
fn first_ways(maze: &Maze) -> usize {
    maze.ways(maze.start()).map(|code| 1 << code).sum()
}

/// The moves of somebody in the maze who does not know the way; waits at the goal.
fn walk(maze: &Maze, turn: Turn, steps: usize, random: &mut Random) -> Vec<u8> {
    let (mut pixel, mut back) = (maze.start(), None);
    let mut moves = Vec::with_capacity(steps);
    for _ in 0..steps {
        if pixel == maze.goal() {
            moves.push(WAIT);
            continue;
        }
        let ahead: Vec<u8> = maze.ways(pixel).filter(|&code| Some(code) != back).collect();
        let code = match (&ahead[..], turn) {
            ([], _) => back.unwrap_or(WAIT),
            ([only], _) => *only,
            (several, Turn::Random) => several[random.below(several.len())],
            (several, Turn::DownRight) => {
                [1, 3, 0, 2].into_iter().find(|code| several.contains(code)).unwrap_or(WAIT)
            }
            (several, Turn::TowardGoal) => {
                let distance =
                    |code: &&u8| squared_distance(maze, moved(pixel, **code, maze.size()));
                several.iter().min_by_key(distance).copied().unwrap_or(WAIT)
            }
        };
        moves.push(code);
        pixel = moved(pixel, code, maze.size());
        // Opposite moves: 0 and 1, 2 and 3.
        back = Some(code ^ 1);
    }
    moves
}

fn squared_distance(maze: &Maze, pixel: usize) -> usize {
    let size = maze.size();
    let rows = (pixel / size).abs_diff(maze.goal() / size);
    let columns = (pixel % size).abs_diff(maze.goal() % size);
    rows * rows + columns * columns
}
