//! Checkpoints: a model as data, in one safetensors file.
//!
//! The file holds tensors `model/<parameter>` and `optimiser/<state>`, and in
//! its metadata the programs, the caller's meta data and a SHA-256 of everything
//! else in the file. A flipped bit anywhere, a missing end, a number that is not
//! finite, a shape that a program does not declare: each is refused by name, on
//! saving as on loading. A save leaves the old file whole until the new one is.
//!
//! Optimiser state is not required to be finite: it decides no score.

mod atomic;
mod content;
mod error;
mod header;
mod read;

pub use atomic::{Before, Step};
pub use error::{CheckpointError, Reason};

use modgrad_graph::{Program, Tensor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

use crate::digest::same;
use crate::text::one_line;
use content::{FORMAT, NO_DIGEST, VERSION, digest};
use header::Header;

/// Where weights stand among the tensors.
const MODEL: &str = "model/";
/// Where the optimiser's state stands.
const OPTIMISER: &str = "optimiser/";

/// A model: its programs, its weights, and what training needs to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Programs by name; `score` is what evaluation runs.
    pub programs: BTreeMap<String, Program>,
    /// Parameters and buffers by the names that the programs give them.
    pub weights: BTreeMap<String, Tensor>,
    /// The optimiser's state.
    pub state: BTreeMap<String, Tensor>,
    /// Whatever else the run wants back: step, data cursor, budget spent.
    pub meta: Map<String, Value>,
}

/// What a file may be, to be loaded at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes.
    pub max_bytes: u64,
    /// The largest header: names, programs and meta data.
    pub max_header_bytes: usize,
    /// The SHA-256 that the whole file must have.
    pub expected_sha256: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_bytes: 16 << 30, max_header_bytes: 16 << 20, expected_sha256: None }
    }
}

impl Checkpoint {
    /// Writes the checkpoint in the place of `path`, and returns the SHA-256 of
    /// the file, as `sha256sum` prints it.
    pub fn save(&self, path: &Path) -> Result<String, CheckpointError> {
        self.save_with(path, &mut |_| Ok(()))
    }

    /// As [`Checkpoint::save`], calling `before` ahead of each step.
    pub fn save_with(&self, path: &Path, before: Before<'_>) -> Result<String, CheckpointError> {
        self.write(path, before).map_err(|reason| reason.at(path))
    }

    /// Reads the regular file at `path`.
    pub fn load(path: &Path, limits: &Limits) -> Result<Self, CheckpointError> {
        let load = || {
            let file = read::whole_file(path, limits.max_bytes)?;
            Self::from_file_bytes(&file, limits)
        };
        load().map_err(|reason| reason.at(path))
    }

    /// Reads a checkpoint from the bytes of its file; `origin` is what an error
    /// calls it.
    pub fn from_bytes(
        bytes: &[u8],
        origin: &Path,
        limits: &Limits,
    ) -> Result<Self, CheckpointError> {
        Self::from_file_bytes(bytes, limits).map_err(|reason| reason.at(origin))
    }

    fn write(&self, path: &Path, before: Before<'_>) -> Result<String, Reason> {
        self.check()?;
        let tensors = self.tensors_in_order();
        let mut header = Header::default();
        let mut end = 0;
        for (name, tensor) in &tensors {
            let start = end;
            end += tensor.bytes().len();
            header.tensors.push((name.clone(), content::info(tensor, start, end)));
        }
        let programs = content::programs_text(&self.programs);
        // An attribute that is not finite has no JSON.
        if content::read_programs(&programs)? != self.programs {
            let detail = "a program changes when it is written".to_owned();
            return Err(Reason::Entry { entry: "programs", detail });
        }
        let meta = Value::Object(self.meta.clone()).to_string();
        header.entries = BTreeMap::from([
            ("format".into(), FORMAT.into()),
            ("version".into(), VERSION.into()),
            ("programs".into(), programs),
            ("meta".into(), meta),
            ("sha256".into(), NO_DIGEST.into()),
        ]);
        let data: Vec<&[u8]> = tensors.iter().map(|(_, tensor)| tensor.bytes()).collect();
        let found = digest(&header.to_bytes(), &data);
        header.entries.insert("sha256".into(), found);
        let header = header.to_bytes();
        // A file that nobody may load is not written.
        let (most, length) = (Limits::default().max_header_bytes, header.len());
        if length > most {
            return Err(Reason::TooLarge { bytes: length as u64, limit: most as u64 });
        }
        let parts: Vec<&[u8]> = std::iter::once(&header[..]).chain(data).collect();
        atomic::replace(path, &parts, before)?;
        Ok(digest(parts[0], &parts[1..]))
    }

    fn from_file_bytes(file: &[u8], limits: &Limits) -> Result<Self, Reason> {
        if let Some(expected) = &limits.expected_sha256 {
            let found = crate::sha256_hex(file);
            if !same(expected, &found) {
                return Err(Reason::Pin { expected: one_line(expected), found });
            }
        }
        let (header, start) = Header::from_bytes(file, limits.max_header_bytes)?;
        content::check_format(&header)?;
        let (text, data) = file.split_at(start);
        header.check_layout(start, data.len())?;
        content::check_digest(&header, text, data)?;
        let mut checkpoint = Checkpoint {
            programs: content::read_programs(&header.entries["programs"])?,
            meta: content::read_meta(&header.entries["meta"])?,
            ..Checkpoint::default()
        };
        for (name, info) in &header.tensors {
            let tensor = content::read_tensor(name, info, data)?;
            if let Some(name) = name.strip_prefix(MODEL) {
                checkpoint.weights.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(OPTIMISER) {
                checkpoint.state.insert(name.to_owned(), tensor);
            } else {
                let detail =
                    format!("its tensor `{}` is neither model/ nor optimiser/", one_line(name));
                return Err(Reason::Foreign { detail });
            }
        }
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Weights are finite and as every program declares them.
    fn check(&self) -> Result<(), Reason> {
        for (name, tensor) in &self.weights {
            let bad = |values: &[f32]| values.iter().position(|value| !value.is_finite());
            if let Some(element) = tensor.as_f32().and_then(bad) {
                return Err(Reason::NonFinite { tensor: one_line(name), element });
            }
        }
        for (program_name, program) in &self.programs {
            for (name, value) in program.parameters() {
                let (program_name, parameter) = (one_line(program_name), one_line(name));
                let expected = program.spec(value);
                let Some(tensor) = self.weights.get(name) else {
                    return Err(Reason::MissingParameter { program: program_name, parameter });
                };
                let found = tensor.spec();
                if *expected != found {
                    return Err(Reason::Parameter {
                        program: program_name,
                        parameter,
                        expected: expected.to_string(),
                        found: found.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Widest elements first, so that each tensor is aligned; then by name.
    fn tensors_in_order(&self) -> Vec<(String, &Tensor)> {
        let weights = self.weights.iter().map(|(name, tensor)| (format!("{MODEL}{name}"), tensor));
        let state = self.state.iter().map(|(name, tensor)| (format!("{OPTIMISER}{name}"), tensor));
        let mut tensors: Vec<_> = weights.chain(state).collect();
        tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size()));
        tensors
    }
}
