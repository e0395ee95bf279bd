//! Why a model has no score on mazes.

use crate::maze_gen::MazeError;
use crate::text::one_message;

/// A refusal: what was expected, what was found.
#[derive(Debug, thiserror::Error)]
pub enum MazeEvalError {
    // ---- what was asked for ----------------------------------------------
    /// There are no such mazes.
    #[error(transparent)]
    Maze(#[from] MazeError),
    /// A setting makes no sense.
    #[error("option `{option}`: {reason}")]
    Option {
        /// The setting.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// More steps than the program predicts.
    #[error(
        "a route length of {asked} was asked for, but program `{program}` predicts {found} steps; ask for 1 to {found}, or leave it out"
    )]
    RouteLength {
        /// The program.
        program: String,
        /// As asked for.
        asked: usize,
        /// The program's own.
        found: usize,
    },
    /// The caller asked to stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// The system gave no secret to probe with.
    #[error("the system has no randomness to give: {0}")]
    Randomness(getrandom::Error),

    // ---- the checkpoint --------------------------------------------------
    /// There is no program for mazes of this size.
    #[error("the checkpoint has no program {asked}, it has only [{found}]")]
    NoProgram {
        /// The names that would have done.
        asked: String,
        /// The programs that there are.
        found: String,
    },
    /// The program reads something else than one batch of mazes.
    #[error(
        "program `{program}`: expected one input `pixels` f32[batch, 3, {size}, {size}], found [{found}]"
    )]
    Inputs {
        /// The program.
        program: String,
        /// The size of a maze, or what stands for any.
        size: String,
        /// Its inputs.
        found: String,
    },
    /// The program's result is no batch of routes.
    #[error(
        "program `{program}`: expected an output `logits` f32[{batch}, steps, 5], found {found}"
    )]
    Logits {
        /// The program.
        program: String,
        /// Mazes in a batch.
        batch: usize,
        /// As it is.
        found: String,
    },
    /// The program rolls dice.
    #[error("program `{program}` uses the op `dropout`: build it for evaluation, without")]
    Dropout {
        /// The program.
        program: String,
    },
    /// A parameter is missing, or not what the program declares.
    #[error("parameter `{name}`: {reason}")]
    Parameter {
        /// The parameter.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Mazes and program need more memory than they may have.
    #[error(
        "program `{program}` and {mazes} mazes need {needed} bytes of memory, the limit is {limit}; use a smaller batch or fewer mazes"
    )]
    Memory {
        /// The program.
        program: String,
        /// Mazes to score.
        mazes: usize,
        /// What they need.
        needed: usize,
        /// What they may have.
        limit: usize,
    },
    /// The program could not be prepared or run.
    #[error("program `{program}`: {}", one_message(&.error.to_string()))]
    Program {
        /// The program.
        program: String,
        /// What is wrong.
        error: modgrad_graph::Error,
    },

    // ---- the rules -------------------------------------------------------
    /// NaN or infinity among the logits.
    #[error("the logits of a maze are not finite at step {step}")]
    NonFinite {
        /// The step of the route, from 0.
        step: usize,
    },
    /// A prediction depends on what else is in the batch, or where in it.
    #[error(
        "the program mixes mazes: the logits of maze {maze} change with its place in the batch or with the other mazes there"
    )]
    CrossRow {
        /// The maze.
        maze: usize,
    },
    /// The same batch gave two results.
    #[error("the program keeps state: the logits of maze {maze} change when it is run again")]
    State {
        /// The maze.
        maze: usize,
    },
    /// The pinned mazes are far easier to it than others of their kind.
    #[error(
        "the program knows the pinned mazes: its first step is right on {pinned:.3} of them, on {fresh:.3} of others of their kind"
    )]
    Memorised {
        /// First-step accuracy on the pinned mazes.
        pinned: f64,
        /// On mazes of a secret seed.
        fresh: f64,
    },
}
