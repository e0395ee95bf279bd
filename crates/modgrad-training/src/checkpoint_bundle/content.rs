//! What the header of a checkpoint says, and how tensors and programs stand in
//! the file.

use modgrad_graph::{DType, Program, Tensor, TensorSpec, tensor::Data};
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::error::Reason;
use super::header::{Header, TensorInfo, Unique, read_unique};
use crate::digest::hex;
use crate::text::one_line;

/// The entry that says whose file it is.
pub(super) const FORMAT: &str = "modgrad checkpoint";
/// The one version that there is.
pub(super) const VERSION: &str = "1";
/// Stands in for the digest while it is computed.
pub(super) const NO_DIGEST: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// What the entry `programs` holds.
pub(super) fn programs_text(programs: &BTreeMap<String, Program>) -> String {
    let entry = |(name, program): (&String, &Program)| {
        format!("{}:{}", Value::from(name.as_str()), program.to_json())
    };
    let entries: Vec<String> = programs.iter().map(entry).collect();
    format!("{{{}}}", entries.join(","))
}

pub(super) fn check_format(header: &Header) -> Result<(), Reason> {
    let foreign = |detail: &str| Err(Reason::Foreign { detail: detail.to_owned() });
    match header.entries.get("format") {
        Some(format) if format == FORMAT => {}
        Some(format) => return foreign(&format!("its format is `{}`", one_line(format))),
        None => return foreign("it does not name its format"),
    }
    match header.entries.get("version").map(String::as_str) {
        Some(VERSION) => {}
        Some(version) if version.parse::<u64>().is_ok_and(|version| version > 1) => {
            return Err(Reason::FutureVersion { version: one_line(version) });
        }
        _ => return foreign("its version is none that ever was"),
    }
    let expected = ["format", "meta", "programs", "sha256", "version"];
    if !header.entries.keys().map(String::as_str).eq(expected) {
        return foreign("its metadata lacks entries or has others");
    }
    Ok(())
}

/// The header is in its one form, and the digest is that of everything else.
pub(super) fn check_digest(header: &Header, text: &[u8], data: &[u8]) -> Result<(), Reason> {
    let mut blank = header.clone();
    blank.entries.insert("sha256".into(), NO_DIGEST.into());
    let found = digest(&blank.to_bytes(), &[data]);
    if header.entries["sha256"] != found || header.to_bytes() != text {
        return Err(Reason::Damaged);
    }
    Ok(())
}

pub(super) fn digest(header: &[u8], data: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(header);
    data.iter().for_each(|part| hasher.update(part));
    hex(&hasher.finalize())
}

pub(super) fn read_programs(text: &str) -> Result<BTreeMap<String, Program>, Reason> {
    let texts: Unique<&RawValue> = read_unique(text)
        .map_err(|reason| Reason::Entry { entry: "programs", detail: reason.to_string() })?;
    let mut programs = BTreeMap::new();
    for (name, text) in texts.0 {
        let program = Program::from_json(text.get())
            .map_err(|error| Reason::Program { program: one_line(&name), error })?;
        programs.insert(name, program);
    }
    Ok(programs)
}

pub(super) fn read_meta(text: &str) -> Result<Map<String, Value>, Reason> {
    serde_json::from_str(text)
        .map_err(|error| Reason::Entry { entry: "meta", detail: error.to_string() })
}

pub(super) fn info(tensor: &Tensor, start: usize, end: usize) -> TensorInfo {
    let dtype = match tensor.dtype() {
        DType::F32 => "F32",
        DType::I32 => "I32",
        DType::U8 => "U8",
    };
    TensorInfo {
        dtype: dtype.to_owned(),
        shape: tensor.shape().to_vec(),
        data_offsets: (start, end),
    }
}

/// Copies a tensor out of the file; the layout has been checked.
pub(super) fn read_tensor(name: &str, info: &TensorInfo, data: &[u8]) -> Result<Tensor, Reason> {
    let wrong =
        || Reason::Truncated { expected: info.data_offsets.1 as u64, found: data.len() as u64 };
    let bytes = data.get(info.data_offsets.0..info.data_offsets.1).ok_or_else(wrong)?;
    let words = bytes.as_chunks().0.iter().copied();
    let data = match info.dtype.as_str() {
        "F32" => Data::F32(words.map(f32::from_le_bytes).collect()),
        "I32" => Data::I32(words.map(i32::from_le_bytes).collect()),
        _ => Data::U8(bytes.to_vec()),
    };
    Tensor::new(info.shape.clone(), data).map_err(|_| Reason::Size {
        tensor: one_line(name),
        expected: TensorSpec::new(info.shape.clone(), DType::U8).to_string(),
        found: bytes.len().to_string(),
    })
}

// Tensors hand out their bytes in host order, the file's order is this.
#[cfg(not(target_endian = "little"))]
compile_error!("checkpoints are written on little-endian machines only");
