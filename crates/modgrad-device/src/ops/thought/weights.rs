//! Gradients of a thought's weights: sums over samples and ticks, in a fixed order.

use modgrad_graph::Result;

use super::backward::Back;
use super::operands::Thought;
use super::stages::Kept;
use super::work::{CHUNK, PARTS, element};
use crate::driver::{Address, Argument};
use crate::launch::{grid, index, over};
use crate::source::NEURONS;
use crate::stages::pointer;

/// All but the neuron-level models', which [`of_neurons`] has summed already.
pub(super) fn run(back: &Back<'_>) -> Result<()> {
    of_synapse(back)?;
    of_attention(back)?;
    of_temperatures(back)
}

fn of_synapse(back: &Back<'_>) -> Result<()> {
    let Back { device, thought, work, gradients, .. } = back;
    let (batch, rows) = (thought.batch, thought.ticks * thought.batch);
    for (at, (layer, out)) in thought.layers.iter().zip(&gradients.layers).enumerate() {
        let of = &work.layers[at];
        let input = if at == 0 { work.x } else { work.layers[at - 1].out };
        let sizes = [layer.inputs, layer.columns, rows];
        device.multiply(sizes, (input, true), (of.dproduct, false), out[0], false)?;
        device.column_sums(of.dproduct, out[1], rows, layer.columns)?;
        let parts = if layer.skip.is_some() { 4 } else { 2 };
        for part in 0..parts {
            let from = element(of.norms, part * batch * layer.width);
            device.column_sums(from, out[2 + part], batch, layer.width)?;
        }
    }
    Ok(())
}

/// Those of the query, its retention, and projections.
fn of_attention(back: &Back<'_>) -> Result<()> {
    let Back { device, thought, read, work, gradients } = back;
    let Thought { batch, ticks, width, pairs, .. } = *thought;
    let [query_weight, query_bias] = gradients.query;
    let rows = ticks * batch;
    let asked_rows = if thought.reads_once() { batch } else { rows };
    if thought.reads_once() {
        device.clear(query_weight, width * pairs)?;
        device.clear(gradients.retention, pairs)?;
    } else {
        let synchrony = Kept { tensor: work.synchrony, columns: pairs, at: 0 };
        thought.recall(device, synchrony, work.synchrony_by_tick, pairs)?;
        let (dasked, synchrony) = ((work.dasked, true), (work.synchrony_by_tick, false));
        device.multiply([width, pairs, asked_rows], dasked, synchrony, query_weight, false)?;
        device.column_sums(work.dretention, gradients.retention, batch, pairs)?;
    }
    device.column_sums(work.dasked, query_bias, asked_rows, width)?;

    let Some(([of_query, query_bias, of_read, read_bias], _)) = gradients.projections else {
        return Ok(());
    };
    // Before its projection.
    let kept = |tensor| Kept { tensor, columns: thought.kept(), at: 0 };
    thought.recall(device, kept(read.query), work.asked, width)?;
    thought.recall(device, kept(read.attended), work.read, width)?;
    let sizes = [width, width, asked_rows];
    device.multiply(sizes, (work.dquery, true), (work.asked, false), of_query, false)?;
    device.column_sums(work.dquery, query_bias, asked_rows, width)?;
    let sizes = [width, width, rows];
    device.multiply(sizes, (work.dtold, true), (work.read, false), of_read, false)?;
    device.column_sums(work.dtold, read_bias, rows, width)
}

/// Of the neuron-level models, from the ticks that are kept from tick t on.
pub(super) fn of_neurons(back: &Back<'_>, t: usize) -> Result<()> {
    let Back { device, thought, work, gradients, .. } = back;
    let Thought { batch, ticks, neurons, memory, hidden, .. } = *thought;
    let steps = CHUNK.min(ticks - t);
    let begins = Argument::Int(i32::from(t + steps == ticks));
    let sum =
        |x: (Address, usize), dy: Address, to: [Address; 2], inputs: usize, outputs: usize| {
            let count = (inputs + 1) * outputs * neurons;
            let arguments = [
                pointer(x.0),
                index(x.1),
                pointer(dy),
                pointer(to[0]),
                pointer(to[1]),
                index(batch),
                index(neurons),
                index(inputs),
                index(outputs),
                index(steps),
                begins.clone(),
                index(count),
            ];
            device.launch(&NEURONS, "neuron_weights", over(count), &arguments)
        };
    let slots = (thought.slot_at(work.traces, t + 1), 1);
    sum(slots, work.dfirst, gradients.level1, memory, thought.outputs())?;
    if hidden == 0 {
        return Ok(());
    }
    sum((work.values, hidden), work.dsecond, gradients.level2, hidden, 2)
}

/// Of the temperatures; the gradients of what they divide are divided by them here.
fn of_temperatures(back: &Back<'_>) -> Result<()> {
    let Back { device, thought, work, gradients, .. } = back;
    let (Some(given), Some((_, to))) = (&thought.projections, gradients.projections) else {
        return Ok(());
    };
    let Thought { neurons, memory, hidden, .. } = *thought;
    let outputs = thought.outputs();
    let levels = [
        (Some(thought.level1), gradients.level1, memory * outputs * neurons, outputs * neurons),
        (thought.level2, gradients.level2, hidden * 2 * neurons, 2 * neurons),
    ];
    for (level, (weights, gradients, wide, biases)) in levels.into_iter().enumerate() {
        let Some([weight, bias]) = weights else { continue };
        let [dweight, dbias] = gradients;
        let temperature = element(given.temperatures, level);
        let arguments = [
            pointer(dweight),
            pointer(weight),
            index(wide),
            pointer(dbias),
            pointer(bias),
            index(biases),
            pointer(work.parts),
        ];
        device.launch(&NEURONS, "neuron_scale_gradient", grid(PARTS, 1), &arguments)?;
        let arguments =
            [pointer(work.parts), index(PARTS), pointer(temperature), pointer(element(to, level))];
        device.launch(&NEURONS, "neuron_temperature", grid(1, 1), &arguments)?;
        for (gradient, count) in [(dweight, wide), (dbias, biases)] {
            let arguments = [pointer(gradient), pointer(temperature), index(count)];
            device.launch(&NEURONS, "neuron_scale", over(count), &arguments)?;
        }
    }
    Ok(())
}
