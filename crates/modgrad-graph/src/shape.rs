//! Shape rules: what each op accepts and what it returns.
//!
//! A rule either returns the specs of every output or says in words what was
//! expected and what was found. No kernel is reached with operands that did
//! not pass here.

mod memory;
mod sequences;
mod spatial;
pub(crate) mod thought;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::tensor::{DType, TensorSpec};

/// No tensor of a program may have more elements than this (2^34: 64 GiB of
/// f32), so that a hostile program is refused before anything is allocated.
const MOST_ELEMENTS: usize = 1 << 34;

/// The specs of the outputs of `op` on operands `inputs`.
pub(crate) fn infer(op: &Op, inputs: &[&TensorSpec]) -> Result<Vec<TensorSpec>> {
    let outputs = rule(&Operands { op: op.name(), specs: inputs }, op)?;
    for output in &outputs {
        let elements = output.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if elements.is_none_or(|n| n > MOST_ELEMENTS) {
            return Err(Error::attribute(op.name(), format!("a result of {output} is too large")));
        }
    }
    Ok(outputs)
}

/// The operands of one op, with checks that report in its name.
struct Operands<'a> {
    op: &'static str,
    specs: &'a [&'a TensorSpec],
}

impl<'a> Operands<'a> {
    fn count<const N: usize>(&self) -> Result<[&'a TensorSpec; N]> {
        <[&TensorSpec; N]>::try_from(self.specs)
            .map_err(|_| self.error(format!("{N} operand(s)"), format!("{}", self.specs.len())))
    }

    fn floats<const N: usize>(&self) -> Result<[&'a TensorSpec; N]> {
        let specs = self.count::<N>()?;
        specs.iter().try_for_each(|spec| self.float(spec))?;
        Ok(specs)
    }

    fn float(&self, spec: &TensorSpec) -> Result<()> {
        self.require(spec.dtype == DType::F32, || "an f32 operand".into(), || spec.to_string())
    }

    fn indices(&self, spec: &TensorSpec) -> Result<()> {
        self.require(spec.dtype != DType::F32, || "i32 or u8 indices".into(), || spec.to_string())
    }

    fn shaped(&self, spec: &TensorSpec, shape: &[usize], what: &str) -> Result<()> {
        self.float(spec)?;
        self.require(
            spec.shape == shape,
            || format!("{what} of shape {shape:?}"),
            || spec.to_string(),
        )
    }

    fn rank(&self, spec: &TensorSpec, rank: usize, axes: &str) -> Result<()> {
        self.require(
            spec.shape.len() == rank,
            || format!("an operand of shape {axes}"),
            || spec.to_string(),
        )
    }

    fn last(&self, spec: &TensorSpec) -> Result<usize> {
        spec.shape
            .last()
            .copied()
            .ok_or_else(|| self.error("an operand with at least one axis", spec.to_string()))
    }

    fn axis(&self, spec: &TensorSpec, axis: usize) -> Result<usize> {
        spec.shape
            .get(axis)
            .copied()
            .ok_or_else(|| self.error(format!("an operand with axis {axis}"), spec.to_string()))
    }

    fn require(
        &self,
        holds: bool,
        expected: impl FnOnce() -> String,
        found: impl FnOnce() -> String,
    ) -> Result<()> {
        if holds { Ok(()) } else { Err(self.error(expected(), found())) }
    }

    fn attribute(&self, holds: bool, reason: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::attribute(self.op, reason())) }
    }

    fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::shape(self.op, expected, found)
    }
}

fn without_last(shape: &[usize]) -> Vec<usize> {
    shape[..shape.len() - 1].to_vec()
}

fn with_last(shape: &[usize], last: usize) -> Vec<usize> {
    let mut shape = without_last(shape);
    shape.push(last);
    shape
}

fn replaced(shape: &[usize], axis: usize, by: &[usize]) -> Vec<usize> {
    [&shape[..axis], by, &shape[axis + 1..]].concat()
}

