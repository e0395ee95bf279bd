//! Storage types of floating-point tensors: arithmetic is always in f32.

use half::bf16;
#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

/// A storage type that kernels read and write as f32.
pub trait Element: Copy + Send + Sync + 'static {
    /// The value as f32.
    fn to_f32(self) -> f32;
    /// The nearest value of this type, ties to even.
    fn from_f32(value: f32) -> Self;
    /// The bits of the nearest bf16.
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        bf16::from_f32(self.to_f32()).to_bits()
    }
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    /// Branch-free rounding, so that loops over it vectorise. A NaN stays a
    /// NaN: its quiet bit is set where rounding could carry it into infinity.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet_nan = (bits >> 16) | 0x40;
        let is_nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        bf16::from_bits(if is_nan { quiet_nan } else { rounded } as u16)
    }

    /// No rounding, which a compiler does not see through.
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        self.to_bits()
    }
}

/// The slice as what it is, where that is bf16: for kernels of one type.
#[cfg(target_arch = "x86_64")]
pub(crate) fn as_bf16<T: Element>(values: &[T]) -> Option<&[bf16]> {
    let same = TypeId::of::<T>() == TypeId::of::<bf16>();
    // SAFETY: the two types are one.
    same.then(|| unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
}

/// As [`as_bf16`], to write.
#[cfg(target_arch = "x86_64")]
pub(crate) fn as_bf16_mut<T: Element>(values: &mut [T]) -> Option<&mut [bf16]> {
    let same = TypeId::of::<T>() == TypeId::of::<bf16>();
    // SAFETY: the two types are one.
    same.then(|| unsafe {
        std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_agrees_with_half(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            let ours = <bf16 as Element>::from_f32(value);
            let theirs = bf16::from_f32(value);
            prop_assert_eq!(ours.is_nan(), theirs.is_nan());
            if !theirs.is_nan() {
                prop_assert_eq!(ours.to_bits(), theirs.to_bits());
            }
        }
    }
}
