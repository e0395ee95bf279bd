//! Contexts of byte models: the last bytes, and hashes of n-grams and words.
//!
//! Every function here maps tokens `[B, T]` to indices `[B, T, K]`, one window
//! a row. Nothing before position 0 of a window exists, and the indices of
//! position t depend on the bytes 0..=t of that window only. What is looked up
//! with the indices (embedding rows, counts) belongs to others.

pub mod context;
pub mod hash;
pub mod memory;
pub mod ngram;
pub mod word;

pub use context::byte_context;
pub use ngram::{NgramHash, ngram_hash};
pub use word::{WordHash, WordKind, word_hash};

/// Panics unless the slices have the lengths that the sizes ask for.
fn check_lengths(name: &str, batch: usize, time: usize, slots: usize, tokens: usize, out: usize) {
    assert_eq!(tokens, batch * time, "`{name}`: tokens must be [batch, time] = [{batch}, {time}]");
    assert_eq!(
        out,
        batch * time * slots,
        "`{name}`: out must be [batch, time, slots] = [{batch}, {time}, {slots}]"
    );
}

/// Whether `slots` times `rows` are indices that an i32 can hold.
fn check_rows(slots_name: &str, slots: usize, rows: usize) -> Result<(), String> {
    if rows == 0 {
        return Err("`rows` is 0; a hash needs at least one row".to_string());
    }
    match slots.checked_mul(rows) {
        Some(total) if total <= i32::MAX as usize => Ok(()),
        _ => Err(format!(
            "`{slots_name}` times `rows` ({slots} x {rows}) is more than an i32 index can reach"
        )),
    }
}
