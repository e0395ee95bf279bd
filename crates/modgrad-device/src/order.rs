//! Positions in the order of their indices: what sums of rows in a fixed order need.

use modgrad_graph::{Error, Result};

use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument};
use crate::launch::{grid, index, over};
use crate::source::ORDER;

/// Up to here one launch that compares all with all is quicker than many short ones.
const COUNTED: usize = 4096;
/// `ORDER_DIGITS` and BLOCK · `ORDER_ITEMS` of `kernels/order.hip`.
const DIGITS: usize = 16;
const TILE: usize = 2048;

/// Indices on the device, and what they must lie below.
pub(crate) struct Indices {
    pub op: &'static str,
    pub address: Address,
    /// As in the names of kernels: `i32` or `u8`.
    pub suffix: &'static str,
    pub count: usize,
    pub bound: usize,
}

/// The ordered indices and their positions, i32, in scratch First and Second; Third to
/// Fifth are used up on the way.
pub(crate) struct Ordered {
    pub keys: Address,
    pub positions: Address,
}

impl Ordered {
    /// Orders indices; one outside its bound leaves its note and counts as 0.
    pub fn new(device: &Device, indices: &Indices) -> Result<Ordered> {
        let Indices { op, count, bound, suffix, .. } = *indices;
        if count > i32::MAX as usize || bound > i32::MAX as usize {
            return Err(Error::Shape {
                op,
                expected: "at most 2,147,483,647 indices and rows on a GPU".to_owned(),
                found: format!("{count} indices of {bound} rows"),
            });
        }
        let bytes = count.max(1) * 4;
        let mut from =
            (device.scratch(Scratch::First, bytes)?, device.scratch(Scratch::Second, bytes)?);
        let mut begin = vec![
            Argument::Pointer(indices.address),
            Argument::Pointer(from.0),
            Argument::Pointer(from.1),
            index(bound),
            index(count),
        ];
        begin.extend(device.index_check(op, bound));
        if count <= COUNTED {
            device.launch(&ORDER, &format!("order_by_counting_{suffix}"), over(count), &begin)?;
            return Ok(Ordered { keys: from.0, positions: from.1 });
        }
        device.launch(&ORDER, &format!("order_begin_{suffix}"), over(count), &begin)?;
        let blocks = count.div_ceil(TILE);
        let starts = Argument::Pointer(device.scratch(Scratch::Fifth, DIGITS * blocks * 4)?);
        let mut to =
            (device.scratch(Scratch::Third, bytes)?, device.scratch(Scratch::Fourth, bytes)?);
        let mut shift = 0;
        while (bound.max(1) - 1) >> shift > 0 {
            let (keys, digit) = (Argument::Pointer(from.0), Argument::Int(shift));
            let arguments = [keys.clone(), starts.clone(), digit.clone(), index(count)];
            device.launch(&ORDER, "order_count", grid(blocks, 1), &arguments)?;
            let arguments = [starts.clone(), index(DIGITS * blocks)];
            device.launch(&ORDER, "order_add", grid(1, 1), &arguments)?;
            let arguments = [
                keys,
                Argument::Pointer(from.1),
                starts.clone(),
                Argument::Pointer(to.0),
                Argument::Pointer(to.1),
                digit,
                index(count),
            ];
            device.launch(&ORDER, "order_place", grid(blocks, 1), &arguments)?;
            std::mem::swap(&mut from, &mut to);
            shift += 4;
        }
        Ok(Ordered { keys: from.0, positions: from.1 })
    }

    /// Where each row's positions begin, `bound` + 1 of them, in scratch Fifth.
    pub fn starts(&self, device: &Device, indices: &Indices) -> Result<Address> {
        let rows = indices.bound;
        let starts = device.scratch(Scratch::Fifth, (rows + 1) * 4)?;
        let arguments = [
            Argument::Pointer(self.keys),
            Argument::Pointer(starts),
            index(rows),
            index(indices.count),
        ];
        device.launch(&ORDER, "order_starts", over(rows + 1), &arguments)?;
        Ok(starts)
    }
}
