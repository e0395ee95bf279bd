//! A vector of f32, for each instruction set.
//!
//! The compiler does not keep a two-dimensional array of sums in registers, so
//! the tiles ask for it in these terms. A type for x86 is only used by code
//! that runs after its instruction set was found, compiled for it.

/// Some f32 that are added and multiplied at once.
pub(crate) trait Vector: Copy {
    /// How many.
    const LANES: usize;
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// The first LANES elements.
    fn load(from: &[f32]) -> Self;
    /// Writes the first LANES elements.
    fn store(self, to: &mut [f32]);
    /// self + a * b, rounded once where the instruction set can.
    fn multiply_add(self, a: Self, b: Self) -> Self;
    /// The sum.
    fn add(self, other: Self) -> Self;
    /// The product.
    fn multiply(self, other: Self) -> Self;
    /// The greater in each lane; `self` where they do not compare.
    fn max(self, other: Self) -> Self;

    /// The sum of the lanes, in halves.
    #[inline(always)]
    fn sum_across(self) -> f32 {
        let mut lanes = [0.0f32; 16];
        self.store(&mut lanes);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The sums of the lanes of each of sixteen vectors.
    #[inline(always)]
    fn sums_across(vectors: [Self; 16]) -> [f32; 16] {
        vectors.map(Self::sum_across)
    }

    /// The bits of each lane shifted left by 23: its low 8 bits become the
    /// exponent.
    fn low_bits_to_exponent(self) -> Self;

    /// e^x for x up to 1, relative error under 2e-7. Below -87 it stays at
    /// 1.6e-38, which a softmax's total, at least 1, does not notice.
    #[inline(always)]
    fn exp(self) -> Self {
        /// Adding this leaves the nearest integer, plus the exponent's bias of
        /// 127, in the low bits.
        const ROUND: f32 = 12_582_912.0 + 127.0; // 1.5 * 2^23
        let x = self.max(Self::splat(-87.0));
        let shifted = Self::splat(ROUND).multiply_add(x, Self::splat(std::f32::consts::LOG2_E));
        let whole = shifted.add(Self::splat(-ROUND));
        // ln 2 in two parts: the first has so few bits that the product is exact.
        let r = x.multiply_add(whole, Self::splat(-0.693_359_4));
        let r = r.multiply_add(whole, Self::splat(2.121_944_4e-4));
        // Minimax polynomial of Cephes expf on |r| <= ln(2)/2.
        let p = Self::splat(1.398_199_9e-3).multiply_add(r, Self::splat(1.987_569_1e-4));
        let p = Self::splat(8.333_452e-3).multiply_add(p, r);
        let p = Self::splat(4.166_579_6e-2).multiply_add(p, r);
        let p = Self::splat(1.666_666_5e-1).multiply_add(p, r);
        let p = Self::splat(0.5).multiply_add(p, r);
        let p = Self::splat(1.0).multiply_add(p, r);
        let p = Self::splat(1.0).multiply_add(p, r);
        p.multiply(shifted.low_bits_to_exponent())
    }
}

macro_rules! x86_vector {
    ($(#[$meta:meta])* $name:ident, $register:ident, $lanes:literal, $splat:ident, $load:ident,
     $store:ident, $multiply_add:ident, $add:ident, $multiply:ident, $max:ident, $to_integer:ident,
     $to_float:ident, $shift:ident $(, $more:item)?) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        #[derive(Clone, Copy)]
        pub(crate) struct $name(std::arch::x86_64::$register);

        #[cfg(target_arch = "x86_64")]
        impl Vector for $name {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$splat(value) })
            }

            #[inline(always)]
            fn load(from: &[f32]) -> Self {
                let from = &from[..$lanes];
                // SAFETY: LANES elements are there; the instruction set too.
                $name(unsafe { std::arch::x86_64::$load(from.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, to: &mut [f32]) {
                let to = &mut to[..$lanes];
                // SAFETY: LANES elements are there; the instruction set too.
                unsafe { std::arch::x86_64::$store(to.as_mut_ptr(), self.0) }
            }

            #[inline(always)]
            fn multiply_add(self, a: Self, b: Self) -> Self {
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$multiply_add(a.0, b.0, self.0) })
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$add(self.0, other.0) })
            }

            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$multiply(self.0, other.0) })
            }

            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                use std::arch::x86_64::{$shift, $to_float, $to_integer};
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { $to_float($shift::<23>($to_integer(self.0))) })
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // The instruction gives its second operand without an order.
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$max(other.0, self.0) })
            }

            $(#[inline(always)] $more)?
        }
    };
}

x86_vector! {
    /// AVX-512 F.
    Avx512Vector, __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
    _mm512_add_ps, _mm512_mul_ps, _mm512_max_ps, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_slli_epi32,
    fn sums_across(vectors: [Self; 16]) -> [f32; 16] {
        use std::arch::x86_64::*;
        // Loops and no closures: those would not be compiled for the instruction set.
        // SAFETY: only used where the instruction set was found.
        unsafe {
            // Pairs of vectors, then fours: a lane of 128 bits then holds a part of
            // the sum of each of four. Lanes are added last.
            let mut pairs = [_mm512_setzero_pd(); 8];
            for n in 0..8 {
                let (a, b) = (vectors[2 * n].0, vectors[2 * n + 1].0);
                let sum = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                pairs[n] = _mm512_castps_pd(sum);
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for n in 0..4 {
                let (a, b) = (pairs[2 * n], pairs[2 * n + 1]);
                let low = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                fours[n] = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
            }
            let mut eights = [_mm512_setzero_ps(); 2];
            for n in 0..2 {
                let (a, b) = (fours[2 * n], fours[2 * n + 1]);
                let even = _mm512_shuffle_f32x4::<0x88>(a, b);
                eights[n] = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
            let [a, b] = eights;
            let even = _mm512_shuffle_f32x4::<0x88>(a, b);
            let total = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0xdd>(a, b));
            let mut sums = [0.0f32; 16];
            _mm512_storeu_ps(sums.as_mut_ptr(), total);
            sums
        }
    }
}
x86_vector! {
    /// AVX2 with FMA.
    Avx2Vector, __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
    _mm256_add_ps, _mm256_mul_ps, _mm256_max_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_slli_epi32
}

/// Four f32 in plain Rust. NEON multiplies and adds in one instruction; SSE2
/// would call a slow function for it.
#[derive(Clone, Copy)]
pub(crate) struct PortableVector([f32; 4]);

impl Vector for PortableVector {
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        PortableVector([value; 4])
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        PortableVector(*from.first_chunk().expect("a full vector"))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        *to.first_chunk_mut().expect("a full vector") = self.0;
    }

    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        let mut sums = self.0;
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = if cfg!(target_arch = "aarch64") {
                a.0[n].mul_add(b.0[n], *sum)
            } else {
                a.0[n] * b.0[n] + *sum
            };
        }
        PortableVector(sums)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let mut sums = self.0;
        for (sum, other) in sums.iter_mut().zip(other.0) {
            *sum += other;
        }
        PortableVector(sums)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        let mut greatest = self.0;
        for (greatest, other) in greatest.iter_mut().zip(other.0) {
            *greatest = if other > *greatest { other } else { *greatest };
        }
        PortableVector(greatest)
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        let mut products = self.0;
        for (product, other) in products.iter_mut().zip(other.0) {
            *product *= other;
        }
        PortableVector(products)
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        let mut powers = self.0;
        for power in &mut powers {
            *power = f32::from_bits(power.to_bits() << 23);
        }
        PortableVector(powers)
    }
}
