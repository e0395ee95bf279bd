//! All ticks of a Continuous Thought Machine whose neurons stand on a lattice.
//!
//! A neuron is a (cell, channel) of a grid; weights are shared by all cells, so
//! that one set runs on grids of any size. Channels come in four groups, and a
//! neuron's axon leads to one neighbour: the first group's to the cell below, then
//! above, right, left. A cell thus hears C neurons of its own and C of its
//! neighbours', nothing from beyond the border. One tick, at every cell:
//!
//! 1. synapse: (u, g) = [z ; heard]·W + drive, the drive being what the cell is
//!    shown, the same at every tick;
//! 2. the activation moves as far as its gate lets it:
//!    a_t = a_{t−1} + σ(g)·(tanh(u) − a_{t−1});
//! 3. neuron-level model: z = (Σ_m v_m·a_{t−M+m} + b_v)·σ(Σ_m s_m·a_{t−M+m} + b_s),
//!    each channel with weights of its own over its last M activations;
//! 4. synchronisation of 2C pairs of a cell: each neuron with its counterpart in
//!    the next group, and each with the neuron of its number that the cell hears:
//!    α_t = r·α_{t−1} + z_left·z_right, β_t = r·β_{t−1} + 1, read as α_t/√β_t.
//!
//! Tick 0 is the start: its activations are given, z, α and β follow from them.
//! Readings are taken after the ticks that `reads` names. Gradients are exact
//! through the `kept` ticks before the last of these; what came before them is
//! a constant.
//!
//! Axes: B samples, Y, X cells of the grid, C channels, M trace, R readings.

mod backward;
mod forward;
mod stages;

use modgrad_compute::Pool;

use crate::check;

/// Rows that go through a tick together, so that they stay in the first cache.
const BLOCK: usize = 24;

/// Sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// Y.
    pub height: usize,
    /// X.
    pub width: usize,
    /// C, a multiple of 4.
    pub channels: usize,
    /// M.
    pub memory: usize,
    /// Ticks that the gradient reaches back.
    pub kept: usize,
    /// R.
    pub reads: usize,
}

impl Shape {
    /// Cells of a sample.
    pub fn cells(self) -> usize {
        self.height * self.width
    }

    /// Pairs of a cell, and inputs and outputs of its synapse.
    pub fn pairs(self) -> usize {
        2 * self.channels
    }

    /// The first tick whose state the gradient takes for given, where the last one is `last`.
    fn given(self, last: usize) -> usize {
        last.saturating_sub(self.kept)
    }
}

/// What all cells and samples share.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// Activations before the first tick [M, C], oldest first.
    pub start: &'a [f32],
    /// [2C, 2C]: rows of what a cell hears, its own first; columns of values, then gates.
    pub synapse: &'a [f32],
    /// [M, 2, C]: of values and gates, oldest first.
    pub neuron: &'a [f32],
    /// [2, C].
    pub neuron_bias: &'a [f32],
    /// r of each pair [2C], from 0 to 1.
    pub retention: &'a [f32],
}

/// What a forward pass leaves.
pub struct Saved<'a> {
    /// [B, R, Y, X, 2C].
    pub readings: &'a mut [f32],
    /// The last kept + M activations [B, kept + M, Y, X, C]; empty where none are kept.
    pub activations: &'a mut [f32],
    /// tanh(u) and σ(g) of the kept ticks [B, kept, Y, X, 2C].
    pub gates: &'a mut [f32],
    /// α at the tick that is given [B, Y, X, 2C]; empty where none are kept.
    pub sums: &'a mut [f32],
}

/// The same, to be read.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // See `Saved`.
pub struct Read<'a> {
    pub readings: &'a [f32],
    pub activations: &'a [f32],
    pub gates: &'a [f32],
    pub sums: &'a [f32],
}

/// Gradients, each of its operand's shape.
#[allow(missing_docs)] // Named after what they are the gradients of.
pub struct Gradients<'a> {
    pub drive: &'a mut [f32],
    pub start: &'a mut [f32],
    pub synapse: &'a mut [f32],
    pub neuron: &'a mut [f32],
    pub neuron_bias: &'a mut [f32],
    pub retention: &'a mut [f32],
}

/// Runs as many ticks as the largest of `reads` over `drive` [B, Y, X, 2C].
///
/// Panics when the lengths disagree.
pub fn think(
    pool: &Pool,
    shape: Shape,
    drive: &[f32],
    weights: &Weights<'_>,
    reads: &[usize],
    saved: Saved<'_>,
) {
    check_operands("spatial_think", shape, drive, weights, reads);
    forward::run(pool, shape, drive, weights, reads, saved);
}

/// The adjoint of [`think`], from the gradient of the readings [B, R, Y, X, 2C].
///
/// Panics when the lengths disagree.
pub fn think_gradient(
    pool: &Pool,
    shape: Shape,
    drive: &[f32],
    weights: &Weights<'_>,
    reads: &[usize],
    read: Read<'_>,
    dreadings: &[f32],
    gradients: Gradients<'_>,
) {
    check_operands("spatial_think_gradient", shape, drive, weights, reads);
    backward::run(pool, shape, weights, reads, read, dreadings, gradients);
}

fn check_operands(op: &str, shape: Shape, drive: &[f32], weights: &Weights<'_>, reads: &[usize]) {
    let Shape { batch, channels, memory, .. } = shape;
    assert!(channels % 4 == 0 && memory > 0, "`{op}`: {shape:?}");
    let pairs = shape.pairs();
    check(
        op,
        &[
            ("drive", drive.len(), batch * shape.cells() * pairs),
            ("start", weights.start.len(), memory * channels),
            ("synapse", weights.synapse.len(), pairs * pairs),
            ("neuron", weights.neuron.len(), memory * pairs),
            ("neuron_bias", weights.neuron_bias.len(), pairs),
            ("retention", weights.retention.len(), pairs),
            ("reads", reads.len(), shape.reads),
        ],
    );
}

/// β at every tick up to `last`, [last + 1][pairs], and dβ/dr likewise.
fn norms(retention: &[f32], last: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut beta, mut slope) = (vec![1.0f32; retention.len()], vec![0.0f32; retention.len()]);
    for tick in 1..=last {
        let before = (tick - 1) * retention.len();
        for (pair, &r) in retention.iter().enumerate() {
            let (b, s) = (beta[before + pair], slope[before + pair]);
            beta.push(r * b + 1.0);
            slope.push(r * s + b);
        }
    }
    (beta, slope)
}

/// The cell whose group of axons `group` ends at (y, x), if there is one.
fn source(shape: Shape, group: usize, y: usize, x: usize) -> Option<usize> {
    let (y, x) = match group {
        0 => (y.checked_sub(1)?, x),
        1 => (y + 1, x),
        2 => (y, x.checked_sub(1)?),
        _ => (y, x + 1),
    };
    (y < shape.height && x < shape.width).then_some(y * shape.width + x)
}

/// The cell at which the axons of `group` at (y, x) end, if there is one.
fn target(shape: Shape, group: usize, y: usize, x: usize) -> Option<usize> {
    source(shape, group ^ 1, y, x)
}

#[cfg(test)]
mod tests;
