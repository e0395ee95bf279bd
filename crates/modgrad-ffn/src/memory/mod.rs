//! Counted memory: which bytes followed each context of a training text, turned
//! into probability rows of many experts.
//!
//! A position's rows depend only on the bytes of its window up to it, and on
//! numbers that training has settled: nothing here is differentiated. The reader's
//! order: what contexts there are (`kind`), how their counts are kept (`table`), how
//! a text is counted (`count`), how a row backs off to another (`back_off`), and the
//! rows of a window (`rows`; filled by `scratch` with `context`, `tally` and `mixer`).

mod back_off;
mod config;
mod context;
mod count;
mod kind;
mod learned;
mod mix;
mod mixer;
mod rows;
mod scratch;
mod table;
mod tally;

pub use config::{MemoryConfig, MixerSets};
pub use count::{CountLimits, Memory};
pub use kind::ContextKind;
pub use learned::{Learned, Weights, lesson_size, weight_sizes};
pub use mix::{mix_rows, mix_rows_gradient};
pub use rows::{Batch, LEADING, Rows, STATISTICS, Surroundings, window_rows};
pub use scratch::Scratch;

#[cfg(test)]
mod tests;
