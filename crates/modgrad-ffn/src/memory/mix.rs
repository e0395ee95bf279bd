//! Logits with weighted rows of a counted memory added to them.
//!
//! Axes: N positions, K experts, E entries; see [`Rows`](super::Rows).

use modgrad_compute::{Pool, multiversion};

use super::config::LANES;

/// Positions that are worth a thread.
const GRANULE: usize = 64;

/// out [N, 256] = logits + Σ_k gates[k]·(the row of expert k), rows as given by `base`
/// [N, 256], `entries` [N, E], `difference` [N, K, E] and `multiple` [N, K].
///
/// Panics when the lengths disagree, or an entry is no byte.
pub fn mix_rows(
    pool: &Pool,
    logits: &[f32],
    gates: &[f32],
    base: &[f32],
    entries: &[i32],
    difference: &[f32],
    multiple: &[f32],
    out: &mut [f32],
) {
    let positions = out.len() / 256;
    let (experts, width) = sizes(positions, gates, entries, difference);
    pool.for_rows(out, 256, GRANULE, |first, out| {
        for (offset, out) in out.chunks_exact_mut(256).enumerate() {
            let at = first + offset;
            mix_row(
                &logits[at * 256..][..256],
                &gates[at * experts..][..experts],
                &base[at * 256..][..256],
                &entries[at * width..][..width],
                &difference[at * experts * width..][..experts * width],
                &multiple[at * experts..][..experts],
                out,
            );
        }
    });
}

/// dgates [N, K], of [`mix_rows`]; the gradient of its logits is dout itself.
///
/// Panics when the lengths disagree, or an entry is no byte.
pub fn mix_rows_gradient(
    pool: &Pool,
    base: &[f32],
    entries: &[i32],
    difference: &[f32],
    multiple: &[f32],
    dout: &[f32],
    dgates: &mut [f32],
) {
    let positions = dout.len() / 256;
    let (experts, width) = sizes(positions, dgates, entries, difference);
    pool.for_rows(dgates, experts, GRANULE, |first, dgates| {
        for (offset, dgates) in dgates.chunks_exact_mut(experts).enumerate() {
            let at = first + offset;
            gate_gradients(
                &base[at * 256..][..256],
                &entries[at * width..][..width],
                &difference[at * experts * width..][..experts * width],
                &multiple[at * experts..][..experts],
                &dout[at * 256..][..256],
                dgates,
            );
        }
    });
}

/// (experts, entries) of a position.
fn sizes(positions: usize, gates: &[f32], entries: &[i32], difference: &[f32]) -> (usize, usize) {
    let experts = gates.len().checked_div(positions).unwrap_or(0);
    let width = entries.len().checked_div(positions).unwrap_or(0);
    assert_eq!(difference.len(), positions * experts * width, "`mix_rows`: size of difference");
    (experts, width)
}

multiversion! {
    fn mix_row(
        logits: &[f32], gates: &[f32], base: &[f32], entries: &[i32], difference: &[f32],
        multiple: &[f32], out: &mut [f32],
    ) {
        let scale = gates.iter().zip(multiple).map(|(gate, multiple)| gate * multiple).sum::<f32>();
        for ((out, logit), base) in out.iter_mut().zip(logits).zip(base) {
            *out = logit + scale * base;
        }
        let mut mixed = [0.0f32; 256];
        let mixed = &mut mixed[..entries.len()];
        for (gate, row) in gates.iter().zip(difference.chunks_exact(entries.len().max(1))) {
            for (mixed, difference) in mixed.iter_mut().zip(row) {
                *mixed += gate * difference;
            }
        }
        for (entry, mixed) in entries.iter().zip(&*mixed) {
            out[*entry as usize] += mixed;
        }
    }
}

multiversion! {
    fn gate_gradients(
        base: &[f32], entries: &[i32], difference: &[f32], multiple: &[f32], dout: &[f32],
        dgates: &mut [f32],
    ) {
        let common = dot(dout, base);
        let mut at_entries = [0.0f32; 256];
        let at_entries = &mut at_entries[..entries.len()];
        for (at, entry) in at_entries.iter_mut().zip(entries) {
            *at = dout[*entry as usize];
        }
        let rows = difference.chunks_exact(entries.len().max(1));
        for ((dgate, multiple), row) in dgates.iter_mut().zip(multiple).zip(rows) {
            *dgate = multiple * common + dot(at_entries, row);
        }
    }
}

/// Σ a·b, in lanes.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = whole_a.remainder().iter().zip(whole_b.remainder());
    let rest = rest.map(|(a, b)| a * b).sum::<f32>();
    for (a, b) in whole_a.zip(whole_b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
