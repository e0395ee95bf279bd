//! The last bytes of each position, as indices of an embedding table.

use modgrad_compute::Pool;

/// The index that stands for "before the window".
pub const BEFORE_WINDOW: i32 = 256;

/// `out[b, t, j]` = the byte at t − j of window b, or 256 where t − j < 0.
///
/// `tokens` is `[batch, time]`, `out` is `[batch, time, length]`.
pub fn byte_context(
    pool: &Pool,
    batch: usize,
    time: usize,
    length: usize,
    tokens: &[u8],
    out: &mut [i32],
) {
    crate::check_lengths("byte_context", batch, time, length, tokens.len(), out.len());
    pool.for_rows(out, length, 64, |first, stretch| {
        for (offset, row) in stretch.chunks_exact_mut(length).enumerate() {
            let position = first + offset;
            let inside = (position % time + 1).min(length);
            let newest_first = tokens[position + 1 - inside..=position].iter().rev();
            for (entry, &byte) in row.iter_mut().zip(newest_first) {
                *entry = i32::from(byte);
            }
            row[inside..].fill(BEFORE_WINDOW);
        }
    });
}
