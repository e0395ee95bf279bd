//! What a memory learns beside its counts: how experts back off, and how the mixer
//! weighs them.

use super::MemoryConfig;
use super::back_off::{BUCKETS, BackOff};
use super::mixer::first_weights;

/// The learned numbers, as windows read them.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// λ [kinds + kinds in the window, buckets]: see [`weight_sizes`].
    pub back_off: &'a [f32],
    /// [sets, experts] of each mixer, one after the other.
    pub mixer: &'a [f32],
}

impl Weights<'_> {
    /// λ of a context's bucket.
    #[inline(always)]
    pub(super) fn lambda(&self, index: usize, bucket: usize) -> f32 {
        self.back_off[index * BUCKETS + bucket]
    }
}

/// How many numbers the two parts of [`Weights`] have.
pub fn weight_sizes(config: &MemoryConfig) -> (usize, usize) {
    let contexts = config.kinds.len() + config.in_window.len();
    (contexts * BUCKETS, config.sets().sum::<usize>() * config.counted_experts())
}

/// The numbers while they are being learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    back_off: BackOff,
    lambdas: Vec<f32>,
    mixer: Vec<f32>,
}

/// How many numbers a window has to teach: for each of λ's buckets a slope and a square,
/// then how far the mixer's weights have moved.
pub fn lesson_size(config: &MemoryConfig) -> usize {
    let (back_off, mixer) = weight_sizes(config);
    2 * back_off + mixer
}

impl Learned {
    /// Before anything was learned.
    pub fn new(config: &MemoryConfig) -> Learned {
        let back_off = BackOff::new(config.kinds.len() + config.in_window.len());
        let lambdas = back_off.weights();
        Learned { back_off, lambdas, mixer: first_weights(config) }
    }

    /// As windows read them.
    pub fn weights(&self) -> Weights<'_> {
        Weights { back_off: &self.lambdas, mixer: &self.mixer }
    }

    /// What an exact continuation needs beside [`Learned::weights`]: two lists, as long
    /// as λ's each.
    pub fn state(&self) -> [&[f32]; 2] {
        [&self.back_off.logits, &self.back_off.information]
    }

    /// Continues from a state and the mixer's weights; refuses other sizes, and what is
    /// not finite.
    pub fn restore(&mut self, state: [&[f32]; 2], mixer: &[f32]) -> Result<(), String> {
        let [logits, information] = state;
        let sizes = [logits.len(), information.len(), mixer.len()];
        let expected = [self.lambdas.len(), self.lambdas.len(), self.mixer.len()];
        let finite = logits.iter().chain(information).all(|x| x.is_finite())
            && mixer.iter().all(|x| x.is_finite());
        if sizes != expected || !finite {
            return Err(format!("expected {expected:?} finite numbers, found {sizes:?}"));
        }
        self.back_off.logits.copy_from_slice(logits);
        self.back_off.information.copy_from_slice(information);
        self.lambdas = self.back_off.weights();
        self.mixer.copy_from_slice(mixer);
        Ok(())
    }

    /// Learns from windows whose rows were made by these numbers: [windows,
    /// [`lesson_size`]].
    pub fn learn(&mut self, lessons: &[f32]) {
        let slopes = 2 * self.lambdas.len();
        for lesson in lessons.chunks_exact(slopes + self.mixer.len()) {
            let (slopes, moves) = lesson.split_at(slopes);
            self.back_off.learn(slopes);
            for (weight, moved) in self.mixer.iter_mut().zip(moves) {
                *weight += moved;
            }
        }
        self.lambdas = self.back_off.weights();
    }
}
