//! What the tests of this crate share: random operands and the table of rows.

#[allow(dead_code)] // Each test file uses a part.
pub mod compare;
#[allow(dead_code)]
pub mod program;
pub mod random;
pub mod rows;
#[allow(dead_code)]
pub mod updates;
