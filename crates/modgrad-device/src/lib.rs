//! Programs on GPUs.
//!
//! [`Device`] implements `modgrad_graph`'s backend over a [`driver::Driver`], which
//! compiles `kernels/*.hip` at run time for the card that is there and launches them.
//! Nothing of a vendor's is linked: a machine without a GPU library runs all that does not
//! ask for one. [`emulated`] runs the same kernels on the processor, for tests.
//!
//! Reading order: `driver`, `launch`, `device`, `ops/elementwise` and its kernel.

mod backend;
pub mod cache;
mod card;
mod compiler;
pub mod cuda;
pub mod device;
pub mod driver;
pub mod emulated;
pub mod hip;
pub mod launch;
mod library;
pub mod memory;
mod muon;
mod ops;
mod optimisers;
mod order;
pub mod peak;
mod products;
pub mod source;
mod sparse;
mod stages;
pub mod vendor;

pub use device::Device;
pub use memory::{Memory, peak_bytes};
