//! Gradients that are added up over passes, dense and sparse, against the f64 reference.

mod common;

use common::device;
use modgrad_graph::Op;
use modgrad_graph::storage::Precision;
use modgrad_testing::updates::assert_updates_agree;

/// Ops that write gradients of parameters in place, or a table's row by row.
fn adds(op: &Op) -> bool {
    matches!(op, Op::MatMul { .. } | Op::Linear | Op::Embedding | Op::EmbeddingBag)
}

fn assert_agree(precision: Precision, tolerance: f64, passes: usize, sparse: bool, clip: bool) {
    let device = device();
    assert_updates_agree(&device, precision, tolerance, passes, sparse, clip, adds);
}

#[test]
fn dense_gradients_agree_with_the_reference() {
    assert_agree(Precision::F32, 1e-5, 1, false, false);
    assert_agree(Precision::F32, 1e-5, 3, false, false);
    assert_agree(Precision::Bf16, 2e-2, 2, false, false);
}

#[test]
fn sparse_gradients_agree_with_the_reference() {
    assert_agree(Precision::F32, 1e-5, 1, true, false);
    assert_agree(Precision::F32, 1e-5, 3, true, false);
    assert_agree(Precision::Bf16, 2e-2, 2, true, false);
}

#[test]
fn clipped_gradients_agree_with_the_reference() {
    assert_agree(Precision::F32, 1e-5, 1, false, true);
    assert_agree(Precision::F32, 1e-5, 3, true, true);
    assert_agree(Precision::Bf16, 2e-2, 2, true, true);
}
