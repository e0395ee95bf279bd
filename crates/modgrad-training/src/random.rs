//! Randomness: a secret from the system, and a stream of numbers from it.

/// Eight bytes that nobody can know beforehand.
pub(crate) fn from_system() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

/// SplitMix64 (Steele, Lea & Flood, 2014): short, and enough for choices that
/// need only be unknown to data that was written before the seed was drawn.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above zero. The bias of the multiply is
    /// below bound / 2^64.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Any byte.
    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    /// Fisher–Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Numbers below a bound, each once in random order before any comes again.
pub(crate) struct Turns {
    order: Vec<usize>,
    used: usize,
}

impl Turns {
    pub(crate) fn new(bound: usize) -> Self {
        Turns { order: (0..bound).collect(), used: bound }
    }

    pub(crate) fn next(&mut self, random: &mut Random) -> usize {
        if self.used == self.order.len() {
            random.shuffle(&mut self.order);
            self.used = 0;
        }
        self.used += 1;
        self.order[self.used - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_stream() {
        // The reference implementation's first values for seed 1234567.
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([random.next(), random.next()], expected);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_place() {
        let mut random = Random::new(1);
        let mut reached = [[false; 5]; 5];
        for _ in 0..500 {
            let mut items = [0, 1, 2, 3, 4];
            random.shuffle(&mut items);
            items.iter().enumerate().for_each(|(place, &item)| reached[item][place] = true);
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        assert!(reached.iter().flatten().all(|reached| *reached));
        assert!((0..1000).all(|_| random.below(3) < 3));
    }

    #[test]
    fn turns_come_once_each_before_any_comes_again() {
        let mut random = Random::new(4);
        for bound in [1, 2, 7, 100] {
            let mut turns = Turns::new(bound);
            for _ in 0..3 {
                let mut round: Vec<usize> = (0..bound).map(|_| turns.next(&mut random)).collect();
                round.sort_unstable();
                assert!(round.into_iter().eq(0..bound));
            }
        }
    }

    #[test]
    fn the_system_gives_another_number_each_time() {
        assert_ne!(from_system().unwrap(), from_system().unwrap());
    }
}
