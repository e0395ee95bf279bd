//! Counted memory.

use modgrad_compute::Pool;
use modgrad_ffn::memory::{self, Batch, LEADING, Memory, MemoryConfig, Rows, STATISTICS, Weights};

use super::Array;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// What a memory says is a definition of its own, so its code is called as it is, one
/// window after the other; tests there hold it against a plain version.
pub(super) fn counted_rows(
    config: &MemoryConfig,
    earlier: usize,
    margin: usize,
    inputs: &[&Array],
) -> Result<Vec<Array>> {
    let bytes = |array: &Array| -> Result<Vec<u8>> {
        let values = array.integers(0.0, 255.0, DType::U8)?;
        Ok(values.into_iter().map(|value| value as u8).collect())
    };
    let floats = |array: &Array| array.data.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let (tokens, tables) = (bytes(inputs[0])?, bytes(inputs[1])?);
    let (back_off, mixer) = (floats(inputs[2]), floats(inputs[3]));
    let tables = Memory::from_bytes(config, &tables)
        .map_err(|found| Error::shape("counted_rows", "tables of counts", found))?;
    let weights = Weights { back_off: &back_off, mixer: &mixer };
    let (experts, entries) = (config.experts(), config.entries);
    let sizes: [&[usize]; 6] =
        [&[256], &[entries], &[experts, entries], &[experts], &[experts, STATISTICS], &[LEADING]];
    let (windows, around) = (inputs[0].shape[0], earlier + 2 * margin);
    let time = inputs[0].shape[1] - around;
    let zeros = |sizes: &[usize]| vec![0.0f32; windows * time * sizes.iter().product::<usize>()];
    let lesson = if around == 0 { 0 } else { memory::lesson_size(config) };
    let mut lessons = vec![0.0; windows * lesson];
    let mut base = zeros(sizes[0]);
    let mut bytes = vec![0; windows * time * entries];
    let (mut difference, mut multiple, mut statistics) =
        (zeros(sizes[2]), zeros(sizes[3]), zeros(sizes[4]));
    let mut leading = vec![0; windows * time * LEADING];
    let rows = Rows {
        base: &mut base,
        entries: &mut bytes,
        difference: &mut difference,
        multiple: &mut multiple,
        statistics: &mut statistics,
        leading: &mut leading,
        lessons: &mut lessons,
    };
    let batch = Batch { tokens: &tokens, time, margin, earlier };
    memory::window_rows(&Pool::new(1), &tables, weights, batch, rows);
    let exact = |data: Vec<f32>| data.into_iter().map(f64::from).collect::<Vec<f64>>();
    let whole = |bytes: Vec<i32>| bytes.into_iter().map(f64::from).collect::<Vec<f64>>();
    let (bytes, leading) = (whole(bytes), whole(leading));
    let all = [exact(base), bytes, exact(difference), exact(multiple), exact(statistics), leading];
    let shaped =
        |(data, sizes): (Vec<f64>, &[usize])| Array::new(&[&[windows, time], sizes].concat(), data);
    let lessons = Array::new(&[windows, lesson], exact(lessons));
    Ok(all.into_iter().zip(sizes).map(shaped).chain([lessons]).collect())
}

/// logits + Σ_k gate_k·(multiple_k·base + difference_k at the entries).
pub(super) fn mix_rows(x: &[&Array]) -> Array {
    let [logits, gates, base, entries, difference, multiple] = x else { unreachable!() };
    let mut out = (*logits).clone();
    for position in 0..logits.data.len() / 256 {
        let experts = gates.data.len() * 256 / logits.data.len();
        let width = entries.data.len() * 256 / logits.data.len();
        for k in 0..experts {
            let gate = gates.data[position * experts + k];
            for s in 0..256 {
                let row = multiple.data[position * experts + k] * base.data[position * 256 + s];
                out.data[position * 256 + s] += gate * row;
            }
            for e in 0..width {
                let s = entries.data[position * width + e] as usize;
                let row = difference.data[(position * experts + k) * width + e];
                out.data[position * 256 + s] += gate * row;
            }
        }
    }
    out
}

/// dgate_k = Σ_s dout(s)·row_k(s).
pub(super) fn mix_rows_gradient(x: &[&Array]) -> Array {
    let [base, entries, difference, multiple, dout] = x else { unreachable!() };
    Array::from_fn(&multiple.shape, |index| {
        let (&k, at) = index.split_last().expect("checked by the shape rule");
        let width = entries.shape[entries.shape.len() - 1];
        let along = |array: &Array, at: &[usize], last: usize| array.at(&[at, &[last]].concat());
        let whole: f64 = (0..256).map(|s| along(dout, at, s) * along(base, at, s)).sum::<f64>();
        let entry = |e: usize| {
            let s = along(entries, at, e) as usize;
            along(dout, at, s) * difference.at(&[at, &[k, e]].concat())
        };
        whole * multiple.at(index) + (0..width).map(entry).sum::<f64>()
    })
}
