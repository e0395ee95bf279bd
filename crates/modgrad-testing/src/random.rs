//! Seeded operands, all exact in bf16, so that each precision starts equal.
//!
//! Floats are multiples of 1/64 below 4 in size: eight significant bits. None
//! is 0, which keeps finite differences away from the kinks of relu and abs.

use modgrad_graph::DType;
use modgrad_graph::reference::Array;

/// One operand of a row.
#[derive(Clone, Debug)]
pub struct Operand {
    pub array: Array,
    pub dtype: DType,
}

impl Operand {
    pub fn f32(array: Array) -> Operand {
        Operand { array, dtype: DType::F32 }
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// Multiples of 1/64, from `least` to `most` of them, of either sign where
    /// `signed`.
    fn multiples(&mut self, shape: &[usize], least: u64, most: u64, signed: bool) -> Operand {
        Operand::f32(Array::from_fn(shape, |_| {
            let size = (least + self.below(most - least + 1)) as f64 / 64.0;
            if signed && self.below(2) == 0 { -size } else { size }
        }))
    }

    /// ±1/64 to ±2.
    pub fn floats(&mut self, shape: &[usize]) -> Operand {
        self.multiples(shape, 1, 128, true)
    }

    /// 0.5 to 2.5.
    pub fn positive(&mut self, shape: &[usize]) -> Operand {
        self.multiples(shape, 32, 160, false)
    }

    /// ±0.5 to ±2.5.
    pub fn away_from_zero(&mut self, shape: &[usize]) -> Operand {
        self.multiples(shape, 32, 160, true)
    }

    /// −1 to 1, for what is multiplied over and over.
    pub fn small(&mut self, shape: &[usize]) -> Operand {
        self.multiples(shape, 1, 64, true)
    }

    /// Odd multiples of 1/64 where `odd`, else even ones: two such operands are
    /// nowhere equal.
    pub fn of_parity(&mut self, shape: &[usize], odd: bool) -> Operand {
        Operand::f32(Array::from_fn(shape, |_| {
            let half = self.below(60) as f64 + 1.0;
            let size = (2.0 * half + if odd { 1.0 } else { 0.0 }) / 64.0;
            if self.below(2) == 0 { -size } else { size }
        }))
    }

    /// No two elements of one axis are equal, up to 500 of them.
    pub fn distinct(&mut self, shape: &[usize]) -> Operand {
        let mut place = self.below(509);
        Operand::f32(Array::from_fn(shape, |_| {
            place = (place + 37) % 509;
            (place as f64 - 254.0) / 64.0
        }))
    }

    /// Indices below `size`.
    pub fn indices(&mut self, shape: &[usize], size: u64, dtype: DType) -> Operand {
        Operand { array: Array::from_fn(shape, |_| self.below(size) as f64), dtype }
    }

    /// Words, spaces, lines and bytes of UTF-8 letters.
    pub fn text(&mut self, shape: &[usize]) -> Operand {
        const BYTES: &[u8] = b"aAbB09 .\n\xc3\xa9\xff\x00";
        let byte = |_: &[usize]| f64::from(BYTES[self.below(BYTES.len() as u64) as usize]);
        Operand { array: Array::from_fn(shape, byte), dtype: DType::U8 }
    }
}
