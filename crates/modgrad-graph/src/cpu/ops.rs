//! From ops to kernels: one arm an op, in the order of the op set.

use bytemuck::Pod;
use modgrad_compute::gemm::{self, Matrix, Output};
use modgrad_compute::movement::{self, Slicing};
use modgrad_compute::{
    Pool, bf16, convolution, elementwise, embedding, gate, norm, reduce, selection, softmax,
};

use super::{HostMemory, memory_rows as memory, sequences, spatial, thought};
use crate::backend::Product;
use crate::error::{Error, Result};
use crate::layout::{around, broadcast_strides, contiguous_strides};
use crate::op::Op;
use crate::reference::{RunKey, dropout_key};
use crate::storage::{Precision, Storage};

type Input<'a> = crate::backend::Operand<'a, HostMemory>;
type Out<'a> = crate::backend::OperandMut<'a, HostMemory>;

/// Calls `$body` with each named float operand as a slice of its own type.
macro_rules! with_floats {
    ([$($name:ident = $operand:expr),+], $body:expr) => { with_floats!(@ [$($name = $operand,)+] $body) };
    (@ [] $body:expr) => { $body };
    (@ [$name:ident = $operand:expr, $($rest:tt)*] $body:expr) => {
        match $operand.storage {
            Storage::F32 => { let $name = $operand.slice::<f32>(); with_floats!(@ [$($rest)*] $body) }
            Storage::Bf16 => { let $name = $operand.slice::<bf16>(); with_floats!(@ [$($rest)*] $body) }
            other => return Err(stored_as(other)),
        }
    };
}

/// As `with_floats`, for one operand that is written.
macro_rules! into_float {
    ($name:ident = $operand:expr, $body:expr) => {
        match $operand.storage {
            Storage::F32 => {
                let $name = $operand.slice_mut::<f32>();
                $body
            }
            Storage::Bf16 => {
                let $name = $operand.slice_mut::<bf16>();
                $body
            }
            other => return Err(stored_as(other)),
        }
    };
}

/// As `with_floats`, for indices.
macro_rules! with_indices {
    ($name:ident = $operand:expr, $body:expr) => {
        match $operand.storage {
            Storage::I32 => {
                let $name = $operand.slice::<i32>();
                $body
            }
            Storage::U8 => {
                let $name = $operand.slice::<u8>();
                $body
            }
            other => return Err(stored_as(other)),
        }
    };
}

pub(super) use {into_float, with_floats};

pub(super) fn stored_as(storage: Storage) -> Error {
    Error::malformed(format!("an operand is stored as {storage:?}, which its op cannot read"))
}

