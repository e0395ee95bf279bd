//! Shapes of counted memory's rows, and of logits that they are mixed into.

use modgrad_ffn::memory::MemoryConfig;

use super::{Operands, with_last};
use crate::error::{Error, Result};
use crate::tensor::{DType, TensorSpec};

pub(super) fn counted_rows(
    given: &Operands<'_>,
    memory: &MemoryConfig,
    earlier: usize,
    margin: usize,
) -> Result<Vec<TensorSpec>> {
    memory.validate().map_err(|reason| Error::attribute(given.op, reason))?;
    let [tokens, tables, back_off, mixer] = given.count()?;
    for (spec, rank, axes) in [(tokens, 2, "[B, T]"), (tables, 1, "[n]")] {
        given.rank(spec, rank, axes)?;
        given.require(spec.dtype == DType::U8, || "u8 bytes".into(), || spec.to_string())?;
    }
    let (back_offs, mixers) = modgrad_ffn::memory::weight_sizes(memory);
    given.shaped(back_off, &[back_offs], "back-off weights")?;
    given.shaped(mixer, &[mixers], "the mixers' weights")?;
    let around = margin.saturating_mul(2).saturating_add(earlier);
    let Some(time) = tokens.shape[1].checked_sub(around) else {
        return Err(given.error(format!("at least {around} bytes a row"), tokens.to_string()));
    };
    let lessons = if around == 0 { 0 } else { modgrad_ffn::memory::lesson_size(memory) };
    let at = |sizes: &[usize]| [&[tokens.shape[0], time], sizes].concat();
    let (experts, entries) = (memory.experts(), memory.entries);
    Ok(vec![
        TensorSpec::f32(at(&[256])),
        TensorSpec::new(at(&[entries]), DType::I32),
        TensorSpec::f32(at(&[experts, entries])),
        TensorSpec::f32(at(&[experts])),
        TensorSpec::f32(at(&[experts, modgrad_ffn::memory::STATISTICS])),
        TensorSpec::new(at(&[modgrad_ffn::memory::LEADING]), DType::I32),
        TensorSpec::f32([tokens.shape[0], lessons]),
    ])
}

/// Checks rows for logits of the shape [..., 256]; the number of experts.
pub(super) fn mixed_rows(
    given: &Operands<'_>,
    rows: [&TensorSpec; 4],
    logits: &[usize],
) -> Result<usize> {
    let [base, entries, difference, multiple] = rows;
    given.require(
        logits.last() == Some(&256),
        || "logits of 256 bytes".into(),
        || format!("the shape {logits:?}"),
    )?;
    given.shaped(base, logits, "a base")?;
    let (width, experts) = (given.last(entries)?, given.last(multiple)?);
    given.attribute((1..=256).contains(&width), || {
        format!("a position has {width} entries, not 1 to 256")
    })?;
    given.require(
        entries.dtype == DType::I32 && entries.shape == with_last(logits, width),
        || format!("i32 entries of shape {:?}", with_last(logits, width)),
        || entries.to_string(),
    )?;
    given.shaped(multiple, &with_last(logits, experts), "multiples")?;
    let shape = [&with_last(logits, experts)[..], &[width]].concat();
    given.shaped(difference, &shape, "differences")?;
    Ok(experts)
}
