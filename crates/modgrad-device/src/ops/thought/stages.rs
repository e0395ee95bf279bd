//! The launches that a thought is made of.

use bytemuck::{Pod, Zeroable};
use modgrad_graph::Result;

use super::operands::{Layer, Pair, Thought};
use crate::device::Device;
use crate::driver::{Address, Argument};
use crate::launch::{index, over, plain, rows};
use crate::source::{BASICS, NEURONS, SYNAPSE, THOUGHT, TOKENS};
use crate::stages::pointer;

/// `Tokens` of `kernels/tokens.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tokens {
    keys: Address,
    values: Address,
    tokens: i64,
    heads: i64,
    channels: i64,
    ticks: i64,
    scale: f32,
    padding: u32,
}

/// `Layer` of `kernels/synapse.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LayerOnDevice {
    norm: Pair,
    skip: Pair,
    width: i64,
    gated: i64,
    batch: i64,
    ticks: i64,
    columns: i64,
    at: i64,
    first: i64,
}

/// `Neurons` of `kernels/neurons.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Neurons {
    level1: Pair,
    level2: Pair,
    temperatures: Address,
    batch: i64,
    neurons: i64,
    memory: i64,
    hidden: i64,
}

/// Which rows of a tensor [B, ticks, columns]: those of some ticks, from column `at` on.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub tensor: Address,
    pub columns: usize,
    pub at: usize,
}

impl Thought {
    pub(super) fn tokens(&self) -> Tokens {
        let channels = self.width / self.heads;
        Tokens {
            keys: self.keys,
            values: self.values,
            tokens: self.tokens as i64,
            heads: self.heads as i64,
            channels: channels as i64,
            ticks: self.ticks as i64,
            scale: 1.0 / (channels as f32).sqrt(),
            padding: 0,
        }
    }

    /// A layer whose first row is one of tick `first`.
    pub(super) fn layer(&self, layer: &Layer, first: usize) -> LayerOnDevice {
        LayerOnDevice {
            norm: layer.norm,
            skip: layer.skip.unwrap_or_default(),
            width: layer.width as i64,
            gated: i64::from(layer.columns > layer.width),
            batch: self.batch as i64,
            ticks: self.ticks as i64,
            columns: self.columns as i64,
            at: layer.at as i64,
            first: first as i64,
        }
    }

    pub(super) fn neurons(&self) -> Neurons {
        Neurons {
            level1: self.level1,
            level2: self.level2.unwrap_or_default(),
            temperatures: self.projections.as_ref().map_or(0, |given| given.temperatures),
            batch: self.batch as i64,
            neurons: self.neurons as i64,
            memory: self.memory as i64,
            hidden: self.hidden as i64,
        }
    }

    /// y [B, outputs] of x [B, inputs], weight [outputs, inputs] and bias.
    pub(super) fn linear(
        &self,
        device: &Device,
        (x, inputs): (Address, usize),
        [weight, bias]: Pair,
        y: Address,
    ) -> Result<()> {
        let outputs = self.width;
        device.multiply([self.batch, outputs, inputs], (x, false), (weight, true), y, false)?;
        let count = self.batch * outputs;
        let arguments = [pointer(y), pointer(bias), index(outputs), index(count)];
        device.launch(&BASICS, "add_bias_f32", over(count), &arguments)
    }

    /// What each sample reads with its query, and the shares of tokens at some ticks.
    pub(super) fn attend(
        &self,
        device: &Device,
        query: Address,
        shares: Address,
        read: Address,
        ticks: std::ops::Range<usize>,
    ) -> Result<()> {
        let arguments = [
            plain(&self.tokens()),
            pointer(query),
            pointer(shares),
            pointer(read),
            index(ticks.start),
            index(ticks.end),
        ];
        device.launch(&TOKENS, "attend_tokens", rows(self.batch * self.heads), &arguments)
    }

    /// Rows [B, width] into those of some ticks.
    pub(super) fn keep(
        &self,
        device: &Device,
        from: Address,
        to: Kept,
        ticks: std::ops::Range<usize>,
    ) -> Result<()> {
        let count = self.batch * ticks.len() * self.width;
        let arguments = [
            pointer(from),
            pointer(to.tensor),
            index(self.ticks),
            index(to.columns),
            index(to.at),
            index(self.width),
            index(ticks.start),
            index(ticks.len()),
            index(count),
        ];
        device.launch(&THOUGHT, "thought_keep", over(count), &arguments)
    }

