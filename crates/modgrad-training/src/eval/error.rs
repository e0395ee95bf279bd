//! Why a model has no score.

use crate::metrics::MetricError;
use crate::text::one_message;

/// A refusal: what was expected, what was found.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    // ---- what was asked for ----------------------------------------------
    /// There is no target in it.
    #[error("the data has {bytes} byte(s); scoring needs at least 2")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// It is not the text that was pinned.
    #[error("the data has SHA-256 {found}, but {expected} was pinned: it has been changed")]
    Pin {
        /// As pinned.
        expected: String,
        /// As found.
        found: String,
    },
    /// The program has another context than was asked for.
    #[error(
        "a context of {asked} was asked for, but the program was made for {program}; leave the context out"
    )]
    Context {
        /// As asked for.
        asked: usize,
        /// The program's own.
        program: usize,
    },
    /// A setting makes no sense.
    #[error("option `{option}`: {reason}")]
    Option {
        /// The setting.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// The system gave no secret to probe with.
    #[error("the system has no randomness to give: {0}")]
    Randomness(getrandom::Error),

    // ---- the checkpoint --------------------------------------------------
    /// There is no program to score.
    #[error("the checkpoint has no program `score`, it has only [{found}]")]
    NoProgram {
        /// The programs that there are.
        found: String,
    },
    /// The program reads something else than one batch of windows.
    #[error("program `score`: expected one input `tokens` u8[batch, context], found [{found}]")]
    Inputs {
        /// Its inputs.
        found: String,
    },
    /// The program's result is no batch of byte distributions.
    #[error("program `score`: expected an output `logits` {expected}, found {found}")]
    Logits {
        /// As it should be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The program rolls dice.
    #[error("program `score` uses the op `dropout`: build it for evaluation, without")]
    Dropout,
    /// A parameter is missing, or not what the program declares.
    #[error("parameter `{name}`: {reason}")]
    Parameter {
        /// The parameter.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program needs more memory than it may have.
    #[error(
        "program `score` needs {needed} bytes of memory, the limit is {limit}; use a smaller batch"
    )]
    Memory {
        /// What it needs.
        needed: usize,
        /// What it may have.
        limit: usize,
    },
    /// The program could not be prepared or run.
    #[error("program `score`: {}", one_message(&.0.to_string()))]
    Program(#[from] modgrad_graph::Error),

    // ---- the rules -------------------------------------------------------
    /// NaN or infinity among the logits.
    #[error("the logits of window {window} are not finite at row {row}")]
    NonFinite {
        /// The window.
        window: usize,
        /// The row within it.
        row: usize,
    },
    /// A prediction uses bytes that come after it.
    #[error(
        "the program is not causal: with the bytes after position {position} of window {window} {edit}, the logits of row {row} change, which may use bytes 0 to {row} only"
    )]
    Causality {
        /// The window.
        window: usize,
        /// The last byte that was left as it is.
        position: usize,
        /// The first row that changed.
        row: usize,
        /// What was done to the later bytes.
        edit: &'static str,
    },
    /// A prediction depends on what else is in the batch, or where in it.
    #[error(
        "the program mixes windows: the logits of window {window} change at row {row} with its place in the batch or with the other windows there"
    )]
    CrossRow {
        /// The window.
        window: usize,
        /// The first row that changed.
        row: usize,
    },
    /// The same batch gave two results.
    #[error(
        "the program keeps state: the logits of window {window} change at row {row} when it is scored again"
    )]
    State {
        /// The window.
        window: usize,
        /// The first row that changed.
        row: usize,
    },
    /// The costs do not add up to a score.
    #[error("the score cannot be formed: {0}")]
    Metric(MetricError),
}

impl From<MetricError> for EvalError {
    fn from(error: MetricError) -> Self {
        match error {
            MetricError::NonFinite { window, row } => EvalError::NonFinite { window, row },
            other => EvalError::Metric(other),
        }
    }
}
