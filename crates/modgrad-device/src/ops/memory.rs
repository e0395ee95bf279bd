//! Counted memory.
//!
//! Rows depend on bytes, tables and weights that the host gave: it forms them, and only
//! they go to the device.

use modgrad_ffn::memory::{self, Batch, MemoryConfig, Rows, Weights};
use modgrad_graph::{Error, Op, Result};

use super::{Call, Input, Out, last};
use crate::launch::{Place, index, rows};
use crate::source::MIXING;

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::CountedRows { memory, earlier, margin } => {
            counted_rows(call, memory, *earlier, *margin)
        }
        Op::MixRows => mix_rows(&call),
        Op::MixRowsGradient => mix_rows_gradient(&call),
        _ => Err(call.missing()),
    }
}

fn counted_rows(
    call: Call<'_, '_>,
    config: &MemoryConfig,
    earlier: usize,
    margin: usize,
) -> Result<()> {
    let [tokens, tables, back_off, mixer] = call.x else { return Err(call.missing()) };
    let on_host = |x: &Input<'_>| {
        let size = x.storage.size();
        x.memory.on_host(x.offset * size, x.elements() * size)
    };
    let weights = [on_host(back_off)?, on_host(mixer)?];
    let [back_off, mixer]: [Vec<f32>; 2] =
        weights.each_ref().map(|copy| bytemuck::pod_collect_to_vec(copy));
    let weights = Weights { back_off: &back_off, mixer: &mixer };
    let time = tokens.shape[1] - earlier - 2 * margin;
    let (tokens, tables) = (on_host(tokens)?, on_host(tables)?);
    let tables = memory::Memory::from_bytes(config, &tables).map_err(|found| {
        let expected = "tables of counts".to_owned();
        Error::Shape { op: call.op.name(), expected, found }
    })?;

    let [base, entries, difference, multiple, statistics, leading, lessons] = &mut *call.out else {
        return Err(call.missing());
    };
    let [mut bases, mut differences, mut multiples, mut figures, mut taught] =
        [&*base, difference, multiple, statistics, lessons].map(|out| vec![0.0; out.elements()]);
    let [mut bytes, mut likeliest] = [&*entries, leading].map(|out| vec![0; out.elements()]);
    let rows = Rows {
        base: &mut bases,
        entries: &mut bytes,
        difference: &mut differences,
        multiple: &mut multiples,
        statistics: &mut figures,
        leading: &mut likeliest,
        lessons: &mut taught,
    };
    let batch = Batch { tokens: &tokens, time, margin, earlier };
    call.device.on_host(|pool| memory::window_rows(pool, &tables, weights, batch, rows));
    give(base, &bases)?;
    give(entries, &bytes)?;
    give(difference, &differences)?;
    give(multiple, &multiples)?;
    give(statistics, &figures)?;
    give(leading, &likeliest)?;
    give(lessons, &taught)?;
    // The host reads its own lessons without waiting for the device.
    lessons.memory.keep_on_host(lessons.offset * 4, bytemuck::cast_slice(&taught));
    Ok(())
}

/// Copies a result to the device.
fn give<T: bytemuck::NoUninit>(out: &mut Out<'_>, values: &[T]) -> Result<()> {
    out.memory.write(out.offset * out.storage.size(), bytemuck::cast_slice(values))
}

fn mix_rows(call: &Call<'_, '_>) -> Result<()> {
    let [logits, gates, base, entries, difference, multiple] = call.x else {
        return Err(call.missing());
    };
    let (out, width) = (&call.out[0], last(entries.shape));
    let mut arguments = vec![
        logits.pointer(),
        gates.pointer(),
        base.pointer(),
        entries.pointer(),
        difference.pointer(),
        multiple.pointer(),
        out.pointer(),
        index(last(multiple.shape)),
        index(width),
    ];
    arguments.extend(call.device.index_check(call.op.name(), 256));
    call.device.launch(&MIXING, "mix_rows", rows(out.elements() / 256), &arguments)
}

fn mix_rows_gradient(call: &Call<'_, '_>) -> Result<()> {
    let [base, entries, difference, multiple, dout] = call.x else { return Err(call.missing()) };
    let mut arguments = vec![
        base.pointer(),
        entries.pointer(),
        difference.pointer(),
        multiple.pointer(),
        dout.pointer(),
        call.out[0].pointer(),
        index(last(multiple.shape)),
        index(last(entries.shape)),
    ];
    arguments.extend(call.device.index_check(call.op.name(), 256));
    let positions = rows(dout.elements() / 256);
    call.device.launch(&MIXING, "mix_rows_gradient", positions, &arguments)
}
