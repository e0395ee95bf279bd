//! Mazes: made, solved, drawn.
//!
//! A maze is a square of S × S pixels, S odd. Cells stand at odd rows and
//! columns, on a lattice of (S − 1)/2 a side; the pixel between two neighbouring
//! cells is open or wall. A step moves by one pixel, so a move from cell to cell
//! is two equal steps.
//!
//! The same options and seed give the same mazes on every machine. They are
//! drawn either one by one, each from its own (seed, index), or all from one
//! stream of numbers, as the published maze experiments draw them: see
//! [`Stream`].
//!
//! Reading order: `lcg`, `carve` (walls), `ends` (start and goal), `solve`
//! (shortest paths), `draw` (pixels and targets), `batch`.

mod batch;
mod carve;
mod draw;
mod ends;
mod error;
mod lcg;
mod solve;

pub use batch::{BatchBuffers, MazeBatch, Stream};
pub use draw::CHANNELS;
pub use error::MazeError;
pub use solve::{Solution, moved};

use lcg::Lcg;
use std::fmt;
use std::str::FromStr;

/// The smallest maze: two cells a side.
pub const LEAST_SIZE: usize = 5;
/// Larger ones are refused: their pixels alone are 12 MB of f32.
pub const MOST_SIZE: usize = 999;
/// Moves by code: up, down, left, right; then the wait that pads a route.
pub const MOVE_NAMES: [&str; 5] = ["up", "down", "left", "right", "wait"];
/// Stands after the last step of a route.
pub const WAIT: u8 = 4;

/// How walls are placed. All three leave a spanning tree of the cells: every
/// cell can be reached, by one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Depth-first search with random turns: long corridors, few junctions.
    Dfs,
    /// Walls in random order, opened where they part two trees (Kruskal, 1956):
    /// many short dead ends.
    Kruskal,
    /// Loop-erased random walks (Wilson, 1996): every spanning tree equally often.
    Wilson,
}

/// Where start and goal stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// From the first cell to the last. Depth-first search starts in that corner
    /// and leaves it one way out: the first step is read from one pixel.
    Corner,
    /// Two cells at random, the start with at least two ways out, so that the
    /// first step is a decision.
    Open,
}

/// Which mazes to make.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MazeOptions {
    /// Pixels a side (S): odd, from [`LEAST_SIZE`] to [`MOST_SIZE`].
    pub size: usize,
    /// How walls are placed.
    pub algorithm: Algorithm,
    /// Where start and goal stand.
    pub layout: Layout,
    /// The share of the walls between neighbouring cells that is opened in the
    /// finished maze, from 0 to 1: each opens a loop.
    pub loops: f64,
}

impl Default for MazeOptions {
    fn default() -> Self {
        MazeOptions { size: 21, algorithm: Algorithm::Dfs, layout: Layout::Open, loops: 0.0 }
    }
}

impl MazeOptions {
    /// Refuses what cannot be made.
    pub fn check(&self) -> Result<(), MazeError> {
        let size = self.size;
        if size.is_multiple_of(2) || !(LEAST_SIZE..=MOST_SIZE).contains(&size) {
            return Err(MazeError::Size { size });
        }
        if !(0.0..=1.0).contains(&self.loops) {
            return Err(MazeError::Loops { loops: self.loops });
        }
        Ok(())
    }

    /// Maze number `index` of a seed.
    pub fn maze_at(&self, seed: u64, index: u64) -> Result<Maze, MazeError> {
        self.check()?;
        Ok(self.make(&mut Lcg::at(seed, index)))
    }

    /// All mazes of one stream of numbers, without end.
    pub fn sequence(&self, seed: u64) -> Result<impl Iterator<Item = Maze> + use<>, MazeError> {
        self.check()?;
        let (options, mut lcg) = (*self, Lcg::new(seed));
        Ok(std::iter::repeat_with(move || options.make(&mut lcg)))
    }