fn one(shape: impl Into<Vec<usize>>) -> Result<Vec<TensorSpec>> {
    Ok(vec![TensorSpec::f32(shape)])
}

/// The shape that two operands broadcast to, aligned at the last axis.
pub(crate) fn broadcast(x: &[usize], y: &[usize]) -> Option<Vec<usize>> {
    let rank = x.len().max(y.len());
    let size = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| match (size(x, axis), size(y, axis)) {
            (a, b) if a == b => Some(a),
            (1, b) => Some(b),
            (a, 1) => Some(a),
            _ => None,
        })
        .collect()
}

/// Programs are written as JSON, which has neither NaN nor infinity.
fn finite_attributes(given: &Operands<'_>, op: &Op) -> Result<()> {
    let numbers: &[f32] = match op {
        Op::Constant { value, .. } => &[*value],
        Op::Affine { scale, offset } => &[*scale, *offset],
        Op::RmsNorm { epsilon } | Op::LayerNorm { epsilon } => &[*epsilon],
        _ => &[],
    };
    numbers.iter().try_for_each(|number| {
        given.attribute(number.is_finite(), || format!("its numbers must be finite, not {number}"))
    })
}

/// The last axis, where it may not be empty.
fn channels(given: &Operands<'_>, x: &TensorSpec) -> Result<usize> {
    let channels = given.last(x)?;
    given.require(channels > 0, || "at least one channel".into(), || x.to_string())?;
    Ok(channels)
}

