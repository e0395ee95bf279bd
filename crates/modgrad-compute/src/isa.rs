//! Which instruction set the kernels use, decided once per process.
//!
//! `MODGRAD_ISA` (portable, avx2, avx512, avx512bf16, amx) lowers the choice,
//! so that each path can be tested on one machine. Asking for more than the
//! machine has is an error that `Isa::from_environment` returns in words.

use std::sync::OnceLock;

/// An instruction set, in rising order: each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compilation target guarantees (SSE2 on x86-64, NEON on ARM).
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
    /// Advanced Matrix Extensions: bf16 tiles.
    Amx,
}

impl Isa {
    /// Every instruction set, in rising order.
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name that `MODGRAD_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// The highest instruction set that this machine and its kernel allow.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
                return Isa::Portable;
            }
            if !(is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl"))
            {
                return Isa::Avx2;
            }
            if !is_x86_feature_detected!("avx512bf16") {
                return Isa::Avx512;
            }
            if amx::permitted() { Isa::Amx } else { Isa::Avx512Bf16 }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Portable
    }

    /// The machine's instruction set, lowered by `MODGRAD_ISA` where it is set.
    pub fn from_environment() -> Result<Isa, String> {
        let found = Isa::detect();
        let Ok(wanted) = std::env::var("MODGRAD_ISA") else {
            return Ok(found);
        };
        match Isa::ALL.into_iter().find(|isa| isa.name() == wanted) {
            Some(isa) if isa <= found => Ok(isa),
            Some(isa) => Err(format!(
                "MODGRAD_ISA={} asks for more than this machine has: {}",
                isa.name(),
                found.name()
            )),
            None => Err(format!(
                "MODGRAD_ISA={wanted} is not one of portable, avx2, avx512, avx512bf16, amx"
            )),
        }
    }

    /// The instruction set that the kernels of this process use.
    ///
    /// Falls back to what was detected when `MODGRAD_ISA` cannot be honoured;
    /// the extension refuses to load in that case, so that no one runs on a
    /// path that was not asked for.
    pub fn active() -> Isa {
        static ACTIVE: OnceLock<Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| Isa::from_environment().unwrap_or_else(|_| Isa::detect()))
    }
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::x86_64::__cpuid_count;

    /// Whether the processor has bf16 tiles and the kernel grants their state.
    pub(super) fn permitted() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        let features = __cpuid_count(7, 0).edx;
        features & AMX_BF16 != 0 && features & AMX_TILE != 0 && request_tile_data()
    }

    /// Linux grants the 8 KiB tile state on request, once for the process.
    #[cfg(target_os = "linux")]
    fn request_tile_data() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: arch_prctl with this code reads two integers and no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn request_tile_data() -> bool {
        false
    }
}

/// Compiles one generic body for each instruction set and calls the active one.
///
/// The body is plain Rust; LLVM vectorises it for the features that each copy
/// is compiled with. Everything it calls must be `#[inline(always)]`, or the
/// call falls back to code compiled for the baseline.
///
/// ```ignore
/// multiversion! {
///     /// Adds `y` to `x`.
///     pub fn add[T: Element](x: &[T], y: &[T], out: &mut [f32]) { ... }
/// }
/// ```
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident
        $([$($generic:ident : $bound:path),*])?
        ($($argument:ident : $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),*>)? ($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($generic: $bound),*>)? ($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($generic: $bound),*>)? ($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($generic: $bound),*>)? ($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                let isa = $crate::Isa::active();
                if isa >= $crate::Isa::Avx512 {
                    // SAFETY: the active set is at most what was detected.
                    return unsafe { avx512($($argument),*) };
                }
                if isa >= $crate::Isa::Avx2 {
                    // SAFETY: the active set is at most what was detected.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
