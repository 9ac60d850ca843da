//! Primitives of the script itself: its flags, control flow, output, logs, end and tests.

pub(crate) mod assertions;
pub(crate) mod ending;
pub(crate) mod flags;
pub(crate) mod flow;
pub(crate) mod logs;
pub(crate) mod show;