    /// Draws, in this order, for: walls, loops, ends.
    fn make(&self, lcg: &mut Lcg) -> Maze {
        let mut grid = carve::carve(self.size, self.algorithm, lcg);
        carve::open_loops(&mut grid, self.loops, lcg);
        let (start, goal) = ends::place(&grid, self.layout, lcg);
        Maze { grid, start, goal }
    }
}

/// One maze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maze {
    grid: Grid,
    start: usize,
    goal: usize,
}

impl Maze {
    /// A maze as it was stored: one byte a pixel, row by row, where 0 is open.
    ///
    /// Refused unless walls surround it, start and goal are two different cells
    /// (odd row, odd column), and a way leads from one to the other.
    pub fn new(size: usize, walls: &[u8], start: usize, goal: usize) -> Result<Self, MazeError> {
        MazeOptions { size, ..MazeOptions::default() }.check()?;
        if walls.len() != size * size {
            return Err(MazeError::Buffer {
                buffer: "walls",
                expected: size * size,
                found: walls.len(),
            });
        }
        let walls: Vec<u8> = walls.iter().map(|&wall| u8::from(wall != 0)).collect();
        let impossible = |reason| Err(MazeError::Impossible { reason });
        let rim = |pixel: usize| {
            let (row, column) = (pixel / size, pixel % size);
            row.min(column) == 0 || row.max(column) == size - 1
        };
        if (0..walls.len()).any(|pixel| rim(pixel) && walls[pixel] == 0) {
            return impossible("its outermost pixels are not all walls");
        }
        let cell = |pixel: usize| {
            pixel < walls.len()
                && pixel / size % 2 == 1
                && pixel % size % 2 == 1
                && walls[pixel] == 0
        };
        if !cell(start) || !cell(goal) || start == goal {
            return impossible("start and goal are not two open cells (odd row, odd column)");
        }
        let maze = Maze { grid: Grid { size, walls }, start, goal };
        if maze.solve().directions()[start] == 0 {
            return impossible("no way leads from start to goal");
        }
        Ok(maze)
    }

    /// Pixels a side (S).
    pub fn size(&self) -> usize {
        self.grid.size
    }

    /// One byte a pixel, row by row: 1 is wall.
    pub fn walls(&self) -> &[u8] {
        &self.grid.walls
    }

    /// The pixel row·S + column that the route leaves from.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The pixel that it leads to.
    pub fn goal(&self) -> usize {
        self.goal
    }

    /// The moves from an open pixel to open ones, in the order of their codes.
    pub fn ways(&self, pixel: usize) -> impl Iterator<Item = u8> + '_ {
        self.grid.ways(pixel)
    }
}

/// The walls of a maze whose outermost pixels are walls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid {
    size: usize,
    walls: Vec<u8>,
}

impl Grid {
    fn ways(&self, pixel: usize) -> impl Iterator<Item = u8> + '_ {
        (0..WAIT).filter(move |&code| self.walls[moved(pixel, code, self.size)] == 0)
    }

    /// Cells a side.
    fn cells_a_side(&self) -> usize {
        (self.size - 1) / 2
    }

    /// The pixel of cell number `cell`, row by row.
    fn pixel(&self, cell: usize) -> usize {
        let (row, column) = (cell / self.cells_a_side(), cell % self.cells_a_side());
        (2 * row + 1) * self.size + 2 * column + 1
    }
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Dfs, Self::Kruskal, Self::Wilson];

    fn name(self) -> &'static str {
        match self {
            Self::Dfs => "dfs",
            Self::Kruskal => "kruskal",
            Self::Wilson => "wilson",
        }
    }
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 2] = [Self::Corner, Self::Open];

    fn name(self) -> &'static str {
        match self {
            Self::Corner => "corner",
            Self::Open => "open",
        }
    }
}

macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = MazeError;

            fn from_str(text: &str) -> Result<Self, MazeError> {
                let known = Self::ALL.map(Self::name);
                Self::ALL
                    .into_iter()
                    .find(|item| item.name() == text)
                    .ok_or_else(|| MazeError::unknown($what, text, &known))
            }
        }
    };
}

named!(Algorithm, "maze algorithm");
named!(Layout, "maze layout");