#[allow(clippy::too_many_lines)] // One table, one arm an op.
pub(super) fn run(
    pool: &Pool,
    op: &Op,
    key: RunKey,
    precision: Precision,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
    add: bool,
) -> Result<()> {
    match op {
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } | Op::Reshape { .. } => {
            return Err(Error::malformed(format!("`{}` is not an instruction", op.name())));
        }

        Op::Unary { function } => with_floats!(
            [a = x[0]],
            into_float!(y = out[0], elementwise::unary(pool, *function, a, y))
        ),
        Op::UnaryGradient { function } => with_floats!(
            [a = x[0], dy = x[1]],
            into_float!(dx = out[0], elementwise::unary_gradient(pool, *function, a, dy, dx))
        ),
        Op::Binary { function } if x[0].shape == x[1].shape => with_floats!(
            [a = x[0], b = x[1]],
            elementwise::binary(pool, *function, a, b, out[0].slice_mut::<f32>())
        ),
        Op::Binary { function } => {
            let shape = out[0].shape;
            elementwise::binary_broadcast(
                pool,
                *function,
                x[0].slice(),
                &broadcast_strides(x[0].shape, shape),
                x[1].slice(),
                &broadcast_strides(x[1].shape, shape),
                shape,
                out[0].slice_mut(),
            );
        }
        Op::Affine { scale, offset } => with_floats!(
            [a = x[0]],
            elementwise::affine(pool, *scale, *offset, a, out[0].slice_mut::<f32>())
        ),
        Op::ToFloat => with_indices!(a = x[0], {
            for (y, value) in out[0].slice_mut::<f32>().iter_mut().zip(a) {
                *y = f64::from(*value) as f32;
            }
        }),
        Op::Dropout { probability, stream } => {
            let key = dropout_key(key.seed, key.step, *stream);
            with_floats!(
                [a = x[0]],
                into_float!(y = out[0], elementwise::dropout(pool, 1.0 - probability, key, a, y))
            );
        }

        Op::Reduce { kind, axis } => {
            let (outer, size, inner) = around(x[0].shape, *axis);
            with_floats!([a = x[0]], {
                let y = out[0].slice_mut::<f32>();
                if outer == 1 && *kind == reduce::Reduction::Sum {
                    reduce::column_sums(pool, a, size, inner, y, false);
                } else {
                    reduce::reduce(pool, *kind, a, outer, size, inner, y);
                }
            });
        }
        Op::MaximumGradient { axis } => {
            let (outer, size, inner) = around(x[0].shape, *axis);
            let (a, y, dy) = (x[0].slice::<f32>(), x[1].slice(), x[2].slice());
            reduce::maximum_gradient(pool, a, y, dy, outer, size, inner, out[0].slice_mut::<f32>());
        }
        Op::OneHotMax { axis } => {
            let (outer, size, inner) = around(x[0].shape, *axis);
            selection::one_hot_max(pool, x[0].slice(), outer, size, inner, out[0].slice_mut());
        }

        Op::Transpose { permutation } => {
            let strides = contiguous_strides(x[0].shape);
            let strides: Vec<usize> = permutation.iter().map(|&axis| strides[axis]).collect();
            copy(pool, &x[0], &strides, 0, &mut out[0])?;
        }
        Op::BroadcastTo { .. } => {
            let strides = broadcast_strides(x[0].shape, out[0].shape);
            copy(pool, &x[0], &strides, 0, &mut out[0])?;
        }
        Op::Slice { axis, start, step, .. } => {
            let mut strides = contiguous_strides(x[0].shape);
            let offset = start * strides[*axis];
            strides[*axis] *= step;
            copy(pool, &x[0], &strides, offset, &mut out[0])?;
        }
        Op::SliceGradient { axis, start, step, size } => {
            let (_, taken, inner) = around(x[0].shape, *axis);
            let slicing = Slicing { size: *size, taken, start: *start, step: *step, inner };
            movement::slice_gradient(pool, slicing, x[0].slice(), out[0].slice_mut());
        }
        Op::Concat { axis } => concat(pool, *axis, x, &mut out[0])?,
        Op::Gather { axis } => {
            let (_, size, inner) = around(x[0].shape, *axis);
            let indices = checked_indices(op, &x[1], size)?;
            movement::gather(pool, x[0].slice(), size, inner, &indices, out[0].slice_mut());
        }
        Op::GatherGradient { axis, size } => {
            let (_, _, inner) = around(out[0].shape, *axis);
            let indices = checked_indices(op, &x[0], *size)?;
            let (dy, dx) = (x[1].slice(), out[0].slice_mut());
            movement::gather_gradient(pool, dy, *size, inner, &indices, dx);
        }
        Op::Shift { amount } => {
            let (batch, time, rest) = windows(x[0].shape);
            convolution::shift(
                pool,
                batch,
                time,
                rest,
                *amount,
                x[0].slice::<f32>(),
                out[0].slice_mut(),
            );
        }

        Op::MatMul { transpose_a, transpose_b } => {
            mat_mul(pool, precision, (*transpose_a, *transpose_b), x, &mut out[0], add)?;
        }
        Op::Linear => {
            let (k, n) = (x[1].shape[1], x[1].shape[0]);
            let rows = x[0].elements().checked_div(k).unwrap_or(0);
            let rows =
                if k == 0 { out[0].shape.iter().product::<usize>() / n.max(1) } else { rows };
            let a = matrix(&x[0], 0, rows, k)?;
            let b = matrix(&x[1], 0, n, k)?.transposed();
            let bias = x.get(2).map(|bias| bias.slice::<f32>());
            gemm::gemm(pool, products(precision), a, b, output(&mut out[0])?, add, bias);
        }

        Op::RmsNorm { epsilon } => {
            let (y, rstd) = two(out);
            with_floats!(
                [a = x[0]],
                into_float!(
                    y = y,
                    norm::rms_norm(pool, a, x[1].slice(), *epsilon, y, rstd.slice_mut())
                )
            );
        }
        Op::RmsNormGradient => {
            let (dx, dweight) = two(out);
            with_floats!(
                [a = x[0], dy = x[3]],
                into_float!(dx = dx, {
                    let (weight, rstd) = (x[1].slice(), x[2].slice());
                    norm::rms_norm_gradient(pool, a, weight, rstd, dy, dx, dweight.slice_mut());
                })
            );
        }
        Op::LayerNorm { epsilon } => {
            let [y, mean, deviation] = out else {
                return Err(arity(op));
            };
            with_floats!(
                [a = x[0]],
                into_float!(
                    y = y,
                    norm::layer_norm(
                        pool,
                        a,
                        x[1].slice(),
                        x[2].slice(),
                        *epsilon,
                        y,
                        mean.slice_mut(),
                        deviation.slice_mut(),
                    )
                )
            );
        }
        Op::LayerNormGradient => {
            let [dx, dweight, dbias] = out else {
                return Err(arity(op));
            };
            with_floats!(
                [a = x[0], dy = x[4]],
                into_float!(
                    dx = dx,
                    norm::layer_norm_gradient(
                        pool,
                        a,
                        x[1].slice(),
                        x[2].slice(),
                        x[3].slice(),
                        dy,
                        dx,
                        dweight.slice_mut(),
                        dbias.slice_mut(),
                    )
                )
            );
        }

        Op::GatedLinearUnit { activation } => {
            let width = last(out[0].shape);
            with_floats!(
                [a = x[0]],
                into_float!(y = out[0], gate::gated_linear_unit(pool, *activation, a, width, y))
            );
        }
        Op::GatedLinearUnitGradient { activation } => {
            let width = last(x[1].shape);
            with_floats!(
                [a = x[0], dy = x[1]],
                into_float!(
                    dx = out[0],
                    gate::gated_linear_unit_gradient(pool, *activation, a, dy, width, dx)
                )
            );
        }
        Op::Softmax => {
            let classes = last(x[0].shape);
            softmax::softmax(pool, x[0].slice::<f32>(), classes, out[0].slice_mut::<f32>());
        }
        Op::SoftmaxGradient => {
            let (y, dy) = (x[0].slice::<f32>(), x[1].slice::<f32>());
            let classes = last(x[0].shape);
            softmax::softmax_gradient(pool, y, dy, classes, out[0].slice_mut::<f32>());
        }
        Op::CrossEntropy => {
            let classes = last(x[0].shape);
            check_range(op, &x[1], classes)?;
            let (loss, logsumexp) = two(out);
            with_indices!(
                targets = x[1],
                softmax::cross_entropy(
                    pool,
                    x[0].slice::<f32>(),
                    targets,
                    classes,
                    loss.slice_mut(),
                    logsumexp.slice_mut(),
                )
            );
        }
        Op::CrossEntropyGradient => {
            let classes = last(x[0].shape);
            check_range(op, &x[1], classes)?;
            with_indices!(
                targets = x[1],
                into_float!(
                    d = out[0],
                    softmax::cross_entropy_gradient(
                        pool,
                        x[0].slice::<f32>(),
                        targets,
                        x[2].slice(),
                        x[3].slice(),
                        classes,
                        d,
                    )
                )
            );
        }

        Op::Embedding => {
            let (rows, width) = (x[0].shape[0], x[0].shape[1]);
            check_range(op, &x[1], rows)?;
            let table = x[0].slice::<f32>();
            with_indices!(
                indices = x[1],
                into_float!(y = out[0], embedding::embedding(pool, table, width, indices, y))
            );
        }
        Op::EmbeddingBag => {
            let (rows, width) = (x[0].shape[0], x[0].shape[1]);
            check_range(op, &x[1], rows)?;
            let (table, bag) = (x[0].slice::<f32>(), last(x[1].shape));
            with_indices!(
                indices = x[1],
                into_float!(
                    y = out[0],
                    embedding::embedding_bag(pool, table, width, indices, bag, y)
                )
            );
        }
        Op::EmbeddingGradient { rows, bag } => {
            check_range(op, &x[0], *rows)?;
            let width = last(x[1].shape);
            let table = out[0].slice_mut::<f32>();
            if !add {
                table.fill(0.0);
            }
            with_indices!(
                indices = x[0],
                with_floats!(
                    [dy = x[1]],
                    embedding::embedding_gradient(pool, indices, *bag, dy, width, table)
                )
            );
        }

        Op::ByteContext { length } => {
            let (batch, time, _) = windows(x[0].shape);
            let (tokens, indices) = (x[0].slice(), out[0].slice_mut());
            modgrad_ffn::byte_context(pool, batch, time, *length, tokens, indices);
        }
        Op::NgramHash { hash } => {
            let (batch, time, _) = windows(x[0].shape);
            let (tokens, indices) = (x[0].slice(), out[0].slice_mut());
            modgrad_ffn::ngram_hash(pool, hash, batch, time, tokens, indices);
        }
        Op::WordHash { hash } => {
            let (batch, time, _) = windows(x[0].shape);
            let (tokens, indices) = (x[0].slice(), out[0].slice_mut());
            modgrad_ffn::word_hash(pool, hash, batch, time, tokens, indices);
        }
        Op::CountedRows { memory, earlier, margin } => {
            memory::counted_rows(pool, memory, *earlier, *margin, x, out)?;
        }
        Op::MixRows => memory::mix_rows(pool, x, &mut out[0])?,
        Op::MixRowsGradient => memory::mix_rows_gradient(pool, x, &mut out[0])?,

        Op::CausalAttention { .. }
        | Op::CausalAttentionGradient { .. }
        | Op::Rope { .. }
        | Op::CausalConvolution
        | Op::CausalConvolutionGradient
        | Op::LinearScan
        | Op::LinearScanGradient
        | Op::GatedRecurrence
        | Op::GatedRecurrenceGradient => sequences::run(pool, op, x, out)?,

        Op::Synchronisation => thought::synchronisation(pool, x, out)?,
        Op::SynchronisationGradient => thought::synchronisation_gradient(pool, x, out)?,
        &Op::Think { ticks, heads, hidden, depth, projected } => {
            let attributes = thought::Attributes { ticks, heads, hidden, depth, projected };
            thought::think(pool, attributes, x, out)?;
        }
        &Op::ThinkGradient { ticks, heads, hidden, depth, projected } => {
            let attributes = thought::Attributes { ticks, heads, hidden, depth, projected };
            thought::think_gradient(pool, attributes, x, out)?;
        }
        Op::SpatialThink { ticks, kept } => spatial::think(pool, *ticks, *kept, x, out)?,
        Op::SpatialThinkGradient { ticks, kept } => {
            spatial::think_gradient(pool, *ticks, *kept, x, out)?;
        }
        Op::Walk { steps } => spatial::walk(*steps, x, out),
    }
    Ok(())
}

