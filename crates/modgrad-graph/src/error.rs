//! What can be wrong with a program or a run of it, each with its subject.

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error names the op or tensor, what was expected and what was found.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The operands of an op do not fit together.
    #[error("`{op}`: expected {expected}, found {found}")]
    Shape {
        /// The op's name.
        op: &'static str,
        /// What would fit.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An attribute of an op has no meaning.
    #[error("`{op}`: {reason}")]
    Attribute {
        /// The op's name.
        op: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The program holds an op that this build does not know.
    #[error("the program uses the op `{name}`, which this version of modgrad does not have")]
    UnknownOp {
        /// The unknown op's name.
        name: String,
    },
    /// The program's text or structure is broken.
    #[error("the program is malformed: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// A gradient was asked for through an op that has none.
    #[error("`{op}` has no gradient with respect to {operand}")]
    NotDifferentiable {
        /// The op's name.
        op: &'static str,
        /// The operand in question.
        operand: String,
    },
    /// A named input, output or parameter is missing or unexpected.
    #[error("{kind} `{name}`: {reason}")]
    Named {
        /// "input", "output" or "parameter".
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A device has no kernel for an op.
    #[error("`{op}` is not yet on the device")]
    NotOnDevice {
        /// The op's name.
        op: &'static str,
    },
    /// A device, or a library that it needs, failed.
    #[error("{message}")]
    Device {
        /// What was found, what was expected and what to do.
        message: String,
    },
    /// A value that must be finite is not.
    #[error("{subject} is not finite")]
    NonFinite {
        /// What holds NaN or infinity.
        subject: String,
    },
}

impl Error {
    pub(crate) fn shape(
        op: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Shape { op, expected: expected.into(), found: found.into() }
    }

    pub(crate) fn attribute(op: &'static str, reason: impl Into<String>) -> Self {
        Error::Attribute { op, reason: reason.into() }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Error::Malformed { reason: reason.into() }
    }

    pub(crate) fn named(kind: &'static str, name: &str, reason: impl Into<String>) -> Self {
        Error::Named { kind, name: name.to_owned(), reason: reason.into() }
    }
}
