//! Causal softmax attention and its gradient, without a T x T matrix.
//!
//! Follows FlashAttention-2 (Dao 2023, arXiv 2307.08691): blocks of queries
//! meet blocks of keys, the softmax is carried along as a running maximum and
//! sum, and the gradient recomputes the weights from the stored logsumexp.
//! All products are those of `tile`, on packed, zero-padded copies of a head.
//!
//! Axes: B windows, T positions, H heads, D channels of a head; tensors are
//! `[B, T, H, D]` and the logsumexp is `[B, T, H]`.
//!
//! Position t depends on the positions up to t only, to the last bit and
//! whatever the others hold: later keys are left out of each sum rather than
//! multiplied by zero, and blocks lie at fixed positions.

mod forward;
mod gradient;
mod tile;

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::Pool;
use crate::pool::SharedMut;

/// Keys of one pass: with their values they stay in the nearest cache.
const KEY_BLOCK: usize = 64;
/// The most rows and lanes of a tile.
const MAXIMUM_ROWS: usize = 8;
const MAXIMUM_LANES: usize = 32;
/// Queries of one task of the forward pass.
const QUERY_BLOCK: usize = MAXIMUM_LANES;

/// Calls the function with the tiling of the active instruction set.
macro_rules! on_active_tiling {
    ($module:ident::$function:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            let isa = crate::Isa::active();
            if isa >= crate::Isa::Avx512 {
                return $module::$function(tile::Avx512Tiling, $($argument),*);
            }
            if isa >= crate::Isa::Avx2 {
                return $module::$function(tile::Avx2Tiling, $($argument),*);
            }
        }
        $module::$function(tile::PortableTiling, $($argument),*)
    }};
}

/// The sizes of an attention's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// B, the number of windows.
    pub batch: usize,
    /// T, the positions of a window.
    pub time: usize,
    /// H, the heads.
    pub heads: usize,
    /// D, the channels of a head.
    pub head_width: usize,
}

impl AttentionShape {
    /// The elements of a tensor `[B, T, H, D]`.
    pub fn elements(&self) -> usize {
        self.rows() * self.head_width
    }

    /// The elements of a tensor `[B, T, H]`.
    pub fn rows(&self) -> usize {
        self.batch * self.time * self.heads
    }

    /// Panics unless each named length is that of a `[B, T, H, D]` tensor.
    pub(crate) fn check(&self, name: &str, lengths: &[(&str, usize)]) {
        for &(argument, length) in lengths {
            assert_eq!(length, self.elements(), "`{name}`: length of {argument} for {self:?}");
        }
    }

    /// Where the row of position `time` starts in head `head` (b H + h).
    #[inline(always)]
    fn offset(&self, head: usize, time: usize) -> usize {
        self.row(head, time) * self.head_width
    }

    /// The index of position `time` of head `head` (b H + h) in `[B, T, H]`.
    #[inline(always)]
    fn row(&self, head: usize, time: usize) -> usize {
        let (window, head) = (head / self.heads, head % self.heads);
        (window * self.time + time) * self.heads + head
    }

    /// What the scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }
}

/// `out` = softmax(q k^T / sqrt(D)) v over the keys up to each query.
///
/// With `window` = n only the last n positions count, the query's own among
/// them. `logsumexp` receives the logarithm of each softmax's denominator, for
/// the gradient. Panics when the lengths disagree or the window is 0.
pub fn causal_attention(
    pool: &Pool,
    shape: AttentionShape,
    window: Option<usize>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    logsumexp: &mut [f32],
) {
    let lengths = [("q", q.len()), ("k", k.len()), ("v", v.len()), ("out", out.len())];
    shape.check("causal_attention", &lengths);
    assert_eq!(logsumexp.len(), shape.rows(), "`causal_attention`: length of logsumexp");
    assert_ne!(window, Some(0), "`causal_attention`: a window of 0 leaves no key");
    let window = window.unwrap_or(usize::MAX);
    let (out, logsumexp) = (SharedMut::new(out), SharedMut::new(logsumexp));
    let blocks = shape.time.div_ceil(QUERY_BLOCK);
    pool.for_ranges(shape.batch * shape.heads * blocks, 1, |range| {
        on_active_tiling!(forward::run(range, shape, window, q, k, v, &out, &logsumexp));
    });
}

/// The gradients of [`causal_attention`] with respect to `q`, `k` and `v`,
/// from its results and the gradient `dout` of its `out`.
///
/// Panics when the lengths disagree or the window is 0.
pub fn causal_attention_gradient(
    pool: &Pool,
    shape: AttentionShape,
    window: Option<usize>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    logsumexp: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let name = "causal_attention_gradient";
    shape.check(name, &[("q", q.len()), ("k", k.len()), ("v", v.len()), ("out", out.len())]);
    shape.check(name, &[("dout", dout.len()), ("dq", dq.len())]);
    shape.check(name, &[("dk", dk.len()), ("dv", dv.len())]);
    assert_eq!(logsumexp.len(), shape.rows(), "`{name}`: length of logsumexp");
    assert_ne!(window, Some(0), "`{name}`: a window of 0 leaves no key");
    let window = window.unwrap_or(usize::MAX);
    let inputs = gradient::Inputs { shape, window, q, k, v, out, logsumexp, dout };
    let outputs = gradient::Outputs {
        dq: SharedMut::new(dq),
        dk: SharedMut::new(dk),
        dv: SharedMut::new(dv),
    };
    pool.for_ranges(shape.batch * shape.heads, 1, |range| {
        on_active_tiling!(gradient::run(range, &inputs, &outputs));
    });
}

/// The keys that query `time` sees.
#[inline(always)]
fn visible(time: usize, window: usize) -> Range<usize> {
    (time + 1).saturating_sub(window)..time + 1
}

/// Which rows of a block of keys a group of queries needs.
struct Rows {
    /// Those that any of them sees, in whole tiles.
    computed: Range<usize>,
    /// Those that all lanes see.
    whole: Range<usize>,
}

impl Rows {
    #[inline(always)]
    fn new<L: tile::Tiling>(queries: Range<usize>, first_key: usize, window: usize) -> Rows {
        let clip = |key: usize| key.saturating_sub(first_key).min(KEY_BLOCK);
        let from = clip(visible(queries.start, window).start);
        let to = clip(queries.end);
        let last = queries.start + L::LANES - 1;
        Rows {
            computed: from / L::ROWS * L::ROWS..to.next_multiple_of(L::ROWS),
            whole: clip(visible(last, window).start)..clip(queries.start + 1),
        }
    }
}
