//! The arms of `ops` for counted memory.

use modgrad_compute::Pool;
use modgrad_ffn::memory::{self, Batch, Memory, MemoryConfig, Rows, Weights};

use super::HostMemory;
use crate::error::{Error, Result};

type Input<'a> = crate::backend::Operand<'a, HostMemory>;
type Out<'a> = crate::backend::OperandMut<'a, HostMemory>;

pub(super) fn counted_rows(
    pool: &Pool,
    config: &MemoryConfig,
    earlier: usize,
    margin: usize,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let [base, entries, difference, multiple, statistics, leading, lessons] = out else {
        return Err(Error::malformed("`counted_rows` was planned with other outputs"));
    };
    let tables = Memory::from_bytes(config, x[1].slice())
        .map_err(|found| Error::shape("counted_rows", "tables of counts", found))?;
    let weights = Weights { back_off: x[2].slice(), mixer: x[3].slice() };
    let rows = Rows {
        base: base.slice_mut(),
        entries: entries.slice_mut(),
        difference: difference.slice_mut(),
        multiple: multiple.slice_mut(),
        statistics: statistics.slice_mut(),
        leading: leading.slice_mut(),
        lessons: lessons.slice_mut(),
    };
    let time = x[0].shape[1] - earlier - 2 * margin;
    let batch = Batch { tokens: x[0].slice(), time, margin, earlier };
    memory::window_rows(pool, &tables, weights, batch, rows);
    Ok(())
}

pub(super) fn mix_rows(pool: &Pool, x: &[Input<'_>], out: &mut Out<'_>) -> Result<()> {
    let entries = entries("mix_rows", &x[3])?;
    let (logits, gates) = (x[0].slice(), x[1].slice());
    let (base, difference, multiple) = (x[2].slice(), x[4].slice(), x[5].slice());
    let out = out.slice_mut();
    memory::mix_rows(pool, logits, gates, base, entries, difference, multiple, out);
    Ok(())
}

pub(super) fn mix_rows_gradient(pool: &Pool, x: &[Input<'_>], out: &mut Out<'_>) -> Result<()> {
    let entries = entries("mix_rows_gradient", &x[1])?;
    let (base, difference, multiple) = (x[0].slice(), x[2].slice(), x[3].slice());
    let (dout, dgates) = (x[4].slice(), out.slice_mut());
    memory::mix_rows_gradient(pool, base, entries, difference, multiple, dout, dgates);
    Ok(())
}

/// Refuses entries that are no bytes.
fn entries<'a>(op: &'static str, entries: &Input<'a>) -> Result<&'a [i32]> {
    let bytes = entries.slice::<i32>();
    match bytes.iter().find(|byte| !(0..256).contains(*byte)) {
        Some(other) => Err(Error::shape(op, "entries from 0 to 255", other.to_string())),
        None => Ok(bytes),
    }
}
