//! Where work runs: one plain request in, one plain reply out. Scripts never see which machine answered.

mod local;
mod op;

pub use local::Local;
pub use op::{Op, Reply};
