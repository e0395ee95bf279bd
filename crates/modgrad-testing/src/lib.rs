//! What tests of backends and the self-test of a card share: random operands, the table of
//! ops with operands, and the comparison of a backend with the f64 reference.

#![allow(missing_docs)] // Fields are what their names say.

pub mod compare;
pub mod program;
pub mod random;
pub mod rows;
pub mod updates;
