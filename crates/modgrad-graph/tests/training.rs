//! The gradients that training accumulates, against the f64 reference.

use modgrad_graph::cpu::Cpu;
use modgrad_graph::storage::Precision;
use modgrad_testing::updates::assert_updates_agree;

#[test]
fn the_first_update_is_the_gradient_of_the_reference() {
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 1, false, false, |_| true);
}

#[test]
fn passes_on_the_same_data_have_the_same_mean() {
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 3, false, false, |_| true);
}

#[test]
fn gradients_in_bf16_are_near_the_reference() {
    assert_updates_agree(&Cpu::new(2), Precision::Bf16, 2e-2, 1, false, false, |_| true);
}

#[test]
fn sparse_tables_take_the_rows_that_were_read() {
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 1, true, false, |_| true);
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 3, true, false, |_| true);
    assert_updates_agree(&Cpu::new(2), Precision::Bf16, 2e-2, 2, true, false, |_| true);
}

#[test]
fn clipped_gradients_keep_their_direction() {
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 1, false, true, |_| true);
    assert_updates_agree(&Cpu::new(2), Precision::F32, 1e-5, 3, true, true, |_| true);
}
