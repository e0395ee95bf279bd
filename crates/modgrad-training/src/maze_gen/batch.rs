//! Many mazes at once, made on several threads.

use modgrad_compute::Pool;
use modgrad_graph::{Tensor, tensor::Data};

use super::lcg::Lcg;
use super::{CHANNELS, Maze, MazeError, MazeOptions};

/// Which mazes of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Maze i depends on (seed, i) alone: what training should use. The batch
    /// holds the mazes from number `first`.
    Indexed {
        /// Fixes all mazes.
        seed: u64,
        /// The number of the batch's first maze.
        first: u64,
    },
    /// One stream of numbers runs through all mazes, as published experiments do
    /// it: a batch always begins at its beginning.
    Sequential {
        /// The state that the stream starts from.
        seed: u64,
    },
}

impl Stream {
    /// The stream called `indexed` or `sequential`.
    pub fn named(name: &str, seed: u64, first: u64) -> Result<Self, MazeError> {
        match name {
            "indexed" => Ok(Stream::Indexed { seed, first }),
            "sequential" if first > 0 => Err(MazeError::First { first }),
            "sequential" => Ok(Stream::Sequential { seed }),
            _ => Err(MazeError::unknown("maze stream", name, &["indexed", "sequential"])),
        }
    }

    /// The first `count` mazes of the stream, whatever the number of threads.
    pub fn mazes(
        self,
        pool: &Pool,
        options: &MazeOptions,
        count: usize,
    ) -> Result<Vec<Maze>, MazeError> {
        options.check()?;
        match self {
            Stream::Indexed { seed, first } => {
                let mut mazes: Vec<Option<Maze>> = vec![None; count];
                pool.for_rows(&mut mazes, 1, 1, |start, mazes| {
                    for (maze, index) in mazes.iter_mut().zip(start as u64..) {
                        let mut lcg = Lcg::at(seed, first.wrapping_add(index));
                        *maze = Some(options.make(&mut lcg));
                    }
                });
                Ok(mazes.into_iter().flatten().collect())
            }
            Stream::Sequential { seed } => Ok(options.sequence(seed)?.take(count).collect()),
        }
    }
}

/// Where a batch of N mazes with routes of R steps is written.
#[derive(Debug)]
pub struct BatchBuffers<'a> {
    /// f32[N, 3, S, S]: see [`Maze::render`].
    pub pixels: &'a mut [f32],
    /// u8[N, R]: the moves of the route, cut at R, padded with waits.
    pub targets: &'a mut [u8],
    /// i32\[N\]: steps of the whole route.
    pub lengths: &'a mut [i32],
    /// u8[N, R]: bit m is set where move m is right at that step of the route.
    pub optimal: &'a mut [u8],
    /// u8[N, S, S]: the same for every pixel; 0 on walls.
    pub directions: &'a mut [u8],
}

/// One maze's part of the buffers.
struct Row<'a> {
    maze: Option<Maze>,
    pixels: &'a mut [f32],
    targets: &'a mut [u8],
    length: &'a mut i32,
    optimal: &'a mut [u8],
    directions: &'a mut [u8],
}

impl BatchBuffers<'_> {
    /// Writes the mazes of `stream` that the buffers have room for.
    pub fn fill(
        self,
        pool: &Pool,
        options: &MazeOptions,
        stream: Stream,
        route_length: usize,
    ) -> Result<(), MazeError> {
        options.check()?;
        let count = self.lengths.len();
        // A sequential stream has to be followed on one thread.
        let made = match stream {
            Stream::Indexed { .. } => Vec::new(),
            Stream::Sequential { .. } => stream.mazes(pool, options, count)?,
        };
        let mut rows = self.rows(options.size, route_length, made)?;
        pool.for_rows(&mut rows, 1, 1, |start, rows| {
            for (row, index) in rows.iter_mut().zip(start as u64..) {
                if let Stream::Indexed { seed, first } = stream {
                    let mut lcg = Lcg::at(seed, first.wrapping_add(index));
                    row.maze = Some(options.make(&mut lcg));
                }
                row.write();
            }
        });
        Ok(())
    }
}

