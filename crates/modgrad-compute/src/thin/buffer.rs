//! Floats that begin on a cache line, so that whole vectors never lie across two; large
//! ones are kept for the next call, so that the system need not find, clear and map
//! their pages anew.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Floats of a cache line.
const LINE: usize = 16;
/// From how many floats on a buffer is kept.
const LARGE: usize = 1 << 14;
/// How many floats are kept at most: 64 MiB.
const MOST: usize = 1 << 24;

static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A fixed number of floats, the first at the start of a cache line.
pub struct Buffer {
    floats: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// As many zeros.
    pub fn zeros(length: usize) -> Buffer {
        let mut buffer = match kept(length) {
            Some(floats) => Buffer::over(floats, length),
            None => return Buffer::over(vec![0.0f32; length + LINE - 1], length),
        };
        buffer.fill(0.0);
        buffer
    }

    /// As many floats of any value, to be written before they are read.
    pub fn any(length: usize) -> Buffer {
        let floats = kept(length).unwrap_or_else(|| vec![0.0f32; length + LINE - 1]);
        Buffer::over(floats, length)
    }

    fn over(floats: Vec<f32>, length: usize) -> Buffer {
        // A place that cannot be found costs time and nothing else.
        let start = floats.as_ptr().align_offset(4 * LINE).min(LINE - 1);
        Buffer { floats, start, length }
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Buffer {
        let mut buffer = Buffer::any(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

/// A kept one that is large enough, and not much too large.
fn kept(length: usize) -> Option<Vec<f32>> {
    let needed = length + LINE - 1;
    if needed < LARGE {
        return None;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |floats: &Vec<f32>| floats.len() >= needed && floats.len() / 2 <= needed;
    let index = (0..kept.len()).filter(|&at| fits(&kept[at])).min_by_key(|&at| kept[at].len())?;
    Some(kept.swap_remove(index))
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.floats.len() < LARGE {
            return;
        }
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = kept.iter().map(Vec::len).sum();
        if total + self.floats.len() <= MOST {
            kept.push(std::mem::take(&mut self.floats));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.floats[self.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..][..self.length]
    }
}
