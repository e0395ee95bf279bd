//! The stages of a tick over a block of rows, one cell a row.
//!
//! They go by lanes: arrays of a length that the compiler knows become straight
//! vector code, which short loops over slices do not.

use modgrad_compute::{math, multiversion};

/// Calls `$body` with the most lanes that divide `$size`.
macro_rules! with_lanes {
    ($size:expr, $body:ident($($argument:expr),* $(,)?)) => {
        match $size {
            size if size % 16 == 0 => $body::<16>($($argument),*),
            size if size % 8 == 0 => $body::<8>($($argument),*),
            size if size % 4 == 0 => $body::<4>($($argument),*),
            _ => $body::<1>($($argument),*),
        }
    };
}

/// L elements of `values` from `at` on.
#[inline(always)]
fn load<const L: usize>(values: &[f32], at: usize) -> [f32; L] {
    *values[at..].first_chunk().expect("a whole number of lanes")
}

#[inline(always)]
fn store<const L: usize>(values: &mut [f32], at: usize, lanes: [f32; L]) {
    values[at..at + L].copy_from_slice(&lanes);
}

/// f of each lane.
#[inline(always)]
fn lanes<const L: usize>(f: impl Fn(usize) -> f32) -> [f32; L] {
    let mut out = [0.0; L];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

/// values[at..] += lanes.
#[inline(always)]
fn add<const L: usize>(values: &mut [f32], at: usize, terms: [f32; L]) {
    let before: [f32; L] = load(values, at);
    store(values, at, lanes::<L>(|c| before[c] + terms[c]));
}

multiversion! {
    /// a += σ(g)·(tanh(u) − a) over rows of (u, g), which become (tanh(u), σ(g)).
    pub(super) fn gate(
        channels: usize, synapse: &mut [f32], before: &[f32], activations: &mut [f32],
    ) {
        with_lanes!(channels, gate_rows(channels, synapse, before, activations));
    }
}

#[inline(always)]
fn gate_rows<const L: usize>(
    channels: usize,
    synapse: &mut [f32],
    before: &[f32],
    activations: &mut [f32],
) {
    let rows = synapse.chunks_exact_mut(2 * channels).zip(before.chunks_exact(channels));
    for ((row, before), a) in rows.zip(activations.chunks_exact_mut(channels)) {
        for at in (0..channels).step_by(L) {
            let (u, g): ([f32; L], [f32; L]) = (load(row, at), load(row, channels + at));
            let before: [f32; L] = load(before, at);
            let u = lanes::<L>(|c| math::tanh(u[c]));
            let g = lanes::<L>(|c| math::sigmoid(g[c]));
            store(a, at, lanes::<L>(|c| before[c] + g[c] * (u[c] - before[c])));
            store(row, at, u);
            store(row, channels + at, g);
        }
    }
}

multiversion! {
    /// The neuron-level models' value and σ(gate) [rows][2C] and their product z, from
    /// M slots of activations that start `from` elements into theirs, oldest first.
    pub(super) fn neurons(
        channels: usize, slots: &[&[f32]], from: usize, weight: &[f32], bias: &[f32],
        parts: &mut [f32], states: &mut [f32],
    ) {
        with_lanes!(channels, neuron_rows(channels, slots, from, weight, bias, parts, states));
    }
}

#[inline(always)]
fn neuron_rows<const L: usize>(
    channels: usize,
    slots: &[&[f32]],
    from: usize,
    weight: &[f32],
    bias: &[f32],
    parts: &mut [f32],
    states: &mut [f32],
) {
    let pairs = 2 * channels;
    let rows = parts.chunks_exact_mut(pairs).zip(states.chunks_exact_mut(channels));
    for (row, (part, z)) in rows.enumerate() {
        for at in (0..channels).step_by(L) {
            let mut value: [f32; L] = load(bias, at);
            let mut gate: [f32; L] = load(bias, channels + at);
            for (m, slot) in slots.iter().enumerate() {
                let a: [f32; L] = load(slot, from + row * channels + at);
                let to_value: [f32; L] = load(weight, m * pairs + at);
                let to_gate: [f32; L] = load(weight, m * pairs + channels + at);
                value = lanes::<L>(|c| value[c] + to_value[c] * a[c]);
                gate = lanes::<L>(|c| gate[c] + to_gate[c] * a[c]);
            }
            let gate = lanes::<L>(|c| math::sigmoid(gate[c]));
            store(part, at, value);
            store(part, channels + at, gate);
            store(z, at, lanes::<L>(|c| value[c] * gate[c]));
        }
    }
}

multiversion! {
    /// The adjoint of [`neurons`]: adds dz's share to the gradients of the slots'
    /// activations, weights [M][2C] and bias.
    pub(super) fn neuron_adjoint(
        channels: usize, slots: &[&[f32]], from: usize, weight: &[f32], parts: &[f32],
        dstates: &[f32], dslots: &mut [&mut [f32]], dweight: &mut [f32], dbias: &mut [f32],
    ) {
        with_lanes!(channels, neuron_adjoint_rows(
            channels, slots, from, weight, parts, dstates, dslots, dweight, dbias,
        ));
    }
}

#[inline(always)]
fn neuron_adjoint_rows<const L: usize>(
    channels: usize,
    slots: &[&[f32]],
    from: usize,
    weight: &[f32],
    parts: &[f32],
    dstates: &[f32],
    dslots: &mut [&mut [f32]],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let pairs = 2 * channels;
    let rows = parts.chunks_exact(pairs).zip(dstates.chunks_exact(channels));
    for (row, (part, dz)) in rows.enumerate() {
        for at in (0..channels).step_by(L) {
            let (value, gate): ([f32; L], [f32; L]) = (load(part, at), load(part, channels + at));
            let dz: [f32; L] = load(dz, at);
            let dvalue = lanes::<L>(|c| dz[c] * gate[c]);
            let dgate = lanes::<L>(|c| dvalue[c] * value[c] * (1.0 - gate[c]));
            add(dbias, at, dvalue);
            add(dbias, channels + at, dgate);
            for m in 0..slots.len() {
                let (to_value, to_gate) = (m * pairs + at, m * pairs + channels + at);
                let place = from + row * channels + at;
                let a: [f32; L] = load(slots[m], place);
                let value: [f32; L] = load(weight, to_value);
                let gate: [f32; L] = load(weight, to_gate);
                add(dslots[m], place, lanes::<L>(|c| dvalue[c] * value[c] + dgate[c] * gate[c]));
                add(dweight, to_value, lanes::<L>(|c| dvalue[c] * a[c]));
                add(dweight, to_gate, lanes::<L>(|c| dgate[c] * a[c]));
            }
        }
    }
}

multiversion! {
    /// The adjoint of [`gate`]: from da of a tick to that of its synapse [rows][2C],
    /// which `ddrive` sums; `dbefore` gains the share of the activations before it, and
    /// `dactivations` is made 0.
    pub(super) fn gate_adjoint(
        channels: usize, gates: &[f32], before: &[f32], dactivations: &mut [f32],
        dbefore: &mut [f32], dsynapse: &mut [f32], ddrive: &mut [f32],
    ) {
        with_lanes!(channels, gate_adjoint_rows(
            channels, gates, before, dactivations, dbefore, dsynapse, ddrive,
        ));
    }
}

#[inline(always)]
fn gate_adjoint_rows<const L: usize>(
    channels: usize,
    gates: &[f32],
    before: &[f32],
    dactivations: &mut [f32],
    dbefore: &mut [f32],
    dsynapse: &mut [f32],
    ddrive: &mut [f32],
) {
    let pairs = 2 * channels;
    let rows = gates.chunks_exact(pairs).zip(before.chunks_exact(channels));
    let drows = dactivations
        .chunks_exact_mut(channels)
        .zip(dbefore.chunks_exact_mut(channels))
        .zip(dsynapse.chunks_exact_mut(pairs).zip(ddrive.chunks_exact_mut(pairs)));
    for ((gates, before), ((da, dbefore), (dsynapse, ddrive))) in rows.zip(drows) {
        for at in (0..channels).step_by(L) {
            let (u, g): ([f32; L], [f32; L]) = (load(gates, at), load(gates, channels + at));
            let (before, now): ([f32; L], [f32; L]) = (load(before, at), load(da, at));
            let moved = lanes::<L>(|c| now[c] * g[c]);
            let du = lanes::<L>(|c| moved[c] * (1.0 - u[c] * u[c]));
            let dg = lanes::<L>(|c| moved[c] * (1.0 - g[c]) * (u[c] - before[c]));
            add(dbefore, at, lanes::<L>(|c| now[c] - moved[c]));
            store(da, at, [0.0; L]);
            store(dsynapse, at, du);
            store(dsynapse, channels + at, dg);
            add(ddrive, at, du);
            add(ddrive, channels + at, dg);
        }
    }
}

multiversion! {
    /// α = r·α + the products of a cell's pairs, from rows of [z ; heard].
    pub(super) fn synchronise(
        channels: usize, heard: &[f32], retention: &[f32], alpha: &mut [f32],
    ) {
        with_lanes!(channels / 4, synchronise_rows(channels, heard, retention, alpha));
    }
}

/// Lanes divide the groups of axons, so that the next group's are in one piece.
#[inline(always)]
fn synchronise_rows<const L: usize>(
    channels: usize,
    heard: &[f32],
    retention: &[f32],
    alpha: &mut [f32],
) {
    let (pairs, group) = (2 * channels, channels / 4);
    for (heard, alpha) in heard.chunks_exact(pairs).zip(alpha.chunks_exact_mut(pairs)) {
        for at in (0..channels).step_by(L) {
            let own: [f32; L] = load(heard, at);
            let next = if at + group < channels { at + group } else { at + group - channels };
            for (pair, partner) in [(at, next), (channels + at, channels + at)] {
                let partner: [f32; L] = load(heard, partner);
                let (r, before): ([f32; L], [f32; L]) = (load(retention, pair), load(alpha, pair));
                store(alpha, pair, lanes::<L>(|c| r[c] * before[c] + own[c] * partner[c]));
            }
        }
    }
}

multiversion! {
    /// The adjoint of [`synchronise`]: adds ᾱ's share to that of [z ; heard], and
    /// π·κ to the retention's.
    pub(super) fn synchronise_adjoint(
        channels: usize, heard: &[f32], dalpha: &[f32], kappa: &[f32], dheard: &mut [f32],
        dretention: &mut [f32],
    ) {
        with_lanes!(channels / 4, synchronise_adjoint_rows(
            channels, heard, dalpha, kappa, dheard, dretention,
        ));
    }
}

#[inline(always)]
fn synchronise_adjoint_rows<const L: usize>(
    channels: usize,
    heard: &[f32],
    dalpha: &[f32],
    kappa: &[f32],
    dheard: &mut [f32],
    dretention: &mut [f32],
) {
    let (pairs, group) = (2 * channels, channels / 4);
    let rows = heard.chunks_exact(pairs).zip(dheard.chunks_exact_mut(pairs));
    let sums = dalpha.chunks_exact(pairs).zip(kappa.chunks_exact(pairs));
    for ((heard, dheard), (dalpha, kappa)) in rows.zip(sums) {
        for at in (0..channels).step_by(L) {
            let own: [f32; L] = load(heard, at);
            let next = if at + group < channels { at + group } else { at + group - channels };
            let mut down = [0.0; L];
            for (pair, partner) in [(at, next), (channels + at, channels + at)] {
                let other: [f32; L] = load(heard, partner);
                let (d, k): ([f32; L], [f32; L]) = (load(dalpha, pair), load(kappa, pair));
                down = lanes::<L>(|c| down[c] + d[c] * other[c]);
                add(dheard, partner, lanes::<L>(|c| d[c] * own[c]));
                add(dretention, pair, lanes::<L>(|c| k[c] * own[c] * other[c]));
            }
            add(dheard, at, down);
        }
    }
}

multiversion! {
    /// One step back in time: κ = r·κ + ᾱ, then ᾱ = r·ᾱ.
    pub(super) fn fade(channels: usize, retention: &[f32], dalpha: &mut [f32], kappa: &mut [f32]) {
        with_lanes!(channels, fade_rows(channels, retention, dalpha, kappa));
    }
}

#[inline(always)]
fn fade_rows<const L: usize>(
    channels: usize,
    retention: &[f32],
    dalpha: &mut [f32],
    kappa: &mut [f32],
) {
    let pairs = 2 * channels;
    for (dalpha, kappa) in dalpha.chunks_exact_mut(pairs).zip(kappa.chunks_exact_mut(pairs)) {
        for at in (0..pairs).step_by(L) {
            let (r, d): ([f32; L], [f32; L]) = (load(retention, at), load(dalpha, at));
            let k: [f32; L] = load(kappa, at);
            store(kappa, at, lanes::<L>(|c| r[c] * k[c] + d[c]));
            store(dalpha, at, lanes::<L>(|c| r[c] * d[c]));
        }
    }
}
