//! Why there is no maze.

use super::{LEAST_SIZE, MOST_SIZE};
use crate::text::one_line;

/// A refusal: what was asked for, what is possible.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MazeError {
    /// Walls and cells alternate, so a side is odd.
    #[error(
        "a maze of {size}x{size} pixels is impossible: the size must be odd, from {LEAST_SIZE} to {MOST_SIZE}, such as 21"
    )]
    Size {
        /// As asked for.
        size: usize,
    },
    /// A share lies between none and all.
    #[error("loops {loops} is not a share of the walls: it must lie between 0 and 1, such as 0.05")]
    Loops {
        /// As asked for.
        loops: f64,
    },
    /// A route without a step predicts nothing.
    #[error("a route length of 0 leaves nothing to predict: it must be at least 1")]
    RouteLength,
    /// More than can be held.
    #[error(
        "{count} mazes of {size}x{size} pixels with routes of {route_length} steps do not fit in memory: ask for fewer at a time"
    )]
    TooMany {
        /// Mazes asked for.
        count: usize,
        /// Their size.
        size: usize,
        /// Steps of a route.
        route_length: usize,
    },
    /// A buffer for a batch has another length than the batch.
    #[error("buffer `{buffer}` holds {found} elements, the batch has {expected}")]
    Buffer {
        /// Which buffer.
        buffer: &'static str,
        /// What the batch needs.
        expected: usize,
        /// What it is.
        found: usize,
    },
    /// Walls, start and goal that are no maze.
    #[error("this is no maze: {reason}")]
    Impossible {
        /// What it lacks.
        reason: &'static str,
    },
    /// One of several.
    #[error("maze {index}: {error}")]
    At {
        /// Which one, from 0.
        index: usize,
        /// What is the matter with it.
        error: Box<MazeError>,
    },
    /// A sequential stream has no place to start from but its beginning.
    #[error(
        "a sequential stream of mazes cannot start at maze {first}: leave `first` out, or use the indexed stream"
    )]
    First {
        /// As asked for.
        first: u64,
    },
    /// A name that stands for nothing.
    #[error("`{found}` is no {what}: there are {known}")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// As given.
        found: String,
        /// The names that there are.
        known: String,
    },
}

impl MazeError {
    pub(super) fn unknown(what: &'static str, found: &str, known: &[&str]) -> Self {
        MazeError::Unknown { what, found: one_line(found), known: known.join(", ") }
    }
}
