//! What can be wrong with a checkpoint, each with the file and the reason.

use std::io;
use std::path::Path;

use crate::text::{one_line, one_message};

/// The one thing for which a missing file is what it sounds like.
pub(crate) const OPEN: &str = "open";

/// A checkpoint that could not be read or written: one line, the file first.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint `{}`: {}", one_line(&path.to_string_lossy()), one_message(&reason.to_string()))]
pub struct CheckpointError {
    /// The file.
    pub path: Box<Path>,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    // ---- the file --------------------------------------------------------
    /// Nothing is there.
    #[error("there is no such file; check the path")]
    NotFound,
    /// The folder to save into is not there.
    #[error("its folder does not exist; create it first")]
    NoFolder,
    /// The system refuses access.
    #[error("no permission to {doing} it; check the owner and mode of the file and its folder")]
    Permission {
        /// What was attempted.
        doing: &'static str,
    },
    /// The disk or the quota is exhausted.
    #[error(
        "no space left to {doing} it; free some space and save again (the old file is unharmed)"
    )]
    NoSpace {
        /// What was attempted.
        doing: &'static str,
    },
    /// A folder, pipe, socket or device.
    #[error("it is {kind}, not a regular file; give the path of a checkpoint")]
    NotRegular {
        /// What it is instead.
        kind: &'static str,
    },
    /// The path has no last part that could name a file.
    #[error("the path names no file; add a file name")]
    NoName,
    /// Anything else that the system reports.
    #[error("could not {doing} it: {error}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// Larger than the limit.
    #[error("it has {bytes} bytes, more than the limit of {limit}; raise the limit to read it")]
    TooLarge {
        /// Its size, or the size that it needs.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// There is no memory for it.
    #[error("it has {bytes} bytes, more than there is memory for")]
    NoMemory {
        /// Its size.
        bytes: u64,
    },
    /// It grew or shrank while it was read.
    #[error("it changed while it was read; read it again when its writer is done")]
    Changed,
    /// Its SHA-256 is not the one that was pinned.
    #[error("its SHA-256 is {found}, but {expected} was expected: it is another file")]
    Pin {
        /// The pinned digest.
        expected: String,
        /// Its own.
        found: String,
    },

    // ---- the format ------------------------------------------------------
    /// It ends too early.
    #[error("it is truncated: it should have {expected} bytes, it has {found}")]
    Truncated {
        /// What its header announces.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// It goes on after its end.
    #[error("it has {extra} bytes after its last tensor")]
    Trailing {
        /// How many.
        extra: u64,
    },
    /// The header is no header.
    #[error("it is no safetensors file: {detail}")]
    Header {
        /// What is wrong.
        detail: String,
    },
    /// A safetensors file of somebody else.
    #[error("it is a safetensors file, but not a modgrad checkpoint ({detail})")]
    Foreign {
        /// How it shows.
        detail: String,
    },
    /// Written by a later modgrad.
    #[error("it has format version {version}, this modgrad reads 1; update modgrad")]
    FutureVersion {
        /// Its version.
        version: String,
    },
    /// A name stands twice in the header.
    #[error("the name `{name}` stands in its header twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A type that checkpoints do not hold.
    #[error("tensor `{tensor}` has type `{dtype}`; checkpoints hold F32, I32 and U8")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// Two tensors share bytes.
    #[error("tensor `{tensor}` overlaps the one before it")]
    Overlap {
        /// The later tensor.
        tensor: String,
    },
    /// Bytes that belong to no tensor.
    #[error("there are {bytes} bytes of no tensor before `{tensor}`")]
    Gap {
        /// The tensor after them.
        tensor: String,
        /// How many.
        bytes: u64,
    },
    /// A tensor that starts between two elements of its type.
    #[error("tensor `{tensor}` is not aligned to its elements")]
    Unaligned {
        /// The tensor.
        tensor: String,
    },
    /// A shape that its bytes do not fill.
    #[error("tensor `{tensor}` has {found} bytes, its shape and type need {expected}")]
    Size {
        /// The tensor.
        tensor: String,
        /// What shape and type need; a word where that is beyond counting.
        expected: String,
        /// What its offsets give it.
        found: String,
    },
    /// A byte is not what it was when the file was written.
    #[error("it is damaged: its content does not match its own digest; use another copy")]
    Damaged,

    // ---- the content -----------------------------------------------------
    /// A program that cannot be read.
    #[error("its program `{program}` cannot be read: {error}")]
    Program {
        /// The program's name.
        program: String,
        /// Why.
        error: modgrad_graph::Error,
    },
    /// Programs or meta data that are not what they should be.
    #[error("its entry `{entry}` cannot be read: {detail}")]
    Entry {
        /// The entry.
        entry: &'static str,
        /// Why.
        detail: String,
    },
    /// A weight that a program declares is not there.
    #[error("its program `{program}` needs the parameter `{parameter}`, which it does not hold")]
    MissingParameter {
        /// The program.
        program: String,
        /// The parameter.
        parameter: String,
    },
    /// A weight of another shape or type than a program declares.
    #[error(
        "its program `{program}` declares the parameter `{parameter}` as {expected}, it holds {found}"
    )]
    Parameter {
        /// The program.
        program: String,
        /// The parameter.
        parameter: String,
        /// As declared.
        expected: String,
        /// As held.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("its weight `{tensor}` is not finite at element {element}")]
    NonFinite {
        /// The weight.
        tensor: String,
        /// The first such element.
        element: usize,
    },
}

impl Reason {
    /// The error for this reason in the given file.
    pub(crate) fn at(self, path: &Path) -> CheckpointError {
        CheckpointError { path: path.into(), reason: self }
    }

    /// The reason behind what the system reports.
    pub(crate) fn from_io(error: io::Error, doing: &'static str) -> Reason {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound if doing == OPEN => Reason::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Reason::Permission { doing }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Reason::NoSpace { doing }
            }
            ErrorKind::IsADirectory => Reason::NotRegular { kind: "a folder" },
            _ => Reason::Io { doing, error },
        }
    }

    pub(crate) fn header(detail: impl AsRef<str>) -> Reason {
        Reason::Header { detail: one_line(detail.as_ref()) }
    }
}
