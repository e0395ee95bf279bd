//! All ticks of a thought on a lattice, first to last.

use modgrad_graph::Result;

use super::super::Call;
use super::lattice::Lattice;
use crate::device::Scratch;
use crate::driver::Argument;
use crate::launch::{Place, index, over};
use crate::source::LATTICE;
use crate::stages::pointer;

pub(super) fn run(call: &Call<'_, '_>) -> Result<()> {
    let (device, lattice) = (call.device, Lattice::new(call)?);
    let [readings, activations, gates, sums] = &*call.out else { return Err(call.missing()) };
    let Lattice { memory, kept, last, .. } = lattice;
    let (slot, pairs, given) = (lattice.slot(), lattice.pairs(), lattice.given());
    let (rows, norms) = (lattice.rows(), (last + 1) * lattice.pairs());
    // After the last tick nothing is kept.
    device.clear(activations.address(), activations.elements())?;
    device.clear(gates.address(), gates.elements())?;

    let row = rows * pairs;
    let sizes = [memory * slot, slot, row, row, row, norms, norms, lattice.reads.len()];
    let [ring, states, alphas, heard, product, beta, slope, reads] =
        device.pieces(Scratch::First, sizes)?;
    let ring = lattice.ring(ring, memory);
    let keeps = kept > 0;
    let all_kept = lattice.kept(if keeps { activations.address() } else { 0 });
    let nothing = lattice.kept(0);
    lattice.give_reads(device, reads)?;
    lattice.norms(device, beta, slope)?;
    // Tick 1 − M + m is slot m + 1 of the ring.
    let arguments = [
        lattice.argument(),
        pointer(lattice.start),
        ring.from(1).argument(),
        all_kept.argument(),
        index(given),
        index(slot),
    ];
    device.launch(&LATTICE, "lattice_begin", over(slot), &arguments)?;
    lattice.neurons(device, ring.from(1), states, 0)?;

    for tick in 0..=last {
        let of_sums = if keeps && tick == given { sums.address() } else { 0 };
        let arguments = [
            lattice.argument(),
            pointer(states),
            pointer(alphas),
            pointer(beta),
            pointer(reads),
            index(lattice.reads.len()),
            readings.pointer(),
            pointer(of_sums),
            Argument::Int(tick as i32),
            index(slot),
        ];
        device.launch(&LATTICE, "lattice_synchronise", over(slot), &arguments)?;
        if tick == last {
            break;
        }
        lattice.hear(device, states, heard)?;
        let synapse = (lattice.synapse, false);
        device.multiply([rows, pairs, pairs], (heard, false), synapse, product, false)?;
        let next = tick + 1;
        // The gates of tick t are the (t − given − 1)-th that are kept.
        let of_gates = match keeps && next > given {
            true => gates.address() + ((next - given - 1) * lattice.cells() * pairs * 4) as u64,
            false => 0,
        };
        let slot_of_next = (next + memory - 1).checked_sub(given);
        let arguments = [
            lattice.argument(),
            pointer(product),
            pointer(lattice.drive),
            ring.from((next + 1) % memory).argument(),
            if slot_of_next.is_some() { all_kept } else { nothing }.argument(),
            index(slot_of_next.unwrap_or(0)),
            pointer(of_gates),
            index(kept * lattice.cells() * pairs),
            pointer(states),
            index(slot),
        ];
        device.launch(&LATTICE, "lattice_move", over(slot), &arguments)?;
    }
    Ok(())
}
