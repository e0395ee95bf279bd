//! The synapse: from what was attended to and the state to what is pushed onto the
//! traces.
//!
//! Of depth 1, LayerNorm(GLU(W x + b)). Deeper it is a U of blocks
//! block(x) = SiLU(LayerNorm(W x + b)): h_0 = first(x), h_{i+1} = down_i(h_i), and from
//! e = h of the bottom upwards e ← LayerNorm_i(up_i(e) + h_i), the last e its result.
//!
//! Rows go in [ROWS][padded], zeros behind a layer's width.

mod norms;

use modgrad_compute::Pool;
use modgrad_compute::thin::{self, Buffer, LANES, Panels};

use super::packed::padded;
use super::{Layer, ROWS, Shape};
use norms::{norm, norm_adjoint, norm_silu, norm_silu_adjoint};
use norms::{normalised_gate, normalised_gate_adjoint};

pub(super) struct Synapse<'a> {
    layers: Vec<PackedLayer<'a>>,
}

struct PackedLayer<'a> {
    layer: Layer<'a>,
    width: usize,
    panels: Panels,
    bias: Vec<f32>,
}

/// What the rows of one tick go through; a layer each.
pub(super) struct Working {
    /// Products [ROWS][columns].
    products: Vec<Buffer>,
    /// Upwards: before the norm of the skip [ROWS][padded].
    sums: Vec<Buffer>,
    /// What the layer puts out [ROWS][padded].
    outs: Vec<Buffer>,
    /// Gradients of the outputs.
    douts: Vec<Buffer>,
    /// Gradients of the products.
    pub(super) dproducts: Vec<Buffer>,
    row: Vec<f32>,
}

