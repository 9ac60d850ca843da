//! The cache of models, which is that of the Python package: its layout and locks, what is in it,
//! and downloads into it.

pub(super) mod download;
pub(super) mod layout;
pub(super) mod repository;