pub(super) fn arity(op: &Op) -> Error {
    Error::malformed(format!("`{}` was planned with the wrong number of outputs", op.name()))
}

pub(super) fn two<'s, 'a>(out: &'s mut [Out<'a>]) -> (&'s mut Out<'a>, &'s mut Out<'a>) {
    let (first, rest) = out.split_first_mut().expect("planned with two outputs");
    (first, &mut rest[0])
}

fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

/// [B, T, everything else].
pub(super) fn windows(shape: &[usize]) -> (usize, usize, usize) {
    (shape[0], shape[1], shape[2..].iter().product())
}

fn copy(
    pool: &Pool,
    x: &Input<'_>,
    strides: &[usize],
    offset: usize,
    out: &mut Out<'_>,
) -> Result<()> {
    fn exact<T: Pod + Copy>(
        x: &[T],
        strides: &[usize],
        offset: usize,
        shape: &[usize],
        out: &mut [T],
    ) {
        for (index, out) in out.iter_mut().enumerate() {
            let (mut rest, mut at) = (index, offset);
            for (size, stride) in shape.iter().zip(strides).rev() {
                at += rest % size * stride;
                rest /= size;
            }
            *out = x[at];
        }
    }
    let shape = out.shape;
    match x.storage {
        Storage::I32 => exact::<i32>(x.slice(), strides, offset, shape, out.slice_mut()),
        Storage::U8 => exact::<u8>(x.slice(), strides, offset, shape, out.slice_mut()),
        _ => with_floats!(
            [a = x],
            into_float!(y = out, elementwise::copy_strided(pool, a, strides, offset, shape, y))
        ),
    }
    Ok(())
}

