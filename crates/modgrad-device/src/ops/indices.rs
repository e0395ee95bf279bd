//! What ops with indices share: checks of them, and sums over those that are equal.

use modgrad_graph::storage::Storage;
use modgrad_graph::{Error, Result};

use super::{Call, Input, floats};
use crate::device::Scratch;
use crate::driver::{Address, Argument};
use crate::launch::{BLOCK, Place, grid, index, over, suffix};
use crate::order::{Indices, Ordered};
use crate::source::ROWS;

/// The storage of indices in the names of kernels.
pub(super) fn index_suffix(call: &Call<'_, '_>, x: &Input<'_>) -> Result<&'static str> {
    match x.storage {
        Storage::I32 | Storage::U8 => Ok(suffix(x.storage)),
        other => {
            let reason = format!("`{}`: indices are stored as {other:?}", call.op.name());
            Err(Error::Malformed { reason })
        }
    }
}

/// Looks at indices that no kernel of the op will see, as its result is empty.
pub(super) fn look(call: &Call<'_, '_>, x: &Input<'_>, bound: usize) -> Result<()> {
    let kernel = format!("look_{}", index_suffix(call, x)?);
    let mut arguments = vec![x.pointer(), index(bound), index(x.elements())];
    arguments.extend(call.device.index_check(call.op.name(), bound));
    call.device.launch(&ROWS, &kernel, over(x.elements()), &arguments)
}

/// dx [outer, rows, inner] = sums of dy [outer, taken, inner], by which row an index names;
/// `bag` indices belong to one of the taken.
pub(super) fn sum_by_index(
    call: &Call<'_, '_>,
    outer: usize,
    rows: usize,
    inner: usize,
    bag: usize,
) -> Result<()> {
    let (device, x, dy, dx) = (call.device, &call.x[0], &call.x[1], &call.out[0]);
    floats(call.op, &[dy.storage])?;
    let count = outer * rows * inner;
    if count == 0 {
        return look(call, x, rows);
    }
    let indices = Indices {
        op: call.op.name(),
        address: x.address(),
        suffix: index_suffix(call, x)?,
        count: x.elements(),
        bound: rows,
    };
    let ordered = Ordered::new(device, &indices)?;
    let starts = ordered.starts(device, &indices)?;
    // Few rows have many positions each: these are cut into parts.
    let parts = (8192 / (outer * rows)).min(indices.count / 64).clamp(1, 32);
    let sum = |to: Address, add: bool| {
        let arguments = [
            dy.pointer(),
            Argument::Pointer(ordered.positions),
            Argument::Pointer(starts),
            Argument::Pointer(to),
            index(rows),
            index(indices.count / bag),
            index(inner),
            index(bag),
            Argument::Int(i32::from(add)),
            index(count),
        ];
        let shape = grid(count.div_ceil(BLOCK), parts);
        device.launch(&ROWS, &format!("sum_ordered_{}", suffix(dy.storage)), shape, &arguments)
    };
    if parts == 1 {
        return sum(dx.address(), call.add);
    }
    let all = device.scratch(Scratch::Sixth, parts * count * 4)?;
    sum(all, false)?;
    let arguments = [
        Argument::Pointer(all),
        dx.pointer(),
        index(parts),
        Argument::Int(i32::from(call.add)),
        index(count),
    ];
    device.launch(&ROWS, "fold_parts", over(count), &arguments)
}
