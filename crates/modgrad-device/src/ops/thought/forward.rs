//! All ticks of a thought, first to last.

use modgrad_graph::Result;

use super::super::{Call, synchronisation};
use super::operands::Thought;
use super::stages::Kept;
use crate::device::Scratch;
use crate::driver::Address;
use crate::launch::Place;

/// What the ticks are worked out in.
struct Work {
    /// [M + T, B, N].
    traces: Address,
    /// [B, width + N].
    x: Address,
    /// Of the widest layer.
    product: Address,
    /// Of each layer [B, its width]; the last goes into the traces.
    outs: Vec<Address>,
    sums: Vec<Address>,
    /// [B, width], before a projection and after.
    queries: [Address; 2],
    reads: [Address; 2],
    /// [B, S] and [T, S].
    alphas: Address,
    synchrony: Address,
    beta: Address,
}

impl Work {
    fn new(thought: &Thought, take: &mut dyn FnMut(usize) -> Address) -> Work {
        let Thought { batch, ticks, memory, pairs, width, neurons, .. } = *thought;
        let widest = thought.layers.iter().map(|layer| layer.columns).max().unwrap_or(0);
        Work {
            traces: take((memory + ticks) * thought.slot()),
            x: take(batch * (width + neurons)),
            product: take(batch * widest),
            outs: thought.layers.iter().map(|layer| take(batch * layer.width)).collect(),
            sums: thought.layers.iter().map(|layer| take(batch * layer.width)).collect(),
            queries: [(); 2].map(|()| take(batch * width)),
            reads: [(); 2].map(|()| take(batch * width)),
            alphas: take(batch * pairs),
            synchrony: take(batch * pairs),
            beta: take(ticks * pairs),
        }
    }
}

pub(super) fn run(call: &Call<'_, '_>) -> Result<()> {
    let (device, thought) = (call.device, Thought::new(call)?);
    let Thought { batch, ticks, memory, width, .. } = thought;
    let [states, trace, attended, query, attention, saved] = &*call.out else {
        return Err(call.missing());
    };
    let (states, saved) = (states.address(), saved.address());
    let mut work = device.room(Scratch::First, |take| Work::new(&thought, take))?;
    let stages = thought.kept() / width;
    let kept = |tensor, stage| Kept { tensor, columns: thought.kept(), at: stage * width };
    let recurrence = thought.recurrence(states, work.beta);
    let pairs = if thought.reads_once() { 0 } else { thought.pairs };
    if pairs > 0 {
        synchronisation::norms(device, &recurrence, ticks)?;
    }
    thought.slots(device, thought.trace, work.traces, false)?;

    for t in 0..ticks {
        if t == 0 || !thought.reads_once() {
            // What is read once is the same at all ticks.
            let same = t..if thought.reads_once() { ticks } else { t + 1 };
            let [asked, projected] = work.queries;
            if pairs > 0 {
                let at = recurrence.at(t);
                let (alphas, synchrony) = ((work.alphas, 1), (work.synchrony, 1));
                synchronisation::advance(call, &at, batch, alphas, synchrony)?;
            }
            thought.linear(device, (work.synchrony, pairs), thought.query, asked)?;
            if let Some(given) = &thought.projections {
                thought.linear(device, (asked, width), given.query, projected)?;
            }
            let [read, told] = work.reads;
            let asking = work.queries[stages - 1];
            thought.attend(device, asking, attention.address(), read, same.clone())?;
            if let Some(given) = &thought.projections {
                thought.linear(device, (read, width), given.read, told)?;
            }
            for stage in 0..stages {
                let (to_query, to_read) =
                    (kept(query.address(), stage), kept(attended.address(), stage));
                thought.keep(device, work.queries[stage], to_query, same.clone())?;
                thought.keep(device, work.reads[stage], to_read, same.clone())?;
            }
        }
        let read = (work.reads[stages - 1], width, 0);
        thought.join(device, read, states, work.x, t..t + 1)?;
        // The synapse's result is what is pushed onto the traces.
        if let Some(last) = work.outs.last_mut() {
            *last = thought.slot_at(work.traces, memory + t);
        }
        let given = Some([work.x, work.product]);
        thought.synapse(device, given, saved, &work.outs, &work.sums, t..t + 1)?;
        thought.think(device, work.traces, states, t)?;
    }
    thought.slots(device, thought.slot_at(work.traces, ticks), trace.address(), true)
}
