//! The trusted part of modgrad: what decides whether a number counts.
//!
//! A model reaches this crate as data, a [`Checkpoint`]: weights and a static
//! program. [`eval_ffn`] and [`eval_mazes()`] run the program on compiled kernels
//! and score it; no code of whoever trained the model takes part. Researchers may
//! read this crate and may not edit it.
//!
//! Reading order: `metrics` (what the number is), `eval` (how it is measured on
//! text and what is refused), `maze_gen` (mazes), `eval_mazes` (the same on them),
//! `checkpoint_bundle` (the file), `autoresearch` (the summary that is printed).

pub mod autoresearch;
pub mod checkpoint_bundle;
mod digest;
pub mod eval;
pub mod eval_mazes;
mod loading;
pub mod maze_gen;
pub mod metrics;
mod random;
mod text;

pub use autoresearch::Summary;
pub use checkpoint_bundle::{Checkpoint, CheckpointError, Limits};
pub use digest::sha256_hex;
pub use eval::{EvalError, EvalOptions, LanguageScore, eval_ffn};
pub use eval_mazes::{MazeEvalError, MazeEvalOptions, MazeScore, eval_mazes};
pub use maze_gen::{Maze, MazeError, MazeOptions};
