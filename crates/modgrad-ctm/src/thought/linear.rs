//! A layer whose weight is [outputs, inputs], over the rows of one tick.

use modgrad_compute::Pool;
use modgrad_compute::thin::{self, LANES, Panels};

use super::packed::padded;

/// Rows go in and come out with zeros behind them, up to whole blocks.
pub(super) struct Linear {
    /// Of the weight as it stands, so that forwards is the adjoint of its product.
    panels: Panels,
    bias: Vec<f32>,
    zeros: Vec<f32>,
}

impl Linear {
    pub(super) fn new(pool: &Pool, weight: &[f32], bias: &[f32], inputs: usize) -> Linear {
        let outputs = bias.len().next_multiple_of(LANES);
        Linear {
            panels: Panels::new(pool, weight, outputs, inputs, 1),
            bias: padded(bias, outputs),
            zeros: vec![0.0; inputs.next_multiple_of(LANES)],
        }
    }

    /// y [ROWS][outputs] from x [ROWS][inputs].
    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        thin::product_adjoint(x, &self.panels, y);
        for row in y.chunks_exact_mut(self.bias.len()) {
            for (y, bias) in row.iter_mut().zip(&self.bias) {
                *y += bias;
            }
        }
    }

    /// dx [ROWS][inputs] from dy [ROWS][outputs].
    pub(super) fn adjoint(&self, dy: &[f32], dx: &mut [f32]) {
        thin::product(dy, &self.panels, &self.zeros, dx);
    }
}