impl<'a> Synapse<'a> {
    pub(super) fn new(pool: &Pool, shape: Shape, layers: &'a [Layer<'a>]) -> Synapse<'a> {
        let mut inner = shape.width + shape.neurons;
        let parts = if layers.len() == 1 { 2 } else { 1 };
        let pack = |layer: &'a Layer<'a>| {
            let width = layer.norm_weight.len();
            let panels = Panels::new(pool, layer.weight, inner, width, parts);
            inner = width.next_multiple_of(LANES);
            let halves = layer.bias.chunks(width);
            let bias = halves.flat_map(|half| padded(half, inner)).collect();
            PackedLayer { layer: *layer, width, panels, bias }
        };
        Synapse { layers: layers.iter().map(pack).collect() }
    }

    fn gated(&self) -> bool {
        self.layers.len() == 1
    }

    /// The columns of all products of a row.
    pub(super) fn columns(&self) -> usize {
        self.layers.iter().map(|one| one.layer.bias.len()).sum()
    }

    /// Inputs, columns and width of each layer.
    pub(super) fn sizes(&self) -> impl Iterator<Item = [usize; 3]> + '_ {
        self.layers.iter().map(|one| {
            let columns = one.layer.bias.len();
            [one.layer.weight.len() / columns, columns, one.width]
        })
    }

    pub(super) fn working(&self) -> Working {
        let rows = |size: fn(&PackedLayer<'_>) -> usize| -> Vec<Buffer> {
            self.layers.iter().map(|one| Buffer::zeros(ROWS * size(one))).collect()
        };
        let padded = |one: &PackedLayer<'_>| one.width.next_multiple_of(LANES);
        Working {
            products: rows(|one| one.panels.width()),
            sums: rows(padded),
            outs: rows(padded),
            douts: rows(padded),
            dproducts: rows(|one| one.panels.width()),
            row: vec![0.0; self.layers.iter().map(padded).max().unwrap_or(0)],
        }
    }

    /// x [ROWS][d + D] → its result in `working`.
    pub(super) fn forward(&self, samples: usize, x: &[f32], working: &mut Working) {
        for (index, one) in self.layers.iter().enumerate() {
            let input = if index == 0 { x } else { &working.outs[index - 1] };
            thin::product(input, &one.panels, &one.bias, &mut working.products[index]);
            self.activate(index, samples, working);
        }
    }

    /// What follows from the products alone.
    fn activate(&self, index: usize, samples: usize, working: &mut Working) {
        let one = &self.layers[index];
        let (layer, width, columns) = (one.layer, one.width, one.panels.width());
        let padded = width.next_multiple_of(LANES);
        let Working { products, sums, outs, .. } = working;
        for r in 0..samples {
            let u = &products[index][r * columns..][..columns];
            let at = r * padded..(r + 1) * padded;
            let (weight, bias) = (layer.norm_weight, layer.norm_bias);
            if self.gated() {
                normalised_gate(width, u, weight, bias, &mut outs[index][at]);
                continue;
            }
            let Some([skip_weight, skip_bias]) = layer.skip else {
                norm_silu(width, u, weight, bias, &mut outs[index][at]);
                continue;
            };
            let sum = &mut sums[index][at.clone()];
            norm_silu(width, u, weight, bias, sum);
            for (sum, down) in sum.iter_mut().zip(&outs[self.across(index)][at.clone()]) {
                *sum += down;
            }
            norm(width, sum, skip_weight, skip_bias, &mut outs[index][at]);
        }
    }

    /// The layer downwards that a layer upwards has added.
    fn across(&self, index: usize) -> usize {
        self.layers.len() - 1 - index
    }

    /// Row r of the result: [D].
    pub(super) fn result<'w>(&self, working: &'w Working, r: usize) -> &'w [f32] {
        let width = self.layers[self.layers.len() - 1].width;
        let padded = width.next_multiple_of(LANES);
        &working.outs[self.layers.len() - 1][r * padded..][..width]
    }

    /// Row r of all products, side by side without what stands behind each.
    pub(super) fn save(&self, working: &Working, r: usize, out: &mut [f32]) {
        let mut rest = out;
        for (one, products) in self.layers.iter().zip(&working.products) {
            let columns = one.panels.width();
            let row = &products[r * columns..][..columns];
            for part in row.chunks_exact(one.width.next_multiple_of(LANES)) {
                let (kept, after) = rest.split_at_mut(one.width);
                kept.copy_from_slice(&part[..one.width]);
                rest = after;
            }
        }
    }

    /// The inverse of `save`, for all rows; then what follows from the products.
    pub(super) fn recall<'s>(
        &self,
        samples: usize,
        saved: impl Fn(usize) -> &'s [f32],
        working: &mut Working,
    ) {
        for r in 0..samples {
            let mut rest = saved(r);
            for (one, products) in self.layers.iter().zip(&mut working.products) {
                let columns = one.panels.width();
                let row = &mut products[r * columns..][..columns];
                for part in row.chunks_exact_mut(one.width.next_multiple_of(LANES)) {
                    let (kept, after) = rest.split_at(one.width);
                    part[..one.width].copy_from_slice(kept);
                    rest = after;
                }
            }
        }
        for index in 0..self.layers.len() {
            self.activate(index, samples, working);
        }
    }

    /// From da(r) [D] of a tick that was recalled: dx [ROWS][d + D], and the gradients
    /// of the products in `working`. Those of norms are added to `norms`, a list
    /// [weight, bias, weight and bias of the skip] for each layer.
    pub(super) fn adjoint<'s>(
        &self,
        samples: usize,
        da: impl Fn(usize) -> &'s [f32],
        working: &mut Working,
        norms: &mut [Vec<f32>],
        dx: &mut [f32],
    ) {
        let last = self.layers.len() - 1;
        let width = self.layers[last].width;
        let padded = width.next_multiple_of(LANES);
        for r in 0..samples {
            working.douts[last][r * padded..][..width].copy_from_slice(da(r));
        }
        for index in (0..=last).rev() {
            self.activation_adjoint(index, samples, working, &mut norms[index]);
            let panels = &self.layers[index].panels;
            let dproducts = &working.dproducts[index];
            if index == 0 {
                thin::product_adjoint(dproducts, panels, dx);
                break;
            }
            // Downwards, an output has its gradient from across already.
            let across = index <= last / 2;
            if across {
                let dout = &mut working.sums[index - 1];
                thin::product_adjoint(dproducts, panels, dout);
                for (sum, dout) in working.douts[index - 1].iter_mut().zip(dout.iter()) {
                    *sum += *dout;
                }
            } else {
                thin::product_adjoint(dproducts, panels, &mut working.douts[index - 1]);
            }
        }
    }

    /// Keeps, as row `row`, what the gradients of a layer's weights are formed from: its
    /// inputs, but for those of the first layer, and the gradients of its products.
    pub(super) fn keep(
        &self,
        working: &Working,
        layer: usize,
        r: usize,
        row: usize,
        inputs: &mut [f32],
        dproducts: &mut [f32],
    ) {
        let one = &self.layers[layer];
        if layer > 0 {
            let inner = self.layers[layer - 1].width;
            let from = &working.outs[layer - 1][r * inner.next_multiple_of(LANES)..][..inner];
            inputs[row * inner..][..inner].copy_from_slice(from);
        }
        let (count, columns) = (one.layer.bias.len(), one.panels.width());
        let from = &working.dproducts[layer][r * columns..][..columns];
        let out = &mut dproducts[row * count..][..count];
        let parts = from.chunks_exact(one.width.next_multiple_of(LANES));
        for (out, part) in out.chunks_exact_mut(one.width).zip(parts) {
            out.copy_from_slice(&part[..one.width]);
        }
    }

    fn activation_adjoint(
        &self,
        index: usize,
        samples: usize,
        working: &mut Working,
        norms: &mut [f32],
    ) {
        let one = &self.layers[index];
        let (layer, width, columns) = (one.layer, one.width, one.panels.width());
        let padded = width.next_multiple_of(LANES);
        let across = self.across(index);
        let (own, of_skip) = norms.split_at_mut(2 * width);
        let Working { products, sums, douts, dproducts, row, .. } = working;
        let row = &mut row[..width];
        for r in 0..samples {
            let u = &products[index][r * columns..][..columns];
            let du = &mut dproducts[index][r * columns..][..columns];
            let at = r * padded..r * padded + width;
            let (weight, bias) = (layer.norm_weight, layer.norm_bias);
            if self.gated() {
                normalised_gate_adjoint(width, u, weight, &douts[index][at], du, own);
                continue;
            }
            if let Some([skip_weight, _]) = layer.skip {
                // The sum's gradient goes up to this block, and across.
                let dout = &mut douts[index][at.clone()];
                norm_adjoint(&sums[index][at.clone()], skip_weight, dout, row, of_skip);
                dout.copy_from_slice(row);
                douts[across][at.clone()].copy_from_slice(row);
            }
            let dout = &douts[index][at];
            norm_silu_adjoint(width, u, weight, bias, dout, row, du, own);
        }
    }
}