fn concat(pool: &Pool, axis: usize, x: &[Input<'_>], out: &mut Out<'_>) -> Result<()> {
    let (_, size, inner) = around(out.shape, axis);
    let out_width = size * inner;
    let mut start = 0;
    for part in x {
        let width = part.shape[axis] * inner;
        match part.storage {
            Storage::I32 => movement::place_columns_exact::<i32>(
                part.slice(),
                width,
                out.slice_mut(),
                out_width,
                start,
            ),
            Storage::U8 => movement::place_columns_exact::<u8>(
                part.slice(),
                width,
                out.slice_mut(),
                out_width,
                start,
            ),
            _ => with_floats!(
                [a = part],
                into_float!(y = out, movement::place_columns(pool, a, width, y, out_width, start))
            ),
        }
        start += width;
    }
    Ok(())
}

pub(super) fn products(precision: Precision) -> gemm::Precision {
    match precision {
        Precision::F32 => gemm::Precision::F32,
        Precision::Bf16 => gemm::Precision::Bf16,
    }
}

/// A matrix over a stretch of an operand, `rows` × `columns` from `start` on.
fn matrix<'a>(x: &Input<'a>, start: usize, rows: usize, columns: usize) -> Result<Matrix<'a>> {
    let end = start + rows * columns;
    match x.storage {
        Storage::F32 => Ok(Matrix::f32(&x.slice()[start..end], rows, columns)),
        Storage::Bf16 => Ok(Matrix::bf16(&x.slice()[start..end], rows, columns)),
        other => Err(stored_as(other)),
    }
}

