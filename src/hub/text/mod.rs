//! The documents of a text file or of a dataset on the hub, in each format that is read.

pub(super) mod dataset;
pub(super) mod documents;
pub(super) mod failure;
pub(super) mod formats;
pub(super) mod json;
pub(super) mod json_sequence;
pub(super) mod json_values;
pub(super) mod lines;
pub(super) mod markup;
pub(super) mod parquet_checks;
pub(super) mod parquet_text;
pub(super) mod records;
pub(super) mod spooled;
pub(super) mod table;
pub(super) mod tabular;
pub(super) mod text_file;
pub(super) mod texts;
pub(super) mod unpack;
