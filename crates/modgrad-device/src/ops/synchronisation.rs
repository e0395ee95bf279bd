//! Synchronisation of pairs of neurons.

use bytemuck::{Pod, Zeroable};
use modgrad_graph::Result;

use super::indices::look;
use super::{Call, Input};
use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument};
use crate::launch::{Place, index, over, plain};
use crate::order::{Indices, Ordered};
use crate::source::SYNCHRONISATION;
use crate::stages::pointer;

/// `Recurrence` of `kernels/synchronisation.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Recurrence {
    pub start: Address,
    pub states: Address,
    pub left: Address,
    pub right: Address,
    pub retention: Address,
    pub beta: Address,
    pub ticks: i64,
    pub neurons: i64,
    pub pairs: i64,
    pub first: i64,
    pub end: i64,
}

impl Recurrence {
    /// The same pairs at one k.
    pub(super) fn at(self, k: usize) -> Recurrence {
        Recurrence { first: k as i64, end: k as i64 + 1, ..self }
    }
}

/// `Memberships` of `kernels/synchronisation.hip`, in scratch First to Fifth.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Memberships {
    positions: Address,
    starts: Address,
}

impl Memberships {
    /// `both` has room for twice the pairs.
    pub(super) fn new(call: &Call<'_, '_>, given: &Recurrence, both: Address) -> Result<Self> {
        let (device, bytes) = (call.device, given.pairs as usize * 4);
        if bytes > 0 {
            device.driver().copy(given.left, both, bytes)?;
            device.driver().copy(given.right, both + bytes as u64, bytes)?;
        }
        let indices = Indices {
            op: call.op.name(),
            address: both,
            suffix: "i32",
            count: 2 * given.pairs as usize,
            bound: given.neurons as usize,
        };
        let ordered = Ordered::new(device, &indices)?;
        let starts = ordered.starts(device, &indices)?;
        Ok(Memberships { positions: ordered.positions, starts })
    }
}

/// β of every pair at `count` states: beta [count, S].
pub(super) fn norms(device: &Device, given: &Recurrence, count: usize) -> Result<()> {
    let pairs = given.pairs as usize;
    let arguments = [pointer(given.retention), pointer(given.beta), index(pairs), index(count)];
    device.launch(&SYNCHRONISATION, "synchronisation_norms", over(pairs), &arguments)
}

/// Rows of what is kept of each state: where, and how many a sample.
pub(super) type Kept = (Address, usize);

/// α and what is read of states `first` to below `end` of `batch` samples.
pub(super) fn advance(
    call: &Call<'_, '_>,
    given: &Recurrence,
    batch: usize,
    alphas: Kept,
    out: Kept,
) -> Result<()> {
    let count = batch * given.pairs as usize;
    let mut arguments = vec![
        plain(given),
        pointer(alphas.0),
        index(alphas.1),
        pointer(out.0),
        index(out.1),
        index(count),
    ];
    arguments.extend(call.device.index_check(call.op.name(), given.neurons as usize));
    call.device.launch(&SYNCHRONISATION, "synchronisation", over(count), &arguments)
}

/// What goes back through the recurrence.
pub(super) struct Adjoint {
    /// All of them.
    pub alphas: Kept,
    pub dout: Address,
    pub dalphas: Address,
    /// Rows of these two.
    pub rows: usize,
    /// [B, S].
    pub dbetas: Address,
    /// [B, S].
    pub dretention: Address,
}

impl Adjoint {
    /// From state `end` − 1 to `first`; the first call of a run `begins`.
    pub(super) fn step(
        &self,
        device: &Device,
        given: &Recurrence,
        batch: usize,
        begins: bool,
    ) -> Result<()> {
        let count = batch * given.pairs as usize;
        let arguments = [
            plain(given),
            pointer(self.alphas.0),
            index(self.alphas.1),
            pointer(self.dout),
            pointer(self.dalphas),
            index(self.rows),
            pointer(self.dbetas),
            pointer(self.dretention),
            Argument::Int(i32::from(begins)),
            index(count),
        ];
        device.launch(&SYNCHRONISATION, "synchronisation_adjoint", over(count), &arguments)
    }
}

/// The recurrence over all states, with room for β.
fn whole(x: &[Input<'_>], beta: Address) -> Recurrence {
    let (states, ticks) = (&x[1], x[1].shape[1]);
    Recurrence {
        start: x[0].address(),
        states: states.address(),
        left: x[2].address(),
        right: x[3].address(),
        retention: x[4].address(),
        beta,
        ticks: ticks as i64,
        neurons: states.shape[2] as i64,
        pairs: x[4].shape[0] as i64,
        first: 0,
        end: ticks as i64 + 1,
    }
}

pub(super) fn forward(call: &Call<'_, '_>) -> Result<()> {
    let (states, pairs) = (&call.x[1], call.x[4].shape[0]);
    let (batch, all) = (states.shape[0], states.shape[1] + 1);
    if batch == 0 {
        look(call, &call.x[2], states.shape[2])?;
        return look(call, &call.x[3], states.shape[2]);
    }
    let [beta, alphas] = call.device.pieces(Scratch::First, [all * pairs, batch * pairs])?;
    let given = whole(call.x, beta);
    norms(call.device, &given, all)?;
    advance(call, &given, batch, (alphas, 1), (call.out[0].address(), all))
}

pub(super) fn gradient(call: &Call<'_, '_>) -> Result<()> {
    let (device, states, dout) = (call.device, &call.x[1], &call.x[5]);
    let (pairs, neurons) = (call.x[4].shape[0], states.shape[2]);
    let (batch, all) = (states.shape[0], states.shape[1] + 1);
    let [start, states, retention] = &*call.out else { return Err(call.missing()) };
    let rows = batch * all * pairs;
    let sizes = [all * pairs, rows, rows, rows, batch * pairs, batch * pairs, 2 * pairs];
    let [beta, alphas, read, dalphas, dbetas, dretention, both] =
        device.pieces(Scratch::Sixth, sizes)?;
    let given = whole(call.x, beta);
    let members = Memberships::new(call, &given, both)?;
    norms(device, &given, all)?;
    advance(call, &given, batch, (alphas, all), (read, all))?;
    let alphas = (alphas, all);
    let adjoint = Adjoint { alphas, dout: dout.address(), dalphas, rows: all, dbetas, dretention };
    adjoint.step(device, &given, batch, true)?;
    let count = batch * all * neurons;
    let arguments = [
        plain(&given),
        plain(&members),
        pointer(dalphas),
        start.pointer(),
        states.pointer(),
        index(count),
    ];
    device.launch(&SYNCHRONISATION, "synchronisation_states", over(count), &arguments)?;
    device.column_sums(dretention, retention.address(), batch, pairs)
}