/// The two matrices of a product that was not formed.
pub(super) fn factors<'a>(product: &Product<'a, HostMemory>) -> Result<(Matrix<'a>, Matrix<'a>)> {
    let whole = |x: &Input<'a>, transposed: bool| {
        let matrix = matrix(x, 0, x.shape[0], x.shape[1])?;
        Ok(if transposed { matrix.transposed() } else { matrix })
    };
    let (left, right) = product.transposed;
    Ok((whole(&product.left, left)?, whole(&product.right, right)?))
}

fn output<'a>(out: &'a mut Out<'_>) -> Result<Output<'a>> {
    match out.storage {
        Storage::F32 => Ok(Output::F32(out.slice_mut())),
        Storage::Bf16 => Ok(Output::Bf16(out.slice_mut())),
        other => Err(stored_as(other)),
    }
}

fn mat_mul(
    pool: &Pool,
    precision: Precision,
    (transpose_a, transpose_b): (bool, bool),
    x: &[Input<'_>],
    out: &mut Out<'_>,
    add: bool,
) -> Result<()> {
    let sides = |shape: &[usize]| (shape[shape.len() - 2], shape[shape.len() - 1]);
    let ((mut rows, columns), (rows_b, columns_b)) = (sides(x[0].shape), sides(x[1].shape));
    let shared = x[1].shape.len() == 2;
    let mut batch: usize = x[0].shape[..x[0].shape.len() - 2].iter().product();
    if shared && !transpose_a {
        rows *= batch;
        batch = 1;
    }
    let (size_a, size_b) = (rows * columns, if shared { 0 } else { rows_b * columns_b });
    let size_out = out.shape.iter().product::<usize>().checked_div(batch).unwrap_or(0);
    for index in 0..batch {
        let mut a = matrix(&x[0], index * size_a, rows, columns)?;
        let mut b = matrix(&x[1], index * size_b, rows_b, columns_b)?;
        if transpose_a {
            a = a.transposed();
        }
        if transpose_b {
            b = b.transposed();
        }
        let stretch = index * size_out..(index + 1) * size_out;
        let c = match output(out)? {
            Output::F32(all) => Output::F32(&mut all[stretch]),
            Output::Bf16(all) => Output::Bf16(&mut all[stretch]),
        };
        gemm::gemm(pool, products(precision), a, b, c, add, None);
    }
    Ok(())
}

/// Refuses indices outside `0..bound`.
fn check_range(op: &Op, x: &Input<'_>, bound: usize) -> Result<()> {
    let worst = match x.storage {
        Storage::U8 => x.slice::<u8>().iter().max().map(|&value| i64::from(value)),
        // As u32 a negative index is a huge one: one comparison covers both.
        Storage::I32 => x.slice::<i32>().iter().map(|&v| v as u32).max().map(i64::from),
        other => return Err(stored_as(other)),
    };
    match worst {
        Some(worst) if worst as usize >= bound => Err(Error::shape(
            op.name(),
            format!("indices from 0 to {}", bound as i64 - 1),
            format!(
                "{}",
                if x.storage == Storage::I32 { i64::from(worst as u32 as i32) } else { worst }
            ),
        )),
        _ => Ok(()),
    }
}

fn checked_indices(op: &Op, x: &Input<'_>, bound: usize) -> Result<Vec<usize>> {
    check_range(op, x, bound)?;
    Ok(with_indices!(indices = x, indices.iter().map(|&index| index as usize).collect()))
}
