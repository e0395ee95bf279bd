//! All ticks of a thought, last to first; the gradients of weights that are sums over all
//! rows follow after them.

use modgrad_graph::Result;

use super::super::synchronisation::{self, Adjoint, Memberships, Recurrence};
use super::super::{Call, Out};
use super::operands::Thought;
use super::stages::Kept;
use super::weights;
use super::work::{CHUNK, Work, element};
use crate::device::{Device, Scratch};
use crate::driver::Address;
use crate::launch::{Place, index, over, plain, rows};
use crate::source::{NEURONS, SYNAPSE, SYNCHRONISATION, TOKENS};
use crate::stages::pointer;

/// What the forward pass has left, and the gradients of it.
pub(super) struct Read {
    pub states: Address,
    pub attended: Address,
    pub query: Address,
    pub shares: Address,
    pub products: Address,
    pub dstates: Address,
    pub dtrace: Address,
}

/// Where the gradients go.
pub(super) struct Gradients {
    pub keys: Address,
    pub values: Address,
    pub state: Address,
    pub trace: Address,
    pub retention: Address,
    pub query: [Address; 2],
    /// Weight, bias and both of each norm; null where there is none.
    pub layers: Vec<[Address; 6]>,
    pub level1: [Address; 2],
    pub level2: [Address; 2],
    /// Of the query, of what is read: weight and bias; and of temperatures.
    pub projections: Option<([Address; 4], Address)>,
}

impl Gradients {
    fn new(thought: &Thought, out: &[Out<'_>]) -> Gradients {
        let mut rest = out.iter().map(Place::address);
        let mut next = || rest.next().unwrap_or_default();
        let layer = |next: &mut dyn FnMut() -> Address, skip: bool| {
            let own = [(); 4].map(|()| next());
            let [weight, bias] = if skip { [(); 2].map(|()| next()) } else { [0; 2] };
            [own[0], own[1], own[2], own[3], weight, bias]
        };
        Gradients {
            keys: next(),
            values: next(),
            state: next(),
            trace: next(),
            retention: next(),
            query: [next(), next()],
            layers: thought.layers.iter().map(|one| layer(&mut next, one.skip.is_some())).collect(),
            level1: [next(), next()],
            level2: if thought.hidden > 0 { [next(), next()] } else { [0; 2] },
            projections: thought.projections.is_some().then(|| ([(); 4].map(|()| next()), next())),
        }
    }
}

/// A thought on its way back.
pub(super) struct Back<'c> {
    pub device: &'c Device,
    pub thought: Thought,
    pub read: Read,
    pub work: Work,
    pub gradients: Gradients,
}

pub(super) fn run(call: &Call<'_, '_>) -> Result<()> {
    let (device, thought) = (call.device, Thought::new(call)?);
    let saved = |index: usize| call.x[thought.operands + index].address();
    let read = Read {
        states: saved(0),
        attended: saved(2),
        query: saved(3),
        shares: saved(4),
        products: saved(5),
        dstates: saved(6),
        dtrace: saved(7),
    };
    let work = device.room(Scratch::Sixth, |take| Work::new(&thought, take))?;
    let recurrence = thought.recurrence(read.states, work.beta);
    let gradients = Gradients::new(&thought, call.out);
    let asking = !thought.reads_once();
    let (batch, ticks) = (thought.batch, thought.ticks);
    let mut members = None;
    if asking {
        members = Some(Memberships::new(call, &recurrence, work.both)?);
        synchronisation::norms(device, &recurrence, ticks)?;
        let (alphas, synchrony) = ((work.alphas, ticks), (work.synchrony, ticks));
        synchronisation::advance(call, &recurrence, batch, alphas, synchrony)?;
    }
    let back = Back { device, thought, read, work, gradients };
    back.remember()?;
    for t in (0..ticks).rev() {
        back.neurons(t)?;
        back.synapse(t)?;
        if t == 0 || asking {
            back.attention(t)?;
        }
        if let Some(members) = &members {
            back.synchronisation(&recurrence, members, t)?;
        }
    }
    back.tokens()?;
    let thought = &back.thought;
    if thought.slot() > 0 {
        device.driver().copy(back.work.dz, back.gradients.state, thought.slot() * 4)?;
    }
    thought.slots(device, back.work.dtraces, back.gradients.trace, true)?;
    weights::run(&back)
}

