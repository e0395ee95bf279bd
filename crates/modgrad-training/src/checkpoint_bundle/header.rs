//! The header of a checkpoint: safetensors' own, written in one fixed form.
//!
//! A safetensors file is an eight-byte length, a JSON header of that length and
//! the tensors' bytes. Any reader of safetensors reads ours; we read only what
//! we wrote. The same content always gives the same bytes, and a file whose
//! header is not the one form of what it says is refused. The `safetensors`
//! crate would let a doubled name pass and writes its metadata in random order,
//! so it serves as the tests' second opinion only.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use super::error::Reason;
use crate::text::one_line;

/// The key of the text entries.
const METADATA: &str = "__metadata__";
/// What a doubled name is reported as by [`Unique`].
const TWICE: &str = "a name stands twice: ";
/// Bytes before the header.
pub(super) const LENGTH_BYTES: usize = 8;

/// Text entries and tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Header {
    pub(super) entries: BTreeMap<String, String>,
    pub(super) tensors: Vec<(String, TensorInfo)>,
}

/// A tensor's type, shape and place after the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorInfo {
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) data_offsets: (usize, usize),
}

impl TensorInfo {
    /// Bytes an element takes, for the types that checkpoints hold.
    pub(super) fn element_size(&self) -> Option<usize> {
        match self.dtype.as_str() {
            "F32" | "I32" => Some(4),
            "U8" => Some(1),
            _ => None,
        }
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(METADATA, &self.entries)?;
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

impl Header {
    /// The length and the header, padded with spaces so that tensors are aligned.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("names and numbers are plain data");
        text.resize(text.len().next_multiple_of(LENGTH_BYTES), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        bytes
    }

    /// Reads the header at the start of a file, and returns how long it is with
    /// its length.
    pub(super) fn from_bytes(file: &[u8], most: usize) -> Result<(Header, usize), Reason> {
        let found = file.len() as u64;
        let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(Reason::Truncated { expected: LENGTH_BYTES as u64, found });
        };
        let length = u64::from_le_bytes(*length);
        if length > most as u64 {
            return Err(Reason::header(format!(
                "its first bytes announce a header of {length} bytes, the limit is {most}"
            )));
        }
        let text = rest
            .get(..length as usize)
            .ok_or(Reason::Truncated { expected: length + LENGTH_BYTES as u64, found })?;
        let text = std::str::from_utf8(text).map_err(|error| Reason::header(error.to_string()))?;
        let header = Header::from_text(text)?;
        Ok((header, LENGTH_BYTES + length as usize))
    }

    fn from_text(text: &str) -> Result<Header, Reason> {
        let raw: Unique<&serde_json::value::RawValue> = read_unique(text)?;
        let mut header = Header::default();
        for (name, value) in raw.0 {
            if name == METADATA {
                let entries: Unique<String> = read_unique(value.get())?;
                header.entries = entries.0.into_iter().collect();
            } else {
                let info = serde_json::from_str(value.get()).map_err(|error| {
                    Reason::header(format!("tensor `{}`: {error}", one_line(&name)))
                })?;
                header.tensors.push((name, info));
            }
        }
        Ok(header)
    }

    /// Checks that the tensors are of known types and fill `data` bytes without
    /// overlap or gap.
    pub(super) fn check_layout(&self, header: usize, data: usize) -> Result<(), Reason> {
        let mut order: Vec<_> = self.tensors.iter().collect();
        order.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        for (name, info) in order {
            let tensor = || one_line(name);
            let (start, stop) = info.data_offsets;
            let Some(size) = info.element_size() else {
                let dtype = one_line(&info.dtype);
                return Err(Reason::UnknownDtype { tensor: tensor(), dtype });
            };
            let elements = info.shape.iter().try_fold(size, |n, &axis| n.checked_mul(axis));
            if elements.is_none() || stop.checked_sub(start) != elements {
                let words = |bytes: Option<usize>| {
                    bytes.map_or("too many".to_owned(), |bytes| bytes.to_string())
                };
                let found = stop.checked_sub(start).map_or("no".to_owned(), |n| n.to_string());
                return Err(Reason::Size { tensor: tensor(), expected: words(elements), found });
            }
            if start < end {
                return Err(Reason::Overlap { tensor: tensor() });
            }
            if start > end {
                let bytes = (start - end) as u64;
                return Err(Reason::Gap { tensor: tensor(), bytes });
            }
            if !(header + start).is_multiple_of(size) {
                return Err(Reason::Unaligned { tensor: tensor() });
            }
            end = stop;
        }
        let (expected, found) = ((header as u64).saturating_add(end as u64), header + data);
        match data.checked_sub(end) {
            None => Err(Reason::Truncated { expected, found: found as u64 }),
            Some(0) => Ok(()),
            Some(extra) => Err(Reason::Trailing { extra: extra as u64 }),
        }
    }
}

/// A JSON object in its own order, refused where a name stands twice.
pub(super) struct Unique<V>(pub(super) Vec<(String, V)>);

/// Reads a JSON object without doubled names.
pub(super) fn read_unique<'a, V: Deserialize<'a>>(text: &'a str) -> Result<Unique<V>, Reason> {
    serde_json::from_str(text).map_err(|error| {
        let detail = error.to_string();
        match detail.strip_prefix(TWICE) {
            Some(rest) => {
                // serde_json adds the place: " at line 1 column 80".
                let name = rest.rsplit_once(" at line ").map_or(rest, |(name, _)| name);
                Reason::Duplicate { name: one_line(name) }
            }
            None => Reason::header(detail),
        }
    })
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("{TWICE}{name}")));
                    }
                    entries.push((name, value));
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
