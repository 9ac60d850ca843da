//! All integration tests: a table of contents. `fixtures/README.md` describes the fixtures and how
//! they were made.

// Items that modules of a test share are public to nobody else.
#![allow(unreachable_pub)]

/// Tools: safetensors, PyTorch and GGUF files to damage, emulated GPUs, a simulated hub and RunPod, an SSH
/// server, a worker that lies, a pseudo-terminal, and a project folder in which the program runs;
/// JSON schemas.
mod checkpoint;
mod emulated_gpu;
mod fake_hub;
#[allow(dead_code)] // the drill uses the rest of it
mod fake_runpod;
mod gguf_file;
#[allow(dead_code)] // fuzzers use the rest of it
mod hostile_worker;
mod project;
mod pytorch;
mod schema;
#[allow(dead_code)]
mod sshd;
mod terminal;

/// Rules for the source, and the claims of the pages.
mod pages;
mod source_tree;
mod tidy;

/// The engine on emulated GPUs, here and on other machines; each operation against that of the CPU; the
/// kernels and their committed PTX; and launches that are refused.
mod gpu;
mod gpu_at_work;
mod gpu_operations;
mod kernels;
/// Numbers against Hugging Face transformers, on small fixtures of every architecture and a trained
/// model, and against candle-transformers.
mod lane_scripts;
mod lanes;
mod launches;
mod measures;
mod measures_attribution;
mod measures_kept;
mod measures_weights;
mod observers;
mod oracle;
mod other_numbers;
mod precision;
mod quantised;
mod quantised_integers;
mod quantised_random;
mod real_configs;
mod second_opinion;
mod shakespeare;
/// Weights that the architecture does not use.
mod unused_weights;
/// The choice of a model's tensors in a folder.
mod which_weights;

/// Models in PyTorch and GGUF files, and malicious files.
mod gguf;
mod gguf_places;
mod pytorch_files;

/// Texts that are far longer than the sequences made of them.
mod long_text;
/// From text to token ids, against the Python package tokenizers.
mod text;
/// Texts with records, annotations or times in them.
mod text_kinds;

/// The language of scripts, their errors, and scripts that run in parallel.
mod closures;
mod command_line;
mod compare_quantised;
mod completions;
mod defaults;
mod diagnostics;
mod doctor;
mod exit_codes;
mod findings;
mod first_steps;
mod imports;
mod limits;
mod mistakes;
mod narrow;
mod output;
mod parallel;
mod script_host;
mod words;

/// The tools around scripts: documentation, check, test, plan, the prompt; and the limits of scripts.
mod plan;
mod prompt;
mod record_fields;
mod security;
mod tools;

/// Invalid input gives a clear error with a hint, no crash, and no partial result that looks
/// complete.
mod bad_models;
mod bad_options;
mod bad_results;
mod bad_tokens;
mod hardening;
mod model_spellings;
mod other_formats;
mod outside_files;
mod padding;

/// Result folders: written, replaced, read back, and equal for equal runs; by several runs at once,
/// by killed runs, and on a full disk; and the places where scripts may write.
mod belongs;
mod replacing;
mod results;
mod samples;
mod saving;
mod writing;

/// Further questions to a stored record, and tables, figures, reports and exports.
mod first_model;
mod hits;
mod own_criterion;
mod parts;
mod perplexity;
mod reports;
mod rethreshold;

/// The result does not depend on how the work was divided.
mod invariance;

/// Ctrl-C.
mod interrupt;

/// Runs that are interrupted in a model or after it, and the next run, which continues.
mod resume;
mod unsaved;

/// Memory does not grow with the layers, and only needed bytes are read.
mod streaming;

/// Estimated and measured memory.
mod estimate;

/// Miniature models, also end to end with scripts/sweep.rhai and the script of each model.
mod miniatures;
mod sweep;

/// Models from the hub: the cache and refusals; downloads that continue; models that are read without
/// a download; datasets; formats of files; and malicious hubs.
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
/// Names of machines as users write them, and their host keys.
mod ssh_names;

/// What malicious machines and scripts cannot do, and what users who share a home folder or a ledger
/// do not do to each other.
mod this_computer;
mod trust;
/// What a machine that lies can do to the run that uses it.
mod wire;
/// The other machine's side of a connection: it ends itself whatever happens to worker and client, and
/// is closed to other users.
mod worker;