fn rule(given: &Operands<'_>, op: &Op) -> Result<Vec<TensorSpec>> {
    finite_attributes(given, op)?;
    match op {
        Op::Input { shape, dtype, .. } => {
            given.count::<0>()?;
            Ok(vec![TensorSpec::new(shape.clone(), *dtype)])
        }
        Op::Parameter { shape, dtype, trainable, sparse, .. } => {
            given.count::<0>()?;
            given.attribute(*dtype == DType::F32 || !*trainable, || {
                format!("a trainable parameter must be f32, not {}", dtype.name())
            })?;
            given.attribute(!*sparse || (*trainable && shape.len() == 2), || {
                format!("a sparse table must be trainable and two-dimensional, not {shape:?}")
            })?;
            Ok(vec![TensorSpec::new(shape.clone(), *dtype)])
        }
        Op::Constant { shape, .. } => {
            given.count::<0>()?;
            one(shape.clone())
        }

        Op::Unary { .. } | Op::Affine { .. } => {
            let [x] = given.floats()?;
            Ok(vec![x.clone()])
        }
        Op::UnaryGradient { .. } | Op::SoftmaxGradient => {
            let [x, dy] = given.floats()?;
            given.shaped(dy, &x.shape, "a gradient")?;
            Ok(vec![x.clone()])
        }
        Op::Binary { .. } => {
            let [x, y] = given.floats()?;
            let shape = broadcast(&x.shape, &y.shape).ok_or_else(|| {
                given.error("operands that broadcast together", format!("{x} and {y}"))
            })?;
            one(shape)
        }
        Op::ToFloat => {
            let [x] = given.count()?;
            given.indices(x)?;
            one(x.shape.clone())
        }
        Op::Dropout { probability, .. } => {
            let [x] = given.floats()?;
            given.attribute((0.0..1.0).contains(probability), || {
                format!("the probability must be at least 0 and below 1, not {probability}")
            })?;
            Ok(vec![x.clone()])
        }

        Op::Reduce { kind, axis } => {
            let [x] = given.floats()?;
            let size = given.axis(x, *axis)?;
            given
                .attribute(size > 0 || *kind == modgrad_compute::reduce::Reduction::Sum, || {
                    format!("axis {axis} of {x} is empty and has no mean or maximum")
                })?;
            one(replaced(&x.shape, *axis, &[]))
        }
        Op::MaximumGradient { axis } => {
            let [x, y, dy] = given.floats()?;
            given.axis(x, *axis)?;
            let reduced = replaced(&x.shape, *axis, &[]);
            given.shaped(y, &reduced, "a maximum")?;
            given.shaped(dy, &reduced, "a gradient")?;
            Ok(vec![x.clone()])
        }
        Op::OneHotMax { axis } => {
            let [x] = given.floats()?;
            let size = given.axis(x, *axis)?;
            given.attribute(size > 0, || format!("axis {axis} of {x} is empty"))?;
            Ok(vec![x.clone()])
        }

        Op::Reshape { shape } => {
            let [x] = given.count()?;
            let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
            given.require(
                elements == Some(x.elements()),
                || format!("{} elements for {x}", x.elements()),
                || format!("the shape {shape:?}"),
            )?;
            Ok(vec![TensorSpec::new(shape.clone(), x.dtype)])
        }
        Op::Transpose { permutation } => {
            let [x] = given.floats()?;
            let mut sorted = permutation.clone();
            sorted.sort_unstable();
            given.require(
                sorted.iter().copied().eq(0..x.shape.len()),
                || format!("a permutation of the {} axes of {x}", x.shape.len()),
                || format!("{permutation:?}"),
            )?;
            one(permutation.iter().map(|&axis| x.shape[axis]).collect::<Vec<_>>())
        }
        Op::BroadcastTo { shape } => {
            let [x] = given.count()?;
            given.require(
                broadcast(&x.shape, shape).as_ref() == Some(shape),
                || format!("an operand that broadcasts to {shape:?}"),
                || x.to_string(),
            )?;
            Ok(vec![TensorSpec::new(shape.clone(), x.dtype)])
        }
        Op::Slice { axis, start, end, step } => {
            let [x] = given.count()?;
            let size = given.axis(x, *axis)?;
            given.attribute(*step > 0 && start <= end && *end <= size, || {
                format!("{start}..{end} by {step} does not lie in axis {axis} of {x}")
            })?;
            let taken = (end - start).div_ceil(*step);
            Ok(vec![TensorSpec::new(replaced(&x.shape, *axis, &[taken]), x.dtype)])
        }
        Op::SliceGradient { axis, start, step, size } => {
            let [dy] = given.floats()?;
            let taken = given.axis(dy, *axis)?;
            let last = taken.checked_sub(1).map_or(Some(0), |n| {
                n.checked_mul(*step).and_then(|n| n.checked_add(start.checked_add(1)?))
            });
            given.attribute(*step > 0 && last.is_some_and(|last| last <= *size), || {
                format!("{taken} elements from {start} by {step} do not lie in {size}")
            })?;
            one(replaced(&dy.shape, *axis, &[*size]))
        }
        Op::Concat { axis } => {
            let Some(first) = given.specs.first() else {
                return Err(given.error("at least one operand", "none"));
            };
            given.axis(first, *axis)?;
            let mut total = 0usize;
            for spec in given.specs {
                let fits = spec.shape.len() == first.shape.len()
                    && spec.dtype == first.dtype
                    && replaced(&spec.shape, *axis, &[0]) == replaced(&first.shape, *axis, &[0]);
                given.require(
                    fits,
                    || format!("operands like {first}, alike but for axis {axis}"),
                    || spec.to_string(),
                )?;
                total = total.saturating_add(spec.shape[*axis]);
            }
            Ok(vec![TensorSpec::new(replaced(&first.shape, *axis, &[total]), first.dtype)])
        }
        Op::Gather { axis } => {
            let [x, indices] = given.count()?;
            given.float(x)?;
            given.indices(indices)?;
            given.axis(x, *axis)?;
            one(replaced(&x.shape, *axis, &indices.shape))
        }
        Op::GatherGradient { axis, size } => {
            let [indices, dy] = given.count()?;
            given.indices(indices)?;
            given.float(dy)?;
            let end = axis.saturating_add(indices.shape.len());
            given.require(
                dy.shape.len() >= end && dy.shape[*axis..end] == indices.shape[..],
                || format!("a gradient with axes {:?} at {axis}", indices.shape),
                || dy.to_string(),
            )?;
            one([&dy.shape[..*axis], &[*size], &dy.shape[end..]].concat())
        }
        Op::Shift { .. } => {
            let [x] = given.floats()?;
            given.require(x.shape.len() >= 2, || "[B, T, ...]".into(), || x.to_string())?;
            Ok(vec![x.clone()])
        }

        Op::MatMul { transpose_a, transpose_b } => {
            let [a, b] = given.floats()?;
            let (rank_a, rank_b) = (a.shape.len(), b.shape.len());
            let fits = rank_a >= 2
                && rank_b >= 2
                && (rank_b == 2 || a.shape[..rank_a - 2] == b.shape[..rank_b - 2])
                && (rank_a == rank_b || !transpose_a);
            let sizes = |shape: &[usize], swap: bool| {
                let (x, y) = (shape[shape.len() - 2], shape[shape.len() - 1]);
                if swap { (y, x) } else { (x, y) }
            };
            if fits {
                let (m, k) = sizes(&a.shape, *transpose_a);
                let (k_of_b, n) = sizes(&b.shape, *transpose_b);
                if k == k_of_b {
                    return one([&a.shape[..rank_a - 2], &[m, n]].concat());
                }
            }
            let mark = |flag: &bool| if *flag { "ᵀ" } else { "" };
            Err(given.error(
                "matrices [..., m, k] and [k, n], or both with the same leading axes",
                format!("{a}{} and {b}{}", mark(transpose_a), mark(transpose_b)),
            ))
        }
        Op::Linear => {
            let (x, weight) = match given.specs {
                [x, weight] => (x, weight),
                [x, weight, bias] => {
                    given.rank(weight, 2, "[n, k]")?;
                    given.shaped(bias, &weight.shape[..1], "a bias")?;
                    (x, weight)
                }
                _ => return Err(given.error("x, weight and maybe bias", "other operands")),
            };
            given.float(x)?;
            given.float(weight)?;
            given.rank(weight, 2, "[n, k]")?;
            let k = given.last(x)?;
            given.require(
                weight.shape[1] == k,
                || format!("a weight of shape [n, {k}] for x of {x}"),
                || weight.to_string(),
            )?;
            one(with_last(&x.shape, weight.shape[0]))
        }

        Op::RmsNorm { .. } => {
            let [x, weight] = given.floats()?;
            given.shaped(weight, &[channels(given, x)?], "a weight")?;
            Ok(vec![x.clone(), TensorSpec::f32(without_last(&x.shape))])
        }
        Op::RmsNormGradient => {
            let [x, weight, inverse_rms, dy] = given.floats()?;
            given.shaped(weight, &[given.last(x)?], "a weight")?;
            given.shaped(inverse_rms, &without_last(&x.shape), "1/rms")?;
            given.shaped(dy, &x.shape, "a gradient")?;
            Ok(vec![x.clone(), weight.clone()])
        }
        Op::LayerNorm { .. } => {
            let [x, weight, bias] = given.floats()?;
            given.shaped(weight, &[channels(given, x)?], "a weight")?;
            given.shaped(bias, &weight.shape, "a bias")?;
            let rows = TensorSpec::f32(without_last(&x.shape));
            Ok(vec![x.clone(), rows.clone(), rows])
        }
        Op::LayerNormGradient => {
            let [x, weight, mean, inverse_deviation, dy] = given.floats()?;
            given.shaped(weight, &[given.last(x)?], "a weight")?;
            given.shaped(mean, &without_last(&x.shape), "a mean")?;
            given.shaped(inverse_deviation, &mean.shape, "1/deviation")?;
            given.shaped(dy, &x.shape, "a gradient")?;
            Ok(vec![x.clone(), weight.clone(), weight.clone()])
        }

        Op::GatedLinearUnit { .. } => {
            let [x] = given.floats()?;
            let last = given.last(x)?;
            given.require(last % 2 == 0, || "an even last axis".into(), || x.to_string())?;
            one(with_last(&x.shape, last / 2))
        }
        Op::GatedLinearUnitGradient { .. } => {
            let [x, dy] = given.floats()?;
            let last = given.last(x)?;
            given.require(last % 2 == 0, || "an even last axis".into(), || x.to_string())?;
            given.shaped(dy, &with_last(&x.shape, last / 2), "a gradient")?;
            Ok(vec![x.clone()])
        }
        Op::Softmax => {
            let [x] = given.floats()?;
            given.last(x)?;
            Ok(vec![x.clone()])
        }
        Op::CrossEntropy => {
            let [logits, targets] = given.count()?;
            given.float(logits)?;
            given.indices(targets)?;
            let classes = given.last(logits)?;
            given.require(classes > 0, || "at least one class".into(), || logits.to_string())?;
            let rows = without_last(&logits.shape);
            given.require(
                targets.shape == rows,
                || format!("targets of shape {rows:?} for logits of {logits}"),
                || targets.to_string(),
            )?;
            Ok(vec![TensorSpec::f32(rows.clone()), TensorSpec::f32(rows)])
        }
        Op::CrossEntropyGradient => {
            let [logits, targets, logsumexp, dloss] = given.count()?;
            given.float(logits)?;
            given.indices(targets)?;
            given.last(logits)?;
            given.shaped(logsumexp, &targets.shape, "a logsumexp")?;
            given.shaped(dloss, &targets.shape, "a gradient")?;
            given.require(
                without_last(&logits.shape) == targets.shape,
                || format!("targets for logits of {logits}"),
                || targets.to_string(),
            )?;
            Ok(vec![logits.clone()])
        }

        Op::Embedding | Op::EmbeddingBag => {
            let [table, indices] = given.count()?;
            given.float(table)?;
            given.indices(indices)?;
            given.rank(table, 2, "[N, C]")?;
            channels(given, table)?;
            let mut shape = indices.shape.clone();
            if matches!(op, Op::EmbeddingBag) {
                given.require(
                    given.last(indices)? > 0,
                    || "at least one index a bag".into(),
                    || indices.to_string(),
                )?;
                shape.pop();
            }
            shape.push(table.shape[1]);
            one(shape)
        }
        Op::EmbeddingGradient { rows, bag } => {
            let [indices, dy] = given.count()?;
            given.indices(indices)?;
            let width = channels(given, dy)?;
            given.attribute(*bag > 0, || "an empty bag has no gradient".into())?;
            given.require(
                dy.elements().checked_mul(*bag) == indices.elements().checked_mul(width),
                || format!("one gradient row for {bag} of the indices {indices}"),
                || dy.to_string(),
            )?;
            one([*rows, width])
        }

        Op::ByteContext { length } => {
            given.attribute(*length > 0, || "the length must be at least 1".into())?;
            byte_windows(given, *length)
        }
        Op::NgramHash { hash } => {
            hash.validate().map_err(|reason| Error::attribute(given.op, reason))?;
            byte_windows(given, hash.orders.len())
        }
        Op::WordHash { hash } => {
            hash.validate().map_err(|reason| Error::attribute(given.op, reason))?;
            byte_windows(given, hash.kinds.len())
        }
        Op::CountedRows { memory: config, earlier, margin } => {
            memory::counted_rows(given, config, *earlier, *margin)
        }
        Op::MixRows => {
            let [logits, gates, rows @ ..] = given.count::<6>()?;
            let experts = memory::mixed_rows(given, rows, &logits.shape)?;
            given.float(logits)?;
            given.shaped(gates, &with_last(&logits.shape, experts), "gates")?;
            Ok(vec![logits.clone()])
        }
        Op::MixRowsGradient => {
            let [rows @ .., dout] = given.count::<5>()?;
            given.float(dout)?;
            let experts = memory::mixed_rows(given, rows, &dout.shape)?;
            one(with_last(&dout.shape, experts))
        }

        Op::CausalAttention { .. }
        | Op::CausalAttentionGradient { .. }
        | Op::Rope { .. }
        | Op::CausalConvolution
        | Op::CausalConvolutionGradient
        | Op::LinearScan
        | Op::LinearScanGradient
        | Op::GatedRecurrence
        | Op::GatedRecurrenceGradient => sequences::rule(given, op),

        Op::Synchronisation => {
            let out = synchronisation_shapes(given)?;
            given.count::<5>()?;
            Ok(vec![out])
        }
        Op::SynchronisationGradient => {
            let [start, states, _, _, retention, dout] = given.count()?;
            let out = synchronisation_shapes(given)?;
            given.shaped(dout, &out.shape, "a gradient")?;
            Ok(vec![start.clone(), states.clone(), retention.clone()])
        }
        Op::Think { ticks, heads, hidden, depth, projected } => {
            let (operands, results) =
                thought::shapes(given, *ticks, *heads, *hidden, *depth, *projected)?;
            given.require(
                given.specs.len() == operands,
                || format!("{operands} operands"),
                || given.specs.len().to_string(),
            )?;
            Ok(results)
        }
        Op::ThinkGradient { ticks, heads, hidden, depth, projected } => {
            let (operands, results) =
                thought::shapes(given, *ticks, *heads, *hidden, *depth, *projected)?;
            given.require(
                given.specs.len() == operands + results.len() + 2,
                || format!("{} operands", operands + results.len() + 2),
                || given.specs.len().to_string(),
            )?;
            for (spec, result) in given.specs[operands..].iter().zip(&results) {
                given.shaped(spec, &result.shape, "a result of `think`")?;
            }
            for (spec, result) in given.specs[operands + results.len()..].iter().zip(&results) {
                given.shaped(spec, &result.shape, "a gradient")?;
            }
            let floats = given.specs[..operands].iter().filter(|spec| spec.dtype == DType::F32);
            Ok(floats.map(|spec| (*spec).clone()).collect())
        }
        Op::SpatialThink { ticks, kept } => {
            given.require(
                matches!(given.specs.len(), 6 | 7),
                || "6 or 7 operands".into(),
                || given.specs.len().to_string(),
            )?;
            spatial::think(given, *ticks, *kept)
        }
        Op::SpatialThinkGradient { ticks, kept } => {
            given.count::<12>()?;
            spatial::think_gradient(given, *ticks, *kept)
        }
        Op::Walk { steps } => {
            let [policy, start] = given.floats()?;
            spatial::walk(given, *steps, policy, start)
        }
    }
}

