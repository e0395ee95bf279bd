//! The loops of a Continuous Thought Machine (Darlow et al. 2025, arXiv
//! 2505.05522): what is too fine-grained to be ops of its own.
//!
//! [`thought`] runs all ticks of attention, synapse and neuron-level models in
//! one call, forward and back; [`spatial`] does so for neurons on a lattice, where
//! synapses are local; [`synchronisation`] reads pairs of neurons over
//! time. Gradients are exact, through every tick.

pub mod spatial;
pub mod synchronisation;
pub mod thought;
pub mod walk;

/// Panics unless a slice has the length that the sizes ask for.
fn check(op: &str, lengths: &[(&str, usize, usize)]) {
    for &(name, found, expected) in lengths {
        assert_eq!(found, expected, "`{op}`: length of {name}");
    }
}
