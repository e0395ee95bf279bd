//! All kept ticks of a thought on a lattice, last to first.

use modgrad_graph::Result;

use super::super::Call;
use super::lattice::{Lattice, Slots};
use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument};
use crate::launch::{BLOCK, Place, grid, index, over};
use crate::source::LATTICE;
use crate::stages::pointer;

/// What a tick's adjoint is worked out in; rows of all samples' cells.
struct Work {
    /// [rows, C].
    states: Address,
    /// [rows, 2C] each.
    parts: Address,
    heard: Address,
    dheard: Address,
    dparts: Address,
    dsynapse: Address,
    dalphas: Address,
    kappas: Address,
    /// Each row's part.
    dretention: Address,
    /// [M + 1, rows, C].
    dtraces: Address,
    /// [last + 1, 2C] each.
    beta: Address,
    slope: Address,
    reads: Address,
    /// [chunks, (M + 1)·2C].
    sums: Address,
}

/// Rows that a thread sums, and how many chunks that makes.
fn chunks(rows: usize) -> (usize, usize) {
    let chunk = rows.div_ceil(1024).max(128);
    (chunk, rows.div_ceil(chunk).max(1))
}

impl Work {
    fn new(lattice: &Lattice, take: &mut dyn FnMut(usize) -> Address) -> Work {
        let (slot, pairs) = (lattice.slot(), lattice.pairs());
        let (rows, norms) = (lattice.rows() * pairs, (lattice.last + 1) * pairs);
        Work {
            states: take(slot),
            parts: take(rows),
            heard: take(rows),
            dheard: take(rows),
            dparts: take(rows),
            dsynapse: take(rows),
            dalphas: take(rows),
            kappas: take(rows),
            dretention: take(rows),
            dtraces: take((lattice.memory + 1) * slot),
            beta: take(norms),
            slope: take(norms),
            reads: take(lattice.reads.len()),
            sums: take(chunks(lattice.rows()).1 * (lattice.memory + 1) * pairs),
        }
    }
}

/// A thought on its way back.
struct Back<'c> {
    device: &'c Device,
    lattice: Lattice,
    work: Work,
    /// What the forward pass has left, and the gradient of its readings.
    readings: Address,
    activations: Slots,
    gates: Address,
    sums: Address,
    dreadings: Address,
    ddrive: Address,
    dsynapse_weight: Address,
}

pub(super) fn run(call: &Call<'_, '_>) -> Result<()> {
    let (device, lattice) = (call.device, Lattice::new(call)?);
    let [drive, start, synapse, neuron, neuron_bias, retention] = &*call.out else {
        return Err(call.missing());
    };
    let work = device.room(Scratch::First, |take| Work::new(&lattice, take))?;
    let back = Back {
        device,
        readings: call.x[7].address(),
        activations: lattice.kept(call.x[8].address()),
        gates: call.x[9].address(),
        sums: call.x[10].address(),
        dreadings: call.x[11].address(),
        ddrive: drive.address(),
        dsynapse_weight: synapse.address(),
        lattice,
        work,
    };
    back.begin()?;
    let Back { lattice, work, .. } = &back;
    let (last, given, memory) = (lattice.last, lattice.given(), lattice.memory);
    for tick in (given..=last).rev() {
        // The state that the gradient takes for given only passes on what its α was.
        let constant = tick == given && given > 0;
        back.unread(tick)?;
        back.synapse(tick, constant)?;
        if !constant {
            back.neurons(tick)?;
        }
    }
    let (rows, pairs, slot) = (lattice.rows(), lattice.pairs(), lattice.slot());
    device.column_sums(work.dretention, retention.address(), rows, pairs)?;
    let weights = (memory + 1) * pairs;
    let all = device.scratch(Scratch::Second, weights * 4)?;
    device.column_sums(work.sums, all, chunks(rows).1, weights)?;
    device.driver().copy(all, neuron.address(), memory * pairs * 4)?;
    let bias = all + (memory * pairs * 4) as u64;
    device.driver().copy(bias, neuron_bias.address(), pairs * 4)?;
    if given > 0 {
        return device.clear(start.address(), start.elements());
    }
    for m in 0..memory {
        // Tick 1 − M + m.
        let from = work.dtraces + ((m + 2) % (memory + 1) * slot * 4) as u64;
        let to = start.address() + (m * lattice.channels * 4) as u64;
        device.column_sums(from, to, rows, lattice.channels)?;
    }
    Ok(())
}

