//! The hash functions of this crate, fixed for ever.
//!
//! A checkpoint holds tables indexed by these values, so no constant and no
//! step here may ever change: the tests at the end pin them. All are
//! multiply-xorshift mixes of 64-bit words, the same on every machine.

/// The odd number nearest 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection of 64-bit words in which every input bit reaches every output
/// bit: the finaliser of SplitMix64, with David Stafford's constants (mix 13).
#[inline(always)]
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// `state` extended by one more word of input; order matters.
#[inline(always)]
pub fn absorb(state: u64, word: u64) -> u64 {
    mix(state ^ word).wrapping_add(GOLDEN)
}

/// The seed of stream `stream` under `seed`: a random access into SplitMix64.
#[inline(always)]
pub fn stream_seed(seed: u64, stream: u64) -> u64 {
    mix(mix(seed).wrapping_add(GOLDEN.wrapping_mul(stream.wrapping_add(1))))
}

/// `state` extended by one byte. Cheaper than [`absorb`]: for values that grow
/// byte by byte and pass through [`mix`] before they are used.
#[inline(always)]
pub fn absorb_byte(state: u64, byte: u8) -> u64 {
    let state = (state ^ (u64::from(byte) + 1)).wrapping_mul(GOLDEN);
    state ^ (state >> 32)
}

/// Maps a well-mixed hash to `0..rows` without a division.
#[inline(always)]
pub fn reduce(hash: u64, rows: usize) -> usize {
    ((u128::from(hash) * rows as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values stand in checkpoints: a change here breaks every one.
    #[test]
    fn the_values_never_change() {
        // The first is SplitMix64's published first output for seed 0.
        assert_eq!(mix(GOLDEN), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0), 0);
        assert_eq!(absorb(1, 2), 0xbc8a_d8a7_625e_a505);
        assert_eq!(absorb_byte(3, 65), 0x2c15_e819_7dfc_694c);
        assert_eq!(stream_seed(5, 6), 0xfd04_a94f_106f_4cab);
        assert_eq!(reduce(u64::MAX, 10), 9);
        assert_eq!(reduce(0, 10), 0);
        assert_eq!(reduce(1 << 63, 10), 5);
        assert_eq!(reduce(u64::MAX, 1), 0);
    }

    #[test]
    fn each_input_bit_flips_each_output_bit_half_the_time() {
        const WORDS: u64 = 2000;
        for bit in 0..64 {
            let mut flips = [0u32; 64];
            for word in 0..WORDS {
                let word = mix(word ^ 0x1234_5678);
                let changed = mix(word) ^ mix(word ^ (1 << bit));
                for (place, count) in flips.iter_mut().enumerate() {
                    *count += (changed >> place) as u32 & 1;
                }
            }
            for count in flips {
                // Seven standard deviations of a fair coin.
                let deviation = (f64::from(count) - WORDS as f64 / 2.0).abs();
                assert!(deviation < 7.0 * (WORDS as f64 / 4.0).sqrt(), "bit {bit}: {count}");
            }
        }
    }
}
