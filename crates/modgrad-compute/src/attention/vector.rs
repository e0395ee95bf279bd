//! A vector of f32, for each instruction set.
//!
//! The compiler does not keep a two-dimensional array of sums in registers, so
//! the tiles ask for it in these terms. A type for x86 is only used by code
//! that runs after its instruction set was found, compiled for it.

/// Some f32 that are added and multiplied at once.
pub(super) trait Vector: Copy {
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
    /// The greater in each lane; `self` where they do not compare.
    fn max(self, other: Self) -> Self;

    /// The sum of the lanes, halves folded onto each other.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut values = [0.0f32; MAXIMUM_LANES];
        self.store(&mut values);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for n in 0..half {
                values[n] += values[n + half];
            }
            half /= 2;
        }
        values[0]
    }

    /// The greatest of the lanes.
    #[inline(always)]
    fn greatest(self) -> f32 {
        let mut values = [0.0f32; MAXIMUM_LANES];
        self.store(&mut values);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for n in 0..half {
                let (a, b) = (values[n], values[n + half]);
                values[n] = if b > a { b } else { a };
            }
            half /= 2;
        }
        values[0]
    }
}

/// The most lanes that a vector has.
const MAXIMUM_LANES: usize = 16;

macro_rules! x86_vector {
    ($(#[$meta:meta])* $name:ident, $register:ident, $lanes:literal, $splat:ident, $load:ident,
     $store:ident, $multiply_add:ident, $add:ident, $max:ident) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        #[derive(Clone, Copy)]
        pub(super) struct $name(std::arch::x86_64::$register);

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
            fn max(self, other: Self) -> Self {
                // The instruction gives its second operand without an order.
                // SAFETY: only used where the instruction set was found.
                $name(unsafe { std::arch::x86_64::$max(other.0, self.0) })
            }
        }
    };
}

x86_vector! {
    /// AVX-512 F.
    Avx512Vector, __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
    _mm512_add_ps, _mm512_max_ps
}
x86_vector! {
    /// AVX2 with FMA.
    Avx2Vector, __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
    _mm256_add_ps, _mm256_max_ps
}

/// Four f32 in plain Rust. NEON multiplies and adds in one instruction; SSE2
/// would call a slow function for it.
#[derive(Clone, Copy)]
pub(super) struct PortableVector([f32; 4]);

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
}
