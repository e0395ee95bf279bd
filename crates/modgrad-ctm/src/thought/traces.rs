//! The traces of a few samples' neurons over all ticks, block by block.

use modgrad_compute::thin::lanewise::SLOT;
use modgrad_compute::thin::{Buffer, LANES, copy_lanes};

use super::Shape;

/// The traces of a group's neurons: of each block M + T slots, those from before first.
pub(super) struct Traces {
    shape: Shape,
    /// [blocks][M + T][ROWS][LANES].
    slots: Buffer,
}

impl Traces {
    pub(super) fn new(shape: Shape) -> Traces {
        let slots = Buffer::zeros(shape.blocks() * (shape.memory + shape.ticks) * SLOT);
        Traces { shape, slots }
    }

    fn history(&self) -> usize {
        (self.shape.memory + self.shape.ticks) * SLOT
    }

    /// Slot `slot` of row r.
    fn fill(&mut self, slot: usize, r: usize, value: impl Fn(usize) -> f32) {
        let history = self.history();
        for (block, slots) in self.slots.chunks_exact_mut(history).enumerate() {
            let start = block * LANES;
            let lanes = LANES.min(self.shape.neurons - start);
            let out = &mut slots[slot * SLOT + r * LANES..][..lanes];
            for (lane, out) in out.iter_mut().enumerate() {
                *out = value(start + lane);
            }
        }
    }

    /// The first M slots of row r become `trace` [D, M].
    pub(super) fn begin(&mut self, r: usize, trace: &[f32]) {
        let memory = self.shape.memory;
        (0..memory).for_each(|m| self.fill(m, r, |n| trace[n * memory + m]));
    }

    /// The last M slots of row r become `trace`.
    pub(super) fn begin_last(&mut self, r: usize, trace: &[f32]) {
        let (memory, ticks) = (self.shape.memory, self.shape.ticks);
        (0..memory).for_each(|m| self.fill(ticks + m, r, |n| trace[n * memory + m]));
    }

    /// What tick t pushes.
    pub(super) fn push(&mut self, t: usize, r: usize, values: &[f32]) {
        self.fill(self.shape.memory + t, r, |n| values[n]);
    }

    /// The slots of a block from the oldest that tick t reads on.
    pub(super) fn last(&self, t: usize, block: usize) -> &[f32] {
        &self.slots[block * self.history() + (t + 1) * SLOT..(block + 1) * self.history()]
    }

    /// The same, to be changed.
    pub(super) fn last_mut(&mut self, t: usize, block: usize) -> &mut [f32] {
        let history = self.history();
        &mut self.slots[block * history + (t + 1) * SLOT..(block + 1) * history]
    }

    /// `values` [D] become what tick t pushed.
    pub(super) fn pushed(&self, t: usize, r: usize, values: &mut [f32]) {
        let at = (self.shape.memory + t) * SLOT + r * LANES;
        let blocks = self.slots.chunks_exact(self.history());
        for (values, slots) in values.chunks_mut(LANES).zip(blocks) {
            copy_lanes(&slots[at..][..values.len()], values);
        }
    }

    /// `trace` [D, M] becomes the last M slots of row r.
    pub(super) fn end(&self, r: usize, trace: &mut [f32]) {
        self.copy(self.shape.ticks, r, trace);
    }

    /// `trace` [D, M] becomes M slots of row r, from `first` on.
    pub(super) fn copy(&self, first: usize, r: usize, trace: &mut [f32]) {
        for (n, trace) in trace.chunks_exact_mut(self.shape.memory).enumerate() {
            let at = n / LANES * self.history() + r * LANES + n % LANES;
            for (m, value) in trace.iter_mut().enumerate() {
                *value = self.slots[at + (first + m) * SLOT];
            }
        }
    }
}
