//! One run of a script: its shared state, its permissions to read and write, the modules that it
//! imports, and the record of effects that a plan or a test has in place of performing them.

pub(crate) mod context;
pub(crate) mod imports;
pub(crate) mod modules;
pub(crate) mod places;
pub(crate) mod reads;
pub(crate) mod stage;
pub(crate) mod thread_log;
pub(crate) mod unsaved;
