//! `outlier` measures outlier features in large language models, scripted in Rhai. See ARCHITECTURE.md.

pub mod error;
pub mod hub;
pub mod memory;
pub mod model;
pub mod progress;
pub mod record;
pub mod results;
pub mod session;
pub mod stats;
pub mod suggest;