    /// Rows [ticks, B, width] of all ticks.
    pub(super) fn recall(
        &self,
        device: &Device,
        from: Kept,
        to: Address,
        width: usize,
    ) -> Result<()> {
        let count = self.ticks * self.batch * width;
        let arguments = [
            pointer(from.tensor),
            pointer(to),
            index(self.batch),
            index(self.ticks),
            index(from.columns),
            index(from.at),
            index(width),
            index(count),
        ];
        device.launch(&THOUGHT, "thought_recall", over(count), &arguments)
    }

    /// What the synapse reads at some ticks, x [ticks, B, width + N]: rows of what was read,
    /// so many elements apart by sample and by tick, and the states before.
    pub(super) fn join(
        &self,
        device: &Device,
        (read, by_sample, by_tick): (Address, usize, usize),
        states: Address,
        x: Address,
        ticks: std::ops::Range<usize>,
    ) -> Result<()> {
        let count = ticks.len() * self.batch * (self.width + self.neurons);
        let arguments = [
            pointer(read),
            index(by_sample),
            index(by_tick),
            pointer(self.state),
            pointer(states),
            pointer(x),
            index(self.batch),
            index(self.ticks),
            index(self.width),
            index(self.neurons),
            index(ticks.start),
            index(count),
        ];
        device.launch(&THOUGHT, "thought_join", over(count), &arguments)
    }

    /// dx [B, width + N] taken apart.
    pub(super) fn split(
        &self,
        device: &Device,
        dx: Address,
        (dread, add): (Address, bool),
        dz: Address,
    ) -> Result<()> {
        let count = self.batch * (self.width + self.neurons);
        let arguments = [
            pointer(dx),
            pointer(dread),
            pointer(dz),
            index(self.width),
            index(self.neurons),
            Argument::Int(i32::from(add)),
            index(count),
        ];
        device.launch(&THOUGHT, "thought_split", over(count), &arguments)
    }

    /// Traces [B, N, M] into slots, or with `back` the other way round.
    pub(super) fn slots(
        &self,
        device: &Device,
        from: Address,
        to: Address,
        back: bool,
    ) -> Result<()> {
        let count = self.slot() * self.memory;
        let arguments =
            [pointer(from), pointer(to), index(self.memory), index(self.slot()), index(count)];
        let kernel = if back { "thought_trace" } else { "thought_slots" };
        device.launch(&THOUGHT, kernel, over(count), &arguments)
    }

    /// The synapse at some ticks, each layer into its `outs` and upwards its `sums`: from
    /// x, with room for a product, or, where there are none, from the products in `saved`.
    pub(super) fn synapse(
        &self,
        device: &Device,
        given: Option<[Address; 2]>,
        saved: Address,
        outs: &[Address],
        sums: &[Address],
        ticks: std::ops::Range<usize>,
    ) -> Result<()> {
        let height = ticks.len() * self.batch;
        for (at, layer) in self.layers.iter().enumerate() {
            let product = given.map_or(0, |[_, product]| product);
            if let Some([x, product]) = given {
                let input = if at == 0 { x } else { outs[at - 1] };
                device.multiply(
                    [height, layer.columns, layer.inputs],
                    (input, false),
                    (layer.linear[0], false),
                    product,
                    false,
                )?;
            }
            // Upwards, what the layer of its width put out on the way down.
            let down = layer.skip.map_or(0, |_| outs[self.layers.len() - 1 - at]);
            let arguments = [
                plain(&self.layer(layer, ticks.start)),
                pointer(product),
                pointer(layer.linear[1]),
                pointer(saved),
                pointer(down),
                pointer(sums[at]),
                pointer(outs[at]),
            ];
            device.launch(&SYNAPSE, "synapse_layer", rows(height), &arguments)?;
        }
        Ok(())
    }

    /// The neuron-level models at a tick.
    pub(super) fn think(
        &self,
        device: &Device,
        traces: Address,
        states: Address,
        tick: usize,
    ) -> Result<()> {
        let arguments = [
            plain(&self.neurons()),
            pointer(self.slot_at(traces, tick + 1)),
            pointer(states),
            index(self.ticks),
            index(tick),
            index(self.slot()),
        ];
        device.launch(&NEURONS, "neuron_models", over(self.slot()), &arguments)
    }
}
