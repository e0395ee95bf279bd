//! What a memory learns beside its counts: how experts back off, and how the mixer
//! weighs them.

use super::MemoryConfig;
use super::back_off::{BUCKETS, BackOff};
use super::mixer::first_weights;

/// The learned numbers, as windows read them.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    back_off: BackOff,
    /// [kinds + kinds in the window, buckets].
    weights: Vec<f32>,
    /// [sets, experts].
    pub(super) mixer: Vec<f32>,
}

/// What a number of windows have to teach.
#[derive(Clone, Debug)]
pub struct Lessons {
    pub(super) back_off: Vec<(f32, f32)>,
    pub(super) mixer: Vec<f32>,
}

impl Learned {
    /// Before anything was learned.
    pub fn new(config: &MemoryConfig) -> Learned {
        let back_off = BackOff::new(config.kinds.len() + config.in_window.len());
        let weights = back_off.weights();
        Learned { back_off, weights, mixer: first_weights(config) }
    }

    /// λ of a context's bucket.
    #[inline(always)]
    pub(super) fn weight(&self, index: usize, bucket: usize) -> f32 {
        self.weights[index * BUCKETS + bucket]
    }

    /// Learns from windows whose rows were made by these numbers.
    pub fn learn(&mut self, lessons: &[Lessons]) {
        for lesson in lessons {
            self.back_off.learn(&lesson.back_off);
            for (weight, change) in self.mixer.iter_mut().zip(&lesson.mixer) {
                *weight += change;
            }
        }
        self.weights = self.back_off.weights();
    }
}

impl Lessons {
    /// Nothing yet.
    pub fn new(config: &MemoryConfig) -> Lessons {
        let contexts = config.kinds.len() + config.in_window.len();
        Lessons {
            back_off: vec![(0.0, 0.0); contexts * BUCKETS],
            mixer: vec![0.0; config.sets() * config.counted_experts()],
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.back_off.fill((0.0, 0.0));
        self.mixer.fill(0.0);
    }
}
