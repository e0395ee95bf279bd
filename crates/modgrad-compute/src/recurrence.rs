//! A gated recurrence, channel by channel: minGRU (arXiv 2410.01201) with a gate on
//! its output.
//!
//! Rows of x are [retain, value, gate], each C wide, and with a = σ(retain + retention)
//! h[t] = a h[t-1] + (1 - a) value, y[t] = h[t] silu(gate), nothing before the window.
//! Threads share windows and blocks of channels; time runs in order, so the result does
//! not depend on them. The gradient runs the states again, so that none is kept.

use crate::convolution::check;
use crate::math::{sigmoid, silu, silu_with_derivative};
use crate::pool::SharedMut;
use crate::{Element, Pool, multiversion};

/// Channels of one task: whole vectors of every instruction set.
const CHANNEL_BLOCK: usize = 64;

/// A block's figures at one time. Of a narrower block, lanes beyond it hold what is
/// never written.
type Lanes = [f32; CHANNEL_BLOCK];

/// The axes of y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Windows.
    pub batch: usize,
    /// Positions of a window.
    pub time: usize,
    /// Channels, of which a row of x has three times as many.
    pub channels: usize,
}

impl Sizes {
    fn elements(self) -> usize {
        self.batch * self.time * self.channels
    }

    /// Calls `job` with each thread's blocks of channels, those of one window at a time.
    fn for_blocks(self, pool: &Pool, job: impl Fn(&[Block]) + Sync) {
        if self.elements() == 0 {
            return;
        }
        let in_window = self.channels.div_ceil(CHANNEL_BLOCK);
        pool.for_ranges(self.batch * in_window, 1, |range| {
            let block = |index| {
                let (window, channel) = (index / in_window, index % in_window * CHANNEL_BLOCK);
                let lanes = CHANNEL_BLOCK.min(self.channels - channel);
                Block { sizes: self, window, channel, lanes }
            };
            let blocks: Vec<Block> = range.map(block).collect();
            blocks.chunk_by(|one, next| one.window == next.window).for_each(&job);
        });
    }
}

/// `lanes` channels of one window.
#[derive(Clone, Copy)]
struct Block {
    sizes: Sizes,
    window: usize,
    channel: usize,
    lanes: usize,
}

impl Block {
    /// Where the block's channels of y at time t begin.
    #[inline(always)]
    fn row(self, t: usize) -> usize {
        (self.window * self.sizes.time + t) * self.sizes.channels + self.channel
    }

    /// Where its `third` of x's row at time t begins: 0 retain, 1 value, 2 gate.
    #[inline(always)]
    fn third(self, t: usize, third: usize) -> usize {
        let Sizes { time, channels, .. } = self.sizes;
        (self.window * time + t) * 3 * channels + third * channels + self.channel
    }
}

/// y of `x` [batch, time, 3 · channels] and `retention` [channels].
///
/// Panics when the lengths disagree.
pub fn gated_recurrence<X: Element, Y: Element>(
    pool: &Pool,
    sizes: Sizes,
    x: &[X],
    retention: &[f32],
    y: &mut [Y],
) {
    let size = sizes.elements();
    let lengths = [
        ("x", x.len(), 3 * size),
        ("retention", retention.len(), sizes.channels),
        ("y", y.len(), size),
    ];
    check("gated_recurrence", &lengths);
    let y = SharedMut::new(y);
    sizes.for_blocks(pool, |blocks| run(blocks, x, retention, &y));
}

