//! CPU kernels of modgrad, chosen at run time for the machine that is there.
//!
//! A kernel here works on plain slices and knows nothing of programs or
//! gradients; `modgrad-graph` calls it. Every kernel has the same result for a
//! given number of threads, whatever else the machine does.

pub mod attention;
pub mod convolution;
pub mod element;
pub mod elementwise;
pub mod embedding;
pub mod function;
pub mod gate;
pub mod gemm;
pub mod isa;
pub mod math;
pub mod movement;
pub mod norm;
pub mod optimiser;
pub mod pool;
pub mod prefetch;
pub mod recurrence;
pub mod reduce;
pub mod rope;
pub mod scan;
pub mod selection;
pub mod softmax;
pub mod thin;
mod vector;

#[cfg(test)]
mod testing;

pub use element::Element;
pub use half::bf16;
pub use isa::Isa;
pub use pool::Pool;
