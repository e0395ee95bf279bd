//! The kernels' sources, carried in the library.

/// One file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, without its ending.
    pub name: &'static str,
    /// Its text; `HEADER` stands before it.
    pub text: &'static str,
}

/// What every source begins with.
pub const HEADER: &str = include_str!("../kernels/device.h");

/// What stands before that where kernels run on the processor.
pub const EMULATOR: &str = include_str!("../kernels/emulator.h");

macro_rules! sources {
    ($($constant:ident = $name:literal),* $(,)?) => {
        $(
            #[doc = concat!("`kernels/", $name, ".hip`.")]
            pub const $constant: Source =
                Source { name: $name, text: include_str!(concat!("../kernels/", $name, ".hip")) };
        )*
        /// Every source.
        pub const ALL: &[Source] = &[$($constant),*];
    };
}

sources! {
    BASICS = "basics",
    ELEMENTWISE = "elementwise",
    DROPOUT = "dropout",
    REDUCTIONS = "reductions",
    SELECTION = "selection",
    MOVEMENT = "movement",
    NORMALISATION = "normalisation",
    LAYER_NORM = "layer_norm",
    GATES = "gates",
    SOFTMAX = "softmax",
    ORDER = "order",
    ROWS = "rows",
    CONTEXTS = "contexts",
    MIXING = "mixing",
    OPTIMISERS = "optimisers",
    SPARSE = "sparse",
    ROPE = "rope",
    CONVOLUTION = "convolution",
    SCAN = "scan",
    RECURRENCE = "recurrence",
    ATTENTION = "attention",
    SYNCHRONISATION = "synchronisation",
    TOKENS = "tokens",
    SYNAPSE = "synapse",
    NEURONS = "neurons",
    THOUGHT = "thought",
    LATTICE = "lattice",
    WALK = "walk",
}

impl Source {
    /// The whole text, as the run-time compiler gets it.
    pub fn whole(&self) -> String {
        format!("{HEADER}\n#line 1 \"{}.hip\"\n{}", self.name, self.text)
    }
}