impl<'a> BatchBuffers<'a> {
    /// One row a maze, those in `made` at the front.
    fn rows(
        self,
        size: usize,
        route_length: usize,
        made: Vec<Maze>,
    ) -> Result<Vec<Row<'a>>, MazeError> {
        if route_length == 0 {
            return Err(MazeError::RouteLength);
        }
        let (count, plane) = (self.lengths.len(), size * size);
        for (buffer, found, row) in [
            ("pixels", self.pixels.len(), CHANNELS * plane),
            ("targets", self.targets.len(), route_length),
            ("optimal", self.optimal.len(), route_length),
            ("directions", self.directions.len(), plane),
        ] {
            let expected = count.saturating_mul(row);
            if found != expected {
                return Err(MazeError::Buffer { buffer, expected, found });
            }
        }
        let mut made = made.into_iter();
        let rows = (self.pixels.chunks_exact_mut(CHANNELS * plane))
            .zip(self.targets.chunks_exact_mut(route_length))
            .zip(self.lengths)
            .zip(self.optimal.chunks_exact_mut(route_length))
            .zip(self.directions.chunks_exact_mut(plane))
            .map(|((((pixels, targets), length), optimal), directions)| Row {
                maze: made.next(),
                pixels,
                targets,
                length,
                optimal,
                directions,
            })
            .collect();
        Ok(rows)
    }
}

impl Row<'_> {
    fn write(&mut self) {
        let Some(maze) = self.maze.take() else { return };
        maze.render(self.pixels);
        let solution = maze.solve();
        solution.write_targets(self.targets, self.optimal);
        *self.length = solution.length() as i32;
        self.directions.copy_from_slice(solution.directions());
    }
}

/// A batch that owns its buffers: the fields of [`BatchBuffers`] as tensors.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct MazeBatch {
    pub pixels: Tensor,
    pub targets: Tensor,
    pub lengths: Tensor,
    pub optimal: Tensor,
    pub directions: Tensor,
}

impl MazeBatch {
    /// Elements of one buffer: 8 GiB of pixels.
    const MOST_ELEMENTS: usize = 1 << 31;

    /// Makes `count` mazes.
    pub fn new(
        pool: &Pool,
        options: &MazeOptions,
        stream: Stream,
        count: usize,
        route_length: usize,
    ) -> Result<Self, MazeError> {
        options.check()?;
        Self::filled(options.size, count, route_length, |buffers| {
            buffers.fill(pool, options, stream, route_length)
        })
    }

    /// The mazes given, all of `size` pixels a side, solved and drawn.
    pub fn of(
        pool: &Pool,
        size: usize,
        mazes: Vec<Maze>,
        route_length: usize,
    ) -> Result<Self, MazeError> {
        Self::filled(size, mazes.len(), route_length, |buffers| {
            let mut rows = buffers.rows(size, route_length, mazes)?;
            pool.for_rows(&mut rows, 1, 1, |_, rows| rows.iter_mut().for_each(Row::write));
            Ok(())
        })
    }

    fn filled(
        size: usize,
        count: usize,
        route_length: usize,
        fill: impl FnOnce(BatchBuffers<'_>) -> Result<(), MazeError>,
    ) -> Result<Self, MazeError> {
        let plane = size * size;
        let longest = (CHANNELS * plane).max(route_length);
        if count.checked_mul(longest).is_none_or(|elements| elements > Self::MOST_ELEMENTS) {
            return Err(MazeError::TooMany { count, size, route_length });
        }
        let mut pixels = vec![0.0; count * CHANNELS * plane];
        let mut targets = vec![0; count * route_length];
        let mut lengths = vec![0; count];
        let mut optimal = vec![0; count * route_length];
        let mut directions = vec![0; count * plane];
        fill(BatchBuffers {
            pixels: &mut pixels,
            targets: &mut targets,
            lengths: &mut lengths,
            optimal: &mut optimal,
            directions: &mut directions,
        })?;
        let tensor = |shape: &[usize], data| {
            Tensor::new(shape, data).expect("the buffers were made for these shapes")
        };
        let steps = [count, route_length];
        Ok(MazeBatch {
            pixels: tensor(&[count, CHANNELS, size, size], Data::F32(pixels)),
            targets: tensor(&steps, Data::U8(targets)),
            lengths: tensor(&[count], Data::I32(lengths)),
            optimal: tensor(&steps, Data::U8(optimal)),
            directions: tensor(&[count, size, size], Data::U8(directions)),
        })
    }
}
