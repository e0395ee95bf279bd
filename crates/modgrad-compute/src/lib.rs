//! CPU kernels of modgrad, chosen at run time for the machine that is there.
//!
//! A kernel here works on plain slices and knows nothing of programs or
//! gradients; `modgrad-graph` calls it. Every kernel has the same result for a
//! given number of threads, whatever else the machine does.

pub mod attention;
pub mod convolution;
pub mod element;
pub mod gemm;
pub mod isa;
pub mod pool;
pub mod rope;
pub mod scan;

pub use element::Element;
pub use half::bf16;
pub use isa::Isa;
pub use pool::Pool;