impl Back<'_> {
    fn begin(&self) -> Result<()> {
        let Back { device, lattice, work, .. } = self;
        let row = lattice.rows() * lattice.pairs();
        for zeros in [work.dalphas, work.kappas, work.dretention, self.ddrive] {
            device.clear(zeros, row)?;
        }
        device.clear(work.dtraces, (lattice.memory + 1) * lattice.slot())?;
        device.clear(self.dsynapse_weight, lattice.pairs() * lattice.pairs())?;
        lattice.give_reads(device, work.reads)?;
        lattice.norms(device, work.beta, work.slope)
    }

    /// What was read at a tick.
    fn unread(&self, tick: usize) -> Result<()> {
        let Back { device, lattice, work, .. } = self;
        let count = lattice.rows() * lattice.pairs();
        let arguments = [
            lattice.argument(),
            pointer(work.dalphas),
            pointer(work.kappas),
            pointer(work.beta),
            pointer(work.slope),
            pointer(work.reads),
            index(lattice.reads.len()),
            pointer(self.readings),
            pointer(self.dreadings),
            pointer(work.dretention),
            Argument::Int(tick as i32),
            Argument::Int(i32::from(tick < lattice.last)),
            index(count),
        ];
        device.launch(&LATTICE, "lattice_unread", over(count), &arguments)
    }

    /// From the next tick's synapse to what cells hear at `tick`, and the pairs' share.
    fn synapse(&self, tick: usize, constant: bool) -> Result<()> {
        let Back { device, lattice, work, .. } = self;
        let (rows, pairs) = (lattice.rows(), lattice.pairs());
        let slots = self.activations.from(tick - lattice.given());
        lattice.neurons(device, slots, work.states, work.parts)?;
        if tick < lattice.last {
            lattice.hear(device, work.states, work.heard)?;
            let (heard, d) = ((work.heard, true), (work.dsynapse, false));
            device.multiply([pairs, pairs, rows], heard, d, self.dsynapse_weight, true)?;
            let synapse = (lattice.synapse, true);
            device.multiply([rows, pairs, pairs], d, synapse, work.dheard, false)?;
        } else {
            device.clear(work.dheard, rows * pairs)?;
        }
        if constant {
            let arguments = [
                pointer(self.sums),
                pointer(work.kappas),
                pointer(work.dretention),
                index(rows * pairs),
            ];
            let shape = over(rows * pairs);
            return device.launch(&LATTICE, "lattice_given", shape, &arguments);
        }
        let count = lattice.slot();
        let arguments = [
            lattice.argument(),
            pointer(work.states),
            pointer(work.dalphas),
            pointer(work.kappas),
            pointer(work.dheard),
            pointer(work.dretention),
            index(count),
        ];
        let kernel = "lattice_synchronise_adjoint";
        device.launch(&LATTICE, kernel, over(count), &arguments)
    }

    /// Neuron-level models and gates of a tick, and the terms of the models' weights.
    fn neurons(&self, tick: usize) -> Result<()> {
        let Back { device, lattice, work, .. } = self;
        let (memory, given, pairs) = (lattice.memory, lattice.given(), lattice.pairs());
        let (count, moves) = (lattice.slot(), tick > 0);
        // Slots of ticks t − M + 1 to t.
        let ring = lattice.ring(work.dtraces, memory + 1).from((tick + 2) % (memory + 1));
        let of_tick = if moves { tick - given - 1 } else { 0 };
        let gates = self.gates + (of_tick * lattice.cells() * pairs * 4) as u64;
        let before = self.activations.from((tick + memory).saturating_sub(given + 2));
        let arguments = [
            lattice.argument(),
            pointer(work.parts),
            pointer(work.dheard),
            ring.argument(),
            pointer(work.dparts),
            Argument::Int(i32::from(moves)),
            before.argument(),
            pointer(gates),
            index(lattice.kept * lattice.cells() * pairs),
            pointer(work.dsynapse),
            pointer(self.ddrive),
            index(count),
        ];
        device.launch(&LATTICE, "lattice_adjoint", over(count), &arguments)?;
        let (chunk, chunks) = chunks(lattice.rows());
        let weights = (memory + 1) * pairs;
        let arguments = [
            lattice.argument(),
            self.activations.from(tick - given).argument(),
            pointer(work.dparts),
            pointer(work.sums),
            index(chunk),
            Argument::Int(i32::from(tick == lattice.last)),
            index(weights),
        ];
        let shape = grid(weights.div_ceil(BLOCK), chunks);
        device.launch(&LATTICE, "lattice_weights", shape, &arguments)
    }
}
