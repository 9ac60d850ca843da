//! Result folders: what is written, atomically, and read back.

pub mod atomic;
mod full_activations;

pub use full_activations::FullActivations;
