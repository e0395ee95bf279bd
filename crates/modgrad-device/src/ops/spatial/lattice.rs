//! The operands of a thought on a lattice, and what both directions share.

use bytemuck::{Pod, Zeroable};
use modgrad_graph::{Error, Op, Result};

use super::super::{Call, Input};
use crate::device::Device;
use crate::driver::{Address, Argument};
use crate::launch::{Place, index, over, plain};
use crate::source::LATTICE;
use crate::stages::pointer;

/// `Lattice` of `kernels/lattice.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OnDevice {
    neuron: Address,
    neuron_bias: Address,
    retention: Address,
    batch: i64,
    height: i64,
    width: i64,
    channels: i64,
    memory: i64,
}

/// `Slots` of `kernels/lattice.hip`: activations of several ticks.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Slots {
    pub values: Address,
    pub by_sample: i64,
    pub by_slot: i64,
    pub oldest: i64,
    pub modulus: i64,
}

impl Slots {
    /// From slot `oldest` on.
    pub(super) fn from(self, oldest: usize) -> Slots {
        Slots { oldest: oldest as i64, ..self }
    }

    pub(super) fn argument(self) -> Argument {
        plain(&self)
    }
}

/// Operands and sizes; axes as in `modgrad_ctm::spatial`.
pub(super) struct Lattice {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub memory: usize,
    /// Ticks that the gradient reaches back.
    pub kept: usize,
    /// The ticks to read, and the last of them.
    pub reads: Vec<i32>,
    pub last: usize,
    pub drive: Address,
    pub start: Address,
    pub synapse: Address,
    neuron: Address,
    neuron_bias: Address,
    pub retention: Address,
}

impl Lattice {
    /// Refuses ticks that there are not. They are the host's: how many ticks there are
    /// depends on them.
    pub(super) fn new(call: &Call<'_, '_>) -> Result<Lattice> {
        let (Op::SpatialThink { ticks, kept } | Op::SpatialThinkGradient { ticks, kept }) =
            *call.op
        else {
            return Err(call.missing());
        };
        let x = call.x;
        let (drive, start) = (x[0].shape, x[1].shape);
        let reads = match x.get(6) {
            None => vec![i32::try_from(ticks).unwrap_or(i32::MAX)],
            Some(reads) => host_integers(reads)?,
        };
        let wrong = |read: &&i32| usize::try_from(**read).is_ok_and(|tick| tick <= ticks);
        if let Some(read) = reads.iter().find(|read| !wrong(read)) {
            return Err(Error::Shape {
                op: call.op.name(),
                expected: format!("ticks from 0 to {ticks}"),
                found: read.to_string(),
            });
        }
        let last = reads.iter().copied().max().unwrap_or(0) as usize;
        Ok(Lattice {
            batch: drive[0],
            height: drive[1],
            width: drive[2],
            channels: start[1],
            memory: start[0],
            kept,
            reads,
            last,
            drive: x[0].address(),
            start: x[1].address(),
            synapse: x[2].address(),
            neuron: x[3].address(),
            neuron_bias: x[4].address(),
            retention: x[5].address(),
        })
    }

    pub(super) fn argument(&self) -> Argument {
        plain(&OnDevice {
            neuron: self.neuron,
            neuron_bias: self.neuron_bias,
            retention: self.retention,
            batch: self.batch as i64,
            height: self.height as i64,
            width: self.width as i64,
            channels: self.channels as i64,
            memory: self.memory as i64,
        })
    }

    pub(super) fn cells(&self) -> usize {
        self.height * self.width
    }

    /// Cells of all samples.
    pub(super) fn rows(&self) -> usize {
        self.batch * self.cells()
    }

    /// 2C: pairs of a cell, and what it hears.
    pub(super) fn pairs(&self) -> usize {
        2 * self.channels
    }

    /// Elements of the activations of a tick.
    pub(super) fn slot(&self) -> usize {
        self.rows() * self.channels
    }

    /// The first tick whose state the gradient takes for given.
    pub(super) fn given(&self) -> usize {
        self.last.saturating_sub(self.kept)
    }

    /// A ring of so many slots [slots, rows, C].
    pub(super) fn ring(&self, values: Address, slots: usize) -> Slots {
        Slots {
            values,
            by_sample: (self.cells() * self.channels) as i64,
            by_slot: self.slot() as i64,
            oldest: 0,
            modulus: slots as i64,
        }
    }

    /// What is kept [B, kept + M, Y, X, C]: of tick t in slot t − given + M − 1.
    pub(super) fn kept(&self, values: Address) -> Slots {
        let (slots, slot) = (self.kept + self.memory, self.cells() * self.channels);
        Slots {
            values,
            by_sample: (slots * slot) as i64,
            by_slot: slot as i64,
            oldest: 0,
            modulus: slots as i64,
        }
    }

    /// β at all ticks and its derivative by r, [last + 1, 2C] each.
    pub(super) fn norms(&self, device: &Device, beta: Address, slope: Address) -> Result<()> {
        let arguments = [
            pointer(self.retention),
            pointer(beta),
            pointer(slope),
            index(self.pairs()),
            index(self.last + 1),
        ];
        device.launch(&LATTICE, "lattice_norms", over(self.pairs()), &arguments)
    }

    /// The ticks to read, on the device.
    pub(super) fn give_reads(&self, device: &Device, to: Address) -> Result<()> {
        device.driver().copy_in(to, bytemuck::cast_slice(&self.reads))
    }

    /// States [rows, C] of a tick from its slots, and unless null the models' parts [rows, 2C].
    pub(super) fn neurons(
        &self,
        device: &Device,
        slots: Slots,
        states: Address,
        parts: Address,
    ) -> Result<()> {
        let count = self.slot();
        let arguments =
            [self.argument(), slots.argument(), pointer(states), pointer(parts), index(count)];
        device.launch(&LATTICE, "lattice_neurons", over(count), &arguments)
    }

    /// What every cell hears [rows, 2C], its own first.
    pub(super) fn hear(&self, device: &Device, states: Address, heard: Address) -> Result<()> {
        let count = self.slot();
        let arguments = [self.argument(), pointer(states), pointer(heard), index(count)];
        device.launch(&LATTICE, "lattice_hear", over(count), &arguments)
    }
}

/// Integers that the host gave.
fn host_integers(x: &Input<'_>) -> Result<Vec<i32>> {
    let bytes = x.memory.on_host(x.offset * 4, x.elements() * 4)?;
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}
