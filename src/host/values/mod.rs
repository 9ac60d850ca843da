//! The values of scripts: option maps as they are read, the handles that stand for models, tokens,
//! records and machines, and values laid out as text.

pub(crate) mod candidate;
pub(crate) mod declaration;
pub(crate) mod findings;
pub(crate) mod gpu;
pub mod grid;
pub(crate) mod handles;
pub(crate) mod layout;
pub(crate) mod option_sets;
pub(crate) mod option_types;
pub(crate) mod options;
pub(crate) mod readable;
pub(crate) mod shapes;
pub(crate) mod sites;
