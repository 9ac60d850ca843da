//! `outlier` measures outlier features in large language models, scripted in Rhai. See
//! ARCHITECTURE.md.

pub mod cli;
pub mod cuda;
pub mod disk;
pub mod engine;
pub mod error;
pub mod formats;
pub mod gemm;
pub mod gpu;
pub mod home;
pub mod host;
pub mod hub;
pub mod memory;
pub mod miniature;
pub mod ops;
pub mod outside;
pub mod plain;
pub mod plot;
pub mod progress;
pub mod record;
pub mod reference;
pub mod remote;
pub mod results;
pub mod secret;
pub mod session;
pub mod spec;
pub mod stats;
pub mod suggest;
pub mod tensor;
pub mod terminal;
pub mod text;
pub mod threads;
pub mod vector;
pub mod vocabulary;
pub mod weights;
pub mod words;
