//! Attention, rotary positions, convolutions, scans and recurrences.

use bytemuck::{Pod, Zeroable};
use modgrad_graph::{Op, Result};

use super::{Call, floats, row_chunks};
use crate::device::Scratch;
use crate::driver::{Address, Argument, Shape};
use crate::launch::{BLOCK, Place, grid, index, over, plain, suffix};
use crate::source::{ATTENTION, CONVOLUTION, RECURRENCE, ROPE, SCAN};

pub(super) fn run(call: Call<'_, '_>) -> Result<()> {
    match call.op {
        Op::Rope { base, rotated, inverse } => rope(&call, *base, *rotated, *inverse),
        Op::CausalConvolution => convolution(&call),
        Op::CausalConvolutionGradient => convolution_gradient(&call),
        Op::LinearScan => scan(&call),
        Op::LinearScanGradient => scan_gradient(&call),
        Op::GatedRecurrence => recurrence(&call),
        Op::GatedRecurrenceGradient => recurrence_gradient(&call),
        Op::CausalAttention { window } => attention(&call, *window),
        Op::CausalAttentionGradient { window } => attention_gradient(&call, *window),
        _ => Err(call.missing()),
    }
}

fn rope(call: &Call<'_, '_>, base: f32, rotated: usize, inverse: bool) -> Result<()> {
    let (x, y) = (&call.x[0], &call.out[0]);
    let (time, half) = (x.shape[1], rotated / 2);
    let table = Argument::Pointer(call.device.scratch(Scratch::First, time * rotated * 4)?);
    let arguments = [
        table.clone(),
        index(half),
        Argument::Float(base),
        Argument::Int(i32::from(inverse)),
        index(time * half),
    ];
    call.device.launch(&ROPE, "rope_angles", over(time * half), &arguments)?;
    let count = y.elements();
    let arguments = [
        x.pointer(),
        table,
        y.pointer(),
        index(time),
        index(x.shape[2]),
        index(x.shape[3]),
        index(half),
        index(count),
    ];
    call.device.launch(&ROPE, "rope", over(count), &arguments)
}

fn convolution(call: &Call<'_, '_>) -> Result<()> {
    let (x, weight, y) = (&call.x[0], &call.x[1], &call.out[0]);
    let sizes = [index(x.shape[1]), index(x.shape[2]), index(weight.shape[0])];
    let count = y.elements();
    let arguments = [&[x.pointer(), weight.pointer(), y.pointer()][..], &sizes, &[index(count)]];
    call.device.launch(&CONVOLUTION, "causal_convolution", over(count), &arguments.concat())
}

fn convolution_gradient(call: &Call<'_, '_>) -> Result<()> {
    let (x, weight, dy) = (&call.x[0], &call.x[1], &call.x[2]);
    let (dx, dweight) = (&call.out[0], &call.out[1]);
    let sizes = [index(x.shape[1]), index(x.shape[2]), index(weight.shape[0])];
    let count = dx.elements();
    let arguments = [&[weight.pointer(), dy.pointer(), dx.pointer()][..], &sizes, &[index(count)]];
    let device = call.device;
    device.launch(&CONVOLUTION, "causal_convolution_input", over(count), &arguments.concat())?;

    let (rows, columns) = (x.shape[0] * x.shape[1], weight.elements());
    let (chunk, chunks) = row_chunks(rows);
    let parts = device.scratch(Scratch::First, chunks * columns * 4)?;
    let arguments = [
        &[x.pointer(), dy.pointer(), Argument::Pointer(parts), index(rows)][..],
        &sizes,
        &[index(chunk)],
    ];
    let shape = grid(columns.div_ceil(BLOCK), chunks);
    device.launch(&CONVOLUTION, "causal_convolution_weight", shape, &arguments.concat())?;
    device.sum_rows(parts, dweight.address(), chunks, columns)
}

fn scan(call: &Call<'_, '_>) -> Result<()> {
    let (a, b, h) = (&call.x[0], &call.x[1], &call.out[0]);
    let (time, channels) = (a.shape[1], a.shape[2]);
    let lines = a.shape[0] * channels;
    let arguments =
        [a.pointer(), b.pointer(), h.pointer(), index(time), index(channels), index(lines)];
    call.device.launch(&SCAN, "linear_scan", over(lines), &arguments)
}

fn scan_gradient(call: &Call<'_, '_>) -> Result<()> {
    let (a, h, dh) = (&call.x[0], &call.x[1], &call.x[2]);
    let (da, db) = (&call.out[0], &call.out[1]);
    let (time, channels) = (a.shape[1], a.shape[2]);
    let lines = a.shape[0] * channels;
    let arguments = [
        a.pointer(),
        h.pointer(),
        dh.pointer(),
        da.pointer(),
        db.pointer(),
        index(time),
        index(channels),
        index(lines),
    ];
    call.device.launch(&SCAN, "linear_scan_gradient", over(lines), &arguments)
}