fn byte_windows(given: &Operands<'_>, slots: usize) -> Result<Vec<TensorSpec>> {
    let [tokens] = given.count()?;
    given.require(
        tokens.dtype == DType::U8 && tokens.shape.len() == 2,
        || "tokens u8[B, T]".into(),
        || tokens.to_string(),
    )?;
    let mut shape = tokens.shape.clone();
    shape.push(slots);
    Ok(vec![TensorSpec::new(shape, DType::I32)])
}

/// Checks the first five operands of a synchronisation; the spec of its result.
fn synchronisation_shapes(given: &Operands<'_>) -> Result<TensorSpec> {
    let &[start, states, left, right, retention, ..] = given.specs else {
        return Err(given.error("5 operands", format!("{}", given.specs.len())));
    };
    given.float(states)?;
    given.rank(states, 3, "[B, T, N]")?;
    given.shaped(start, &[states.shape[0], states.shape[2]], "a start state")?;
    given.float(retention)?;
    given.rank(retention, 1, "[S]")?;
    pair_indices(given, left, right, retention)?;
    let shape = vec![states.shape[0], states.shape[1] + 1, retention.shape[0]];
    Ok(TensorSpec::f32(shape))
}

fn pair_indices(
    given: &Operands<'_>,
    left: &TensorSpec,
    right: &TensorSpec,
    retention: &TensorSpec,
) -> Result<()> {
    [left, right].into_iter().try_for_each(|spec| {
        given.require(
            spec.dtype == DType::I32 && spec.shape == retention.shape,
            || format!("indices i32{:?} of the pairs", retention.shape),
            || spec.to_string(),
        )
    })
}
