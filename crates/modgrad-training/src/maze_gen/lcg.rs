//! The random numbers of mazes.

use crate::random::Random;

/// A linear congruential generator modulo 2^64 with the constants of MMIX
/// (Knuth, The Art of Computer Programming, volume 2, 3.3.4). The published maze
/// experiments use it, so that it is kept: their mazes can be made again.
pub(super) struct Lcg {
    state: u64,
}

impl Lcg {
    pub(super) fn new(seed: u64) -> Self {
        Lcg { state: seed }
    }

    /// A stream for one maze. Neighbouring states of such a generator give
    /// neighbouring numbers, so seed and index are mixed first.
    pub(super) fn at(seed: u64, index: u64) -> Self {
        Lcg::new(Random::new(Random::new(seed).next() ^ index).next())
    }

    /// A number below `bound`, which is above zero and far below 2^31: the upper
    /// bits, the low ones of such a generator having short periods.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % bound
    }

    /// One of the items.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Brings `count` random items to the front, in random order: the first steps
    /// of a Fisher–Yates shuffle from the front.
    pub(super) fn shuffle_front<T>(&mut self, items: &mut [T], count: usize) {
        for front in 0..count.min(items.len().saturating_sub(1)) {
            let other = front + self.below(items.len() - front);
            items.swap(front, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::carve::carve;
    use super::super::{Algorithm, Lcg};

    #[test]
    fn a_depth_first_maze_draws_once_a_cell_but_the_first() {
        for (size, draws) in [(5, 3), (21, 99), (39, 360)] {
            let (mut used, mut counted) = (Lcg::new(42), Lcg::new(42));
            carve(size, Algorithm::Dfs, &mut used);
            for _ in 0..draws {
                counted.below(1);
            }
            assert_eq!(used.state, counted.state, "{size}");
        }
    }

    #[test]
    fn shuffled_to_the_front_is_a_fair_choice() {
        let mut lcg = Lcg::new(3);
        let mut counts = [0; 6];
        for _ in 0..6000 {
            let mut items = [0, 1, 2, 3, 4, 5];
            lcg.shuffle_front(&mut items, 2);
            items[..2].iter().for_each(|&item| counts[item] += 1);
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4, 5]);
        }
        // 2000 expected, 37 the standard deviation.
        assert!(counts.iter().all(|&count| (1850..2150).contains(&count)), "{counts:?}");
    }
}
