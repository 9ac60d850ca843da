//! Primitives of statistics, which work on records only.

pub(crate) mod cells;
pub(crate) mod claims;
pub(crate) mod criteria;
pub(crate) mod detection;
pub(crate) mod hits;
pub(crate) mod index;
pub(crate) mod lanes;
pub(crate) mod measures;
pub(crate) mod own;
pub(crate) mod parts;
pub(crate) mod sweeps;