/// The exact adjoint of [`gated_recurrence`]: `dx` and `dretention` from `dy`.
pub fn gated_recurrence_gradient<X: Element, D: Element, G: Element>(
    pool: &Pool,
    sizes: Sizes,
    x: &[X],
    retention: &[f32],
    dy: &[D],
    dx: &mut [G],
    dretention: &mut [f32],
) {
    let (size, channels) = (sizes.elements(), sizes.channels);
    let name = "gated_recurrence_gradient";
    check(name, &[("x", x.len(), 3 * size), ("dy", dy.len(), size), ("dx", dx.len(), 3 * size)]);
    check(name, &[("retention", retention.len(), channels)]);
    check(name, &[("dretention", dretention.len(), channels)]);
    dretention.fill(0.0);
    if size == 0 {
        return;
    }
    // dretention of each window, so that their sum does not depend on the threads.
    let mut parts = vec![0.0f32; sizes.batch * channels];
    let (dx, shared_parts) = (SharedMut::new(dx), SharedMut::new(&mut parts));
    sizes.for_blocks(pool, |blocks| {
        // a at every t, h at every t − 1; as wide for few channels as for 64.
        let [mut keeps, mut states] =
            [0, 1].map(|more| vec![[0.0; CHANNEL_BLOCK]; sizes.time + more]);
        for &block in blocks {
            run_backward(block, x, retention, dy, &mut keeps, &mut states, &dx, &shared_parts);
        }
    });
    for part in parts.chunks_exact(channels) {
        dretention.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

multiversion! {
    /// Blocks of one window of [`gated_recurrence`]: no other task writes their elements of
    /// `y`. All of them at one time before any at the next, as x lies in memory.
    fn run[X: Element, Y: Element](
        blocks: &[Block],
        x: &[X],
        retention: &[f32],
        y: &SharedMut<'_, Y>,
    ) {
        let zeros = vec![[0.0; CHANNEL_BLOCK]; blocks.len()];
        let (mut lastings, mut states) = (zeros.clone(), zeros);
        for (block, lasting) in blocks.iter().zip(&mut lastings) {
            read(*block, &retention[block.channel..], lasting);
        }
        let [mut retain, mut value, mut gate] = [[0.0; CHANNEL_BLOCK]; 3];
        let mut now = [0.0; CHANNEL_BLOCK];
        for t in 0..blocks[0].sizes.time {
            for ((&block, lasting), state) in blocks.iter().zip(&lastings).zip(&mut states) {
                read(block, &x[block.third(t, 0)..], &mut retain);
                read(block, &x[block.third(t, 1)..], &mut value);
                read(block, &x[block.third(t, 2)..], &mut gate);
                for c in 0..CHANNEL_BLOCK {
                    let keep = sigmoid(retain[c] + lasting[c]);
                    state[c] = value[c] + keep * (state[c] - value[c]);
                    now[c] = state[c] * silu(gate[c]);
                }
                write(block, &now, y, block.row(t));
            }
        }
    }
}

multiversion! {
    /// One block of [`gated_recurrence_gradient`]: no other task writes its elements.
    fn run_backward[X: Element, D: Element, G: Element](
        block: Block,
        x: &[X],
        retention: &[f32],
        dy: &[D],
        keeps: &mut [Lanes],
        states: &mut [Lanes],
        dx: &SharedMut<'_, G>,
        dretention: &SharedMut<'_, f32>,
    ) {
        let time = block.sizes.time;
        let mut lasting = [0.0; CHANNEL_BLOCK];
        read(block, &retention[block.channel..], &mut lasting);
        let [mut retain, mut value, mut gate, mut upstream] = [[0.0; CHANNEL_BLOCK]; 4];
        states[0] = [0.0; CHANNEL_BLOCK];
        for t in 0..time {
            read(block, &x[block.third(t, 0)..], &mut retain);
            read(block, &x[block.third(t, 1)..], &mut value);
            let keep = &mut keeps[t];
            let [before, after] = states[t..].first_chunk_mut().expect("one more than times");
            for c in 0..CHANNEL_BLOCK {
                keep[c] = sigmoid(retain[c] + lasting[c]);
                after[c] = value[c] + keep[c] * (before[c] - value[c]);
            }
        }
        // a[t + 1] times the whole gradient of h[t + 1].
        let mut carried = [0.0; CHANNEL_BLOCK];
        let [mut dretain, mut dvalue, mut dgate, mut sum] = [[0.0; CHANNEL_BLOCK]; 4];
        for t in (0..time).rev() {
            read(block, &x[block.third(t, 1)..], &mut value);
            read(block, &x[block.third(t, 2)..], &mut gate);
            read(block, &dy[block.row(t)..], &mut upstream);
            let (keep, before, after) = (&keeps[t], &states[t], &states[t + 1]);
            for c in 0..CHANNEL_BLOCK {
                let (open, slope) = silu_with_derivative(gate[c]);
                let dstate = upstream[c] * open + carried[c];
                dvalue[c] = dstate * (1.0 - keep[c]);
                dretain[c] = dvalue[c] * keep[c] * (before[c] - value[c]);
                dgate[c] = upstream[c] * after[c] * slope;
                carried[c] = keep[c] * dstate;
                sum[c] += dretain[c];
            }
            write(block, &dretain, dx, block.third(t, 0));
            write(block, &dvalue, dx, block.third(t, 1));
            write(block, &dgate, dx, block.third(t, 2));
        }
        let start = block.window * block.sizes.channels + block.channel;
        write(block, &sum, dretention, start);
    }
}

/// The block's part of a row, from its first element on.
#[inline(always)]
fn read<X: Element>(block: Block, from: &[X], to: &mut Lanes) {
    for (to, from) in to[..block.lanes].iter_mut().zip(from) {
        *to = from.to_f32();
    }
}

/// Writes the block's part of a row, which begins at `start`.
#[inline(always)]
fn write<Y: Element>(block: Block, from: &Lanes, to: &SharedMut<'_, Y>, start: usize) {
    // SAFETY: the block's own elements, which no other task has; one part at a time.
    let to = unsafe { to.slice(start..start + block.lanes) };
    for (to, from) in to.iter_mut().zip(from) {
        *to = Y::from_f32(*from);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bf16;
    use crate::testing::*;

    fn sizes(batch: usize, time: usize, channels: usize) -> Sizes {
        Sizes { batch, time, channels }
    }

    fn sigma(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// y in f64, by the equations, one channel after the other.
    fn naive(sizes: Sizes, x: &[f64], retention: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; sizes.elements()];
        for (window, c) in (0..sizes.batch).flat_map(|b| (0..sizes.channels).map(move |c| (b, c))) {
            let mut h = 0.0;
            for t in 0..sizes.time {
                let row = window * sizes.time + t;
                let at = |part: usize| x[(3 * row + part) * sizes.channels + c];
                let keep = sigma(at(0) + retention[c]);
                h = keep * h + (1.0 - keep) * at(1);
                y[row * sizes.channels + c] = h * at(2) * sigma(at(2));
            }
        }
        y
    }

    /// dx and, behind it, dretention: the slopes of Σ y·dy.
    fn slopes(sizes: Sizes, x: &[f64], retention: &[f64], dy: &[f64]) -> Vec<f64> {
        finite_differences(&[x, retention].concat(), |point| {
            let (x, retention) = point.split_at(3 * sizes.elements());
            naive(sizes, x, retention).iter().zip(dy).map(|(y, dy)| y * dy).sum()
        })
    }

    /// y, and dx with dretention behind it.
    fn compute<X: Storage, Y: Storage>(
        sizes: Sizes,
        x: &[X],
        retention: &[f32],
        dy: &[Y],
    ) -> [Vec<f32>; 2] {
        let y = for_threads(|pool| {
            let mut y = vec![Y::from_f32(f32::NAN); sizes.elements()];
            gated_recurrence(pool, sizes, x, retention, &mut y);
            y
        });
        let gradient = for_threads(|pool| {
            let mut dx = vec![Y::from_f32(f32::NAN); x.len()];
            let mut dretention = vec![f32::NAN; sizes.channels];
            gated_recurrence_gradient(pool, sizes, x, retention, dy, &mut dx, &mut dretention);
            dx.into_iter().map(Y::to_f32).chain(dretention).collect::<Vec<f32>>()
        });
        [y, gradient]
    }

    fn check_all<X: Storage, Y: Storage>(sizes: Sizes, gradient: bool) {
        let x: Vec<X> = values(1, 3 * sizes.elements(), -3.0, 3.0);
        let retention: Vec<f32> = values(2, sizes.channels, -1.0, 4.0);
        let dy: Vec<Y> = values(3, sizes.elements(), -1.0, 1.0);
        let [y, found] = compute(sizes, &x, &retention, &dy);
        let (x, retention, dy) = (exact(&x), exact(&retention), exact(&dy));
        let name = format!("{sizes:?}");
        assert_close(&name, &y, &naive(sizes, &x, &retention), Y::ROUNDING + 4e-6, 1e-5);
        if gradient {
            let expected = slopes(sizes, &x, &retention, &dy);
            assert_close(&name, &found, &expected, Y::ROUNDING + 1e-5, 2e-5);
        }
    }

    #[test]
    fn agrees_with_the_equations_and_their_slopes() {
        for (batch, time, channels) in [
            (0, 3, 4),
            (2, 0, 4),
            (2, 3, 0),
            (1, 1, 1),
            (2, 9, 1),
            (3, 4, 5),
            (1, 3, 65),
            (2, 2, 130),
        ] {
            check_all::<f32, f32>(sizes(batch, time, channels), true);
            check_all::<bf16, bf16>(sizes(batch, time, channels), true);
            check_all::<bf16, f32>(sizes(batch, time, channels), true);
        }
        check_all::<f32, f32>(sizes(2, 300, 200), false);
        check_all::<f32, bf16>(sizes(1, 1000, 64), false);
    }

    proptest! {
        #[test]
        fn agrees_anywhere(batch in 0..4usize, time in 0..40usize, channels in 0..150usize) {
            check_all::<f32, f32>(sizes(batch, time, channels), batch * time * channels < 60);
        }
    }

    #[test]
    fn nothing_looks_ahead() {
        let sizes = sizes(1, 20, 70);
        let x: Vec<f32> = values(1, 20 * 210, -3.0, 3.0);
        let retention = vec![1.0; 70];
        let dy = vec![1.0; 20 * 70];
        let [before, _] = compute(sizes, &x, &retention, &dy);
        for t in 0..20 {
            let mut changed = x.clone();
            changed[(t + 1) * 210..].fill(f32::NAN);
            let [after, _] = compute(sizes, &changed, &retention, &dy);
            assert_eq!(before[..(t + 1) * 70], after[..(t + 1) * 70]);
        }
    }

    #[test]
    #[should_panic(expected = "length of retention")]
    fn a_wrong_length_is_named() {
        gated_recurrence(&Pool::new(1), sizes(1, 1, 2), &[0.0f32; 6], &[0.0; 3], &mut [0.0f32; 2]);
    }
}
