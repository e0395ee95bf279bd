//! Contexts of bytes: each window by itself.

use modgrad_compute::Pool;
use modgrad_ffn::{NgramHash, WordHash};

use super::Array;
use crate::error::Result;
use crate::tensor::DType;

/// out[b, t, j] = tokens[b, t − j], or 256 before the window.
pub(super) fn byte_context(length: usize, tokens: &Array) -> Result<Array> {
    bytes(tokens)?;
    let shape = [tokens.shape[0], tokens.shape[1], length];
    Ok(Array::from_fn(&shape, |index| match index[1].checked_sub(index[2]) {
        Some(position) => tokens.at(&[index[0], position]),
        None => 256.0,
    }))
}

pub(super) fn ngram_hash(hash: &NgramHash, tokens: &Array) -> Result<Array> {
    let slots = hash.orders.len();
    hashed(slots, tokens, |batch, time, tokens, out| {
        modgrad_ffn::ngram_hash(&Pool::new(1), hash, batch, time, tokens, out);
    })
}

pub(super) fn word_hash(hash: &WordHash, tokens: &Array) -> Result<Array> {
    let slots = hash.kinds.len();
    hashed(slots, tokens, |batch, time, tokens, out| {
        modgrad_ffn::word_hash(&Pool::new(1), hash, batch, time, tokens, out);
    })
}

/// The hash functions are definitions of their own, so they are called as they
/// are, but for results without elements.
fn hashed(
    slots: usize,
    tokens: &Array,
    hash: impl Fn(usize, usize, &[u8], &mut [i32]),
) -> Result<Array> {
    let (batch, time) = (tokens.shape[0], tokens.shape[1]);
    let bytes = bytes(tokens)?;
    let mut out = vec![0; batch * time * slots];
    if !out.is_empty() {
        hash(batch, time, &bytes, &mut out);
    }
    let data = out.into_iter().map(f64::from).collect();
    Ok(Array::new(&[batch, time, slots], data))
}

fn bytes(tokens: &Array) -> Result<Vec<u8>> {
    let values = tokens.integers(0.0, 255.0, DType::U8)?;
    Ok(values.into_iter().map(|value| value as u8).collect())
}
