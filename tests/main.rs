//! All integration tests: a table of contents. Fixtures and how they were made: `fixtures/README.md`.

// What modules of a test show to each other is public to nobody else.
#![allow(unreachable_pub)]

/// Tools: safetensors and PyTorch files to damage, a GPU, a hub to fetch from, a RunPod to rent from, a machine to log in to, a worker
/// that lies, and a project folder in which the program runs; JSON schemas.
mod checkpoint;
mod emulated_gpu;
mod fake_hub;
#[allow(dead_code)] // the drill uses the rest of it
mod fake_runpod;
#[allow(dead_code)] // fuzzers use the rest of it
mod hostile_worker;
mod project;
mod pytorch;
mod schema;
#[allow(dead_code)]
mod sshd;
mod terminal;

/// The rules of the house, read off the source; and what its pages say.
mod pages;
mod source_tree;
mod tidy;

/// The engine on emulated GPUs, here and on other machines; the kernels, which are committed as a compiler made them; and what of
/// them is not started.
mod gpu;
mod kernels;
mod launches;
/// Numbers against Hugging Face transformers: small fixtures of every architecture, and a trained model; and against
/// candle-transformers.
mod observers;
mod oracle;
mod precision;
mod quantised;
mod quantised_integers;
mod quantised_random;
mod real_configs;
mod second_opinion;
mod shakespeare;
/// Those that it has no place for.
mod unused_weights;
/// Which of the tensors of a folder are the model's.
mod which_weights;

/// Models in PyTorch files, and files that mean ill.
mod pytorch_files;

/// Texts far longer than what is made of them.
mod long_text;
/// Text to token ids, against the Python package tokenizers.
mod text;

/// What scripts can say, how they fail, how they run side by side.
mod command_line;
mod compare_quantised;
mod completions;
mod defaults;
mod diagnostics;
mod doctor;
mod exit_codes;
mod first_steps;
mod imports;
mod limits;
mod mistakes;
mod narrow;
mod output;
mod parallel;
mod script_host;
mod words;

/// What surrounds scripts: documentation, check, test, plan, the prompt; and what scripts cannot do.
mod plan;
mod prompt;
mod security;
mod tools;

/// Bad input: each a clear error with a hint, no crash, no partial result that looks whole.
mod bad_models;
mod bad_options;
mod bad_results;
mod bad_tokens;
mod hardening;
mod model_spellings;
mod other_formats;
mod outside_files;
mod padding;

/// Result folders: written, replaced, read back, equal for equal runs; by several runs at once, killed, on a full disk; and
/// where anything may be written at all.
mod belongs;
mod replacing;
mod results;
mod saving;
mod writing;

/// Other questions to a stored record; tables, figures, reports and exports of all of them.
mod first_model;
mod perplexity;
mod reports;
mod rethreshold;

/// The result does not depend on how the work was cut.
mod invariance;

/// Ctrl-C.
mod interrupt;

/// Runs that are cut off inside a model or behind it, and the next one that goes on.
mod resume;
mod unsaved;

/// Memory that does not grow with the layers, and no byte read that is not needed.
mod streaming;

/// Announced and measured memory.
mod estimate;

/// Miniature models: what they compute, and end to end with scripts/sweep.rhai and one script per model.
mod miniatures;
mod sweep;

/// Models from the hub: the cache and what the hub refuses; downloads that go on where they stopped; models that are read
/// without being downloaded; datasets; and hubs that mean ill.
mod dataset;
mod foreign;
mod formats;
mod hub;
mod hub_download;
mod hub_stream;
mod hub_trust;
mod hub_unreachable;
mod markup;
mod user_cache;

/// The same work on other machines: over SSH, on rented ones, and in jobs of a Slurm cluster.
mod login_shells;
mod own_machines;
mod runpod;
mod slurm;
mod slurm_cluster;
mod slurm_silent;
mod ssh;
/// Names of machines as people write them, and whose host keys are known.
mod ssh_names;

/// What hostile machines and scripts cannot do, and what those who share a home folder or a ledger do not do to each other.
mod this_computer;
mod trust;
/// What a machine that lies can do to the run that uses it.
mod wire;
/// The end of a connection on such a machine: it looks after itself, whatever becomes of worker and client, and lets only its
/// own user in.
mod worker;
