//! What the tests of this crate share: random operands and the table of rows.

pub mod program;
pub mod random;
pub mod rows;
