//! The synapse of a thought, one row at a time, and its adjoint.

use super::{Array, sigmoid};

const EPSILON: f64 = 1e-5;

/// What a row went through in one layer.
struct Layer {
    inputs: Vec<f64>,
    product: Vec<f64>,
    norm: Norm,
    /// Upwards: the norm after what came down is added.
    skip: Option<Norm>,
    out: Vec<f64>,
}

/// Before a norm's weight and bias, and 1/deviation.
struct Norm {
    normal: Vec<f64>,
    inverse: f64,
}

/// A row that has gone through all layers.
pub(super) struct Row {
    layers: Vec<Layer>,
}

/// Where the operands of a layer stand among those of a synapse of some depth.
fn first_operand(depth: usize, layer: usize) -> usize {
    4 * layer.min(depth) + 6 * layer.saturating_sub(depth)
}

impl Row {
    /// `x`: the operands of the synapse.
    pub(super) fn new(x: &[&Array], depth: usize, inputs: Vec<f64>) -> Row {
        let mut layers: Vec<Layer> = Vec::new();
        for index in 0..2 * depth - 1 {
            let x = &x[first_operand(depth, index)..];
            let inputs =
                layers.last().map_or_else(|| inputs.clone(), |before: &Layer| before.out.clone());
            let product: Vec<f64> = (0..x[1].data.len())
                .map(|n| {
                    let products = inputs.iter().enumerate().map(|(k, v)| v * x[0].at(&[k, n]));
                    x[1].data[n] + products.sum::<f64>()
                })
                .collect();
            let width = x[2].data.len();
            let gated = |n: usize| match depth {
                1 => product[n] * sigmoid(product[n + width]),
                _ => product[n],
            };
            let (norm, normed) = Norm::new((0..width).map(gated).collect(), x[2], x[3]);
            let mut out = normed;
            let mut skip = None;
            if depth > 1 {
                out.iter_mut().for_each(|y| *y *= sigmoid(*y));
            }
            if index >= depth {
                let down = &layers[2 * depth - 2 - index].out;
                let sum = out.iter().zip(down).map(|(up, down)| up + down).collect();
                let (norm, normed) = Norm::new(sum, x[4], x[5]);
                (skip, out) = (Some(norm), normed);
            }
            layers.push(Layer { inputs, product, norm, skip, out });
        }
        Row { layers }
    }

    /// What is pushed onto the traces.
    pub(super) fn result(&self) -> &[f64] {
        self.layers.last().map_or(&[], |layer| &layer.out)
    }

    /// The products of all layers, side by side.
    pub(super) fn products(&self) -> Vec<f64> {
        self.layers.iter().flat_map(|layer| layer.product.iter().copied()).collect()
    }

    /// The gradient of the inputs; those of the operands are added to `d`.
    pub(super) fn adjoint(
        &self,
        x: &[&Array],
        depth: usize,
        dout: Vec<f64>,
        d: &mut [Array],
    ) -> Vec<f64> {
        let mut douts: Vec<Vec<f64>> =
            self.layers.iter().map(|layer| vec![0.0; layer.out.len()]).collect();
        let last = self.layers.len() - 1;
        douts[last] = dout;
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let at = first_operand(depth, index);
            let (x, d) = (&x[at..], &mut d[at..]);
            let mut dout = std::mem::take(&mut douts[index]);
            if let Some(skip) = &layer.skip {
                dout = skip.adjoint(x[4], &dout, &mut d[4..6]);
                for (down, d) in douts[last - index].iter_mut().zip(&dout) {
                    *down += d;
                }
            }
            if depth > 1 {
                for (n, d) in dout.iter_mut().enumerate() {
                    let y = layer.norm.normal[n] * x[2].data[n] + x[3].data[n];
                    *d *= sigmoid(y) * (1.0 + y * (1.0 - sigmoid(y)));
                }
            }
            let dnormed = layer.norm.adjoint(x[2], &dout, &mut d[2..4]);
            let mut dproduct = dnormed.clone();
            if depth == 1 {
                let width = dnormed.len();
                dproduct.resize(2 * width, 0.0);
                for (n, dv) in dnormed.iter().enumerate() {
                    let open = sigmoid(layer.product[n + width]);
                    dproduct[n] = dv * open;
                    dproduct[n + width] = dv * layer.product[n] * open * (1.0 - open);
                }
            }
            let mut dinputs = vec![0.0; layer.inputs.len()];
            for (n, dproduct) in dproduct.iter().enumerate() {
                d[1].data[n] += dproduct;
                for (k, dinput) in dinputs.iter_mut().enumerate() {
                    *dinput += dproduct * x[0].at(&[k, n]);
                    *d[0].at_mut(&[k, n]) += dproduct * layer.inputs[k];
                }
            }
            if index == 0 {
                return dinputs;
            }
            for (before, d) in douts[index - 1].iter_mut().zip(dinputs) {
                *before += d;
            }
        }
        Vec::new()
    }
}

impl Norm {
    /// With what comes out of it.
    fn new(v: Vec<f64>, weight: &Array, bias: &Array) -> (Norm, Vec<f64>) {
        let count = v.len() as f64;
        let mean = v.iter().sum::<f64>() / count;
        let variance = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let inverse = 1.0 / (variance + EPSILON).sqrt();
        let normal: Vec<f64> = v.iter().map(|v| (v - mean) * inverse).collect();
        let scaled = normal.iter().zip(&weight.data).zip(&bias.data).map(|((v, w), b)| v * w + b);
        let out = scaled.collect();
        (Norm { normal, inverse }, out)
    }

    /// `d` are the gradients of weight and bias.
    fn adjoint(&self, weight: &Array, dout: &[f64], d: &mut [Array]) -> Vec<f64> {
        let count = dout.len() as f64;
        let mut dnormal = Vec::new();
        for (n, dout) in dout.iter().enumerate() {
            d[0].data[n] += dout * self.normal[n];
            d[1].data[n] += dout;
            dnormal.push(dout * weight.data[n]);
        }
        let mean = dnormal.iter().sum::<f64>() / count;
        let along = dnormal.iter().zip(&self.normal).map(|(d, x)| d * x).sum::<f64>() / count;
        let terms = dnormal.iter().zip(&self.normal);
        terms.map(|(d, normal)| self.inverse * (d - mean - normal * along)).collect()
    }
}