impl Back<'_> {
    /// Forms again, for all ticks at once, what follows from what was kept, and begins sums.
    fn remember(&self) -> Result<()> {
        let Back { device, thought, read, work, .. } = self;
        let Thought { batch, ticks, memory, width, .. } = *thought;
        let kept = thought.kept();
        thought.slots(device, thought.trace, work.traces, false)?;
        let mut outs: Vec<Address> = work.layers.iter().map(|layer| layer.out).collect();
        if let Some(last) = outs.last_mut() {
            *last = thought.slot_at(work.traces, memory);
        }
        let sums: Vec<Address> = work.layers.iter().map(|layer| layer.sum).collect();
        thought.synapse(device, None, read.products, &outs, &sums, 0..ticks)?;
        let last = element(read.attended, kept - width);
        thought.join(device, (last, ticks * kept, kept), read.states, work.x, 0..ticks)?;

        let last = thought.slot_at(work.dtraces, ticks);
        device.clear(work.dtraces, ticks * thought.slot())?;
        thought.slots(device, read.dtrace, last, false)?;
        device.clear(work.dz, thought.slot())?;
        for (layer, of) in work.layers.iter().zip(&thought.layers) {
            device.clear(layer.norms, 4 * batch * of.width)?;
        }
        Ok(())
    }

    /// The neuron-level models of a tick: into the gradients of traces, and of weights once
    /// a chunk of ticks is kept.
    fn neurons(&self, t: usize) -> Result<()> {
        let Back { device, thought, read, work, .. } = self;
        let (slot, place) = (thought.slot(), t % CHUNK);
        let arguments = [
            plain(&thought.neurons()),
            pointer(thought.slot_at(work.traces, t + 1)),
            pointer(work.dz),
            pointer(read.dstates),
            pointer(thought.slot_at(work.dtraces, t + 1)),
            pointer(element(work.dfirst, place * thought.outputs() * slot)),
            pointer(element(work.values, place * thought.hidden * slot)),
            pointer(element(work.dsecond, place * 2 * slot)),
            index(thought.ticks),
            index(t),
            index(slot),
        ];
        device.launch(&NEURONS, "neuron_models_adjoint", over(slot), &arguments)?;
        if place == 0 { weights::of_neurons(self, t) } else { Ok(()) }
    }

    /// The synapse of a tick: into dz, and the gradient of what was read.
    fn synapse(&self, t: usize) -> Result<()> {
        let Back { device, thought, read, work, .. } = self;
        let Thought { batch, ticks, memory, width, .. } = *thought;
        let last = thought.layers.len() - 1;
        for (at, layer) in thought.layers.iter().enumerate().rev() {
            let of = &work.layers[at];
            let dout = if at == last { thought.slot_at(work.dtraces, memory + t) } else { of.dout };
            let across = layer.skip.map_or(0, |_| work.layers[last - at].dout);
            let dproduct = element(of.dproduct, t * batch * layer.columns);
            let arguments = [
                plain(&thought.layer(layer, t)),
                pointer(read.products),
                pointer(element(of.sum, t * batch * layer.width)),
                pointer(dout),
                pointer(dproduct),
                pointer(across),
                pointer(of.norms),
            ];
            device.launch(&SYNAPSE, "synapse_layer_adjoint", rows(batch), &arguments)?;
            // Downwards, an output has its gradient from across already.
            let (to, add) = match at {
                0 => (work.dx, false),
                _ => (work.layers[at - 1].dout, at <= last / 2),
            };
            let weight = (layer.linear[0], true);
            let sizes = [batch, layer.inputs, layer.columns];
            device.multiply(sizes, (dproduct, false), weight, to, add)?;
        }
        // What is read once gathers the gradients of all ticks.
        let once = thought.reads_once();
        let dread = element(work.dread, if once { 0 } else { t * batch * width });
        let add = once && t + 1 < ticks;
        let Some(given) = &thought.projections else {
            return thought.split(device, work.dx, (dread, add), work.dz);
        };
        let dtold = element(work.dtold, t * batch * width);
        thought.split(device, work.dx, (dtold, false), work.dz)?;
        let weight = (given.read[0], false);
        device.multiply([batch, width, width], (dtold, false), weight, dread, add)
    }

    /// Attention of a tick: into the gradients of its shares and of what was asked.
    fn attention(&self, t: usize) -> Result<()> {
        let Back { device, thought, read, work, .. } = self;
        let Thought { batch, tokens, width, heads, .. } = *thought;
        let at = t * batch * width;
        let dasked = element(work.dasked, at);
        let dquery = match thought.projections {
            Some(_) => element(work.dquery, at),
            None => dasked,
        };
        let arguments = [
            plain(&thought.tokens()),
            pointer(read.shares),
            pointer(element(work.dread, at)),
            pointer(element(work.dscores, t * batch * heads * tokens)),
            pointer(dquery),
            index(t),
        ];
        device.launch(&TOKENS, "attend_tokens_adjoint", rows(batch * heads), &arguments)?;
        let Some(given) = &thought.projections else { return Ok(()) };
        let weight = (given.query[0], false);
        device.multiply([batch, width, width], (dquery, false), weight, dasked, false)
    }

    /// The synchronisation that a tick asks with: into dz.
    fn synchronisation(
        &self,
        recurrence: &Recurrence,
        members: &Memberships,
        t: usize,
    ) -> Result<()> {
        let Back { device, thought, work, .. } = self;
        let Thought { batch, ticks, width, pairs, .. } = *thought;
        let dasked = element(work.dasked, t * batch * width);
        let weight = (thought.query[0], false);
        device.multiply([batch, pairs, width], (dasked, false), weight, work.dsynchrony, false)?;
        let at = recurrence.at(t);
        let adjoint = Adjoint {
            alphas: (work.alphas, ticks),
            dout: work.dsynchrony,
            dalphas: work.dalphas,
            rows: 1,
            dbetas: work.dbetas,
            dretention: work.dretention,
        };
        adjoint.step(device, &at, batch, t + 1 == ticks)?;
        let arguments = [
            plain(&at),
            plain(members),
            pointer(work.dalphas),
            pointer(work.dz),
            index(thought.slot()),
        ];
        let shape = over(thought.slot());
        device.launch(&SYNCHRONISATION, "synchronisation_state", shape, &arguments)
    }

    /// The gradients of keys and values, sums over ticks.
    fn tokens(&self) -> Result<()> {
        let Back { device, thought, read, work, gradients } = self;
        let Thought { batch, ticks, tokens, width, .. } = *thought;
        let kept = Kept { tensor: read.query, columns: thought.kept(), at: thought.kept() - width };
        let count = batch * tokens * width;
        let arguments = [
            plain(&thought.tokens()),
            pointer(kept.tensor),
            index(kept.columns),
            index(kept.at),
            pointer(read.shares),
            pointer(work.dscores),
            pointer(work.dread),
            pointer(gradients.keys),
            pointer(gradients.values),
            index(batch),
            index(if thought.reads_once() { 1 } else { ticks }),
            index(count),
        ];
        device.launch(&TOKENS, "tokens_gradient", over(count), &arguments)
    }
}
