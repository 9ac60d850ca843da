//! `outlier` measures outlier features in large language models, scripted in Rhai. See ARCHITECTURE.md.

pub mod cli;
pub mod cuda;
pub mod disk;
pub mod error;
pub mod gpu;
pub mod home;
pub mod host;
pub mod hub;
pub mod memory;
pub mod model;
pub mod outside;
pub mod plain;
pub mod plot;
pub mod progress;
pub mod record;
pub mod remote;
pub mod results;
pub mod secret;
pub mod session;
pub mod stats;
pub mod suggest;
pub mod terminal;
pub mod threads;
pub mod words;