fn recurrence(call: &Call<'_, '_>) -> Result<()> {
    let (x, retention, y) = (&call.x[0], &call.x[1], &call.out[0]);
    floats(call.op, &[x.storage, y.storage])?;
    let kernel = format!("gated_recurrence_{}_{}", suffix(x.storage), suffix(y.storage));
    let lines = y.shape[0] * y.shape[2];
    let arguments = [
        x.pointer(),
        retention.pointer(),
        y.pointer(),
        index(y.shape[1]),
        index(y.shape[2]),
        index(lines),
    ];
    call.device.launch(&RECURRENCE, &kernel, over(lines), &arguments)
}

fn recurrence_gradient(call: &Call<'_, '_>) -> Result<()> {
    let (x, retention, dy) = (&call.x[0], &call.x[1], &call.x[2]);
    let (dx, dretention) = (&call.out[0], &call.out[1]);
    let storages = [x.storage, dy.storage, dx.storage];
    floats(call.op, &storages)?;
    let (batch, channels) = (dy.shape[0], dy.shape[2]);
    let (lines, device) = (batch * channels, call.device);
    // The states of every position, and dretention of each window.
    let [states, parts] = device.pieces(Scratch::First, [dy.elements(), lines])?;
    let arguments = [
        x.pointer(),
        retention.pointer(),
        dy.pointer(),
        dx.pointer(),
        Argument::Pointer(states),
        Argument::Pointer(parts),
        index(dy.shape[1]),
        index(channels),
        index(lines),
    ];
    let kernel = format!("gated_recurrence_gradient_{}", storages.map(suffix).join("_"));
    device.launch(&RECURRENCE, &kernel, over(lines), &arguments)?;
    device.sum_rows(parts, dretention.address(), batch, channels)
}

/// `TILE` and `CHANNEL_SLICE` of `kernels/attention.hip`.
const TILE: usize = 16;
const CHANNEL_SLICE: usize = 128;

/// `Heads` of `kernels/attention.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Heads {
    time: i64,
    heads: i64,
    width: i64,
    window: i64,
}

/// `AttentionGradient` of `kernels/attention.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttentionGradient {
    q: Address,
    k: Address,
    v: Address,
    logsumexp: Address,
    along: Address,
    dout: Address,
}

impl Heads {
    /// Of q [B, T, H, D].
    fn of(shape: &[usize], window: Option<usize>) -> Heads {
        let window = window.unwrap_or(usize::MAX).min(shape[1]);
        Heads {
            time: shape[1] as i64,
            heads: shape[2] as i64,
            width: shape[3] as i64,
            window: window as i64,
        }
    }

    fn scale(self) -> Argument {
        Argument::Float(1.0 / (self.width as f32).sqrt())
    }
}

/// A block for each tile of each head.
fn tiles(shape: &[usize]) -> Shape {
    let blocks = shape[0] * shape[2] * shape[1].div_ceil(TILE);
    grid(blocks, shape[3].div_ceil(CHANNEL_SLICE))
}

fn attention(call: &Call<'_, '_>, window: Option<usize>) -> Result<()> {
    let q = &call.x[0];
    let heads = Heads::of(q.shape, window);
    let arguments = [
        q.pointer(),
        call.x[1].pointer(),
        call.x[2].pointer(),
        call.out[0].pointer(),
        call.out[1].pointer(),
        plain(&heads),
        heads.scale(),
    ];
    call.device.launch(&ATTENTION, "causal_attention", tiles(q.shape), &arguments)
}

fn attention_gradient(call: &Call<'_, '_>, window: Option<usize>) -> Result<()> {
    let [q, k, v, out, logsumexp, dout] = call.x else { return Err(call.missing()) };
    let device = call.device;
    let queries = logsumexp.elements();
    let along = device.scratch(Scratch::First, queries * 4)?;
    let arguments = [
        dout.pointer(),
        out.pointer(),
        Argument::Pointer(along),
        index(q.shape[3]),
        index(queries),
    ];
    device.launch(&ATTENTION, "attention_along", over(queries), &arguments)?;

    let heads = Heads::of(q.shape, window);
    let read = AttentionGradient {
        q: q.address(),
        k: k.address(),
        v: v.address(),
        logsumexp: logsumexp.address(),
        along,
        dout: dout.address(),
    };
    let (shape, ends) = (tiles(q.shape), [plain(&heads), heads.scale()]);
    let arguments = [&[plain(&read), call.out[0].pointer()][..], &ends].concat();
    device.launch(&ATTENTION, "causal_attention_queries", shape, &arguments)?;
    let results = [plain(&read), call.out[1].pointer(), call.out[2].pointer()];
    let arguments = [&results[..], &ends].concat();
    device.launch(&ATTENTION, "causal_attention_keys", shape, &arguments)
}
