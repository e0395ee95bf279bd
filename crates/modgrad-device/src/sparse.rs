//! Gradients of the few rows of a table that a step touches.

/// Rows that were touched, and their gradients.
pub struct SparseGradient {
    /// Rows of the table.
    pub(crate) _rows: usize,
    /// Columns of the table.
    pub(crate) _width: usize,
}
