//! A maze with its solution, and the judge of a predicted route.

use modgrad_compute::Pool;

use crate::maze_gen::{Maze, MazeError, MazeOptions, Solution, Stream, moved};

/// A maze and what is right there.
pub(super) struct Puzzle {
    pub(super) maze: Maze,
    pub(super) solution: Solution,
}

/// What became of one predicted route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Steps of the whole route.
    pub(super) length: usize,
    /// Steps scored: min(R, length).
    pub(super) scored: usize,
    /// Right ones among them.
    pub(super) right: usize,
    /// Right ones before the first that is wrong.
    pub(super) prefix: usize,
}

impl Puzzle {
    /// The first `count` mazes of a stream, with their solutions.
    pub(super) fn all(
        pool: &Pool,
        options: &MazeOptions,
        stream: Stream,
        count: usize,
    ) -> Result<Vec<Self>, MazeError> {
        let mazes = stream.mazes(pool, options, count)?;
        let mut solutions = vec![None; mazes.len()];
        pool.for_rows(&mut solutions, 1, 1, |first, solutions| {
            for (solution, maze) in solutions.iter_mut().zip(&mazes[first..]) {
                *solution = Some(maze.solve());
            }
        });
        let solved = mazes.into_iter().zip(solutions.into_iter().flatten());
        Ok(solved.map(|(maze, solution)| Puzzle { maze, solution }).collect())
    }

    /// Walks along the predicted moves; where one is wrong, the first right one is
    /// taken in its place. Every walk reaches the goal after `length` steps.
    pub(super) fn judge(&self, moves: &[u8]) -> Outcome {
        let length = self.solution.length();
        let scored = length.min(moves.len());
        let (mut right, mut prefix) = (0, 0);
        let mut pixel = self.maze.start();
        for (step, &code) in moves[..scored].iter().enumerate() {
            let is_right = self.solution.is_right(pixel, code);
            prefix += usize::from(is_right && prefix == step);
            right += usize::from(is_right);
            let taken = if is_right { code } else { self.solution.first_right(pixel) };
            pixel = moved(pixel, taken, self.maze.size());
        }
        Outcome { length, scored, right, prefix }
    }
}
