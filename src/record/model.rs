//! What a loaded model and a set of token sequences are called and where they came from, and what a run measured.

use serde::{Deserialize, Serialize};

use super::number;

/// Arithmetic of the forward pass. The residual stream and every sum are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    F32,
    Bf16,
}

impl ComputeDtype {
    pub fn name(self) -> &'static str {
        match self {
            ComputeDtype::F32 => "f32",
            ComputeDtype::Bf16 => "bf16",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            ComputeDtype::F32 => 4,
            ComputeDtype::Bf16 => 2,
        }
    }
}

/// One file of a checkpoint, for provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    pub name: String,
    pub bytes: u64,
    /// What `digest` is of: `"sha256"` of the whole file, or `"sha256 of header"` for large weight files.
    pub kind: String,
    pub digest: String,
}

/// A way in which weights of a model are stored, and how many are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAs {
    /// A type of plain numbers, such as "BF16", or a format in words.
    pub format: String,
    pub parameters: u64,
}

/// A model as loaded: enough to open it again and to say in a result what was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// As the user wrote it: a hub id or a folder.
    pub id: String,
    /// The hub's commit, when it came from the hub.
    pub revision: Option<String>,
    pub model_type: String,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub vocab_size: usize,
    /// Routed experts per layer, 0 for a dense model.
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Parameters in the tensors the model uses.
    pub parameters: u64,
    /// Of them those that one token multiplies with, without embeddings and head.
    #[serde(default)]
    pub active_parameters: u64,
    /// Bytes of those tensors as stored.
    pub weight_bytes: u64,
    /// How they are stored, most of them first.
    #[serde(default)]
    pub weights_stored_as: Vec<StoredAs>,
    pub dtype: ComputeDtype,
    pub device: String,
    /// How many layers of weights may be in memory at once.
    pub chunk_layers: usize,
    /// True for the program's own synthetic models.
    pub synthetic: bool,
    pub files: Vec<FileHash>,
}

/// Token sequences of equal length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// `[num_sequences][sequence_length]`
    pub ids: Vec<Vec<u32>>,
    pub info: TokensInfo,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensInfo {
    /// The file that the sequences came from, or `Tokens::SCRIPT`.
    pub source: String,
    /// The hub's commit, when they came from a dataset there.
    #[serde(default)]
    pub revision: Option<String>,
    pub num_sequences: usize,
    pub sequence_length: usize,
    /// SHA-256 over the ids as little-endian u32, row by row.
    pub sha256: String,
}

impl Tokens {
    /// The source of ids that a script has written itself.
    pub const SCRIPT: &str = "script";
}

/// What a run measured of itself. The only part of a result that may differ between two equal runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    #[serde(with = "number")]
    pub wall_seconds: f64,
    /// Seconds the forward pass stood still because weights had not arrived.
    #[serde(with = "number")]
    pub waited_for_weights_seconds: f64,
    /// Seconds in which nothing was read because enough weights were waiting: reading was ahead of computing.
    #[serde(default, with = "number")]
    pub waited_for_compute_seconds: f64,
    /// Bytes of tensor data read from the checkpoint.
    pub bytes_read: u64,
    /// Bytes of the tensors (and embedding rows) that this analysis needs.
    pub bytes_needed: u64,
    /// Bytes read over the time in which a read was in flight.
    #[serde(default, with = "number")]
    pub read_bytes_per_second: f64,
    #[serde(with = "number")]
    pub tokens_per_second: f64,
    /// Peak resident memory of the process during the run, bytes.
    pub peak_memory_bytes: u64,
    /// The most memory of a GPU that was in use at once, of the fullest where there are several; 0 on a CPU.
    #[serde(default)]
    pub peak_vram_bytes: u64,
    /// Layers that were done when this run took over from one that had been cut off. Everything else here is of this run.
    #[serde(default)]
    pub resumed_at_layer: Option<usize>,
    /// Bytes of tensor data that the runs before this one had read for the layers they had done.
    #[serde(default)]
    pub bytes_read_before: u64,
    /// RFC 3339, UTC.
    pub completion_time: String,
    /// Provider and GPU of the machine it ran on; empty here.
    #[serde(default)]
    pub machine: String,
    /// What the machine had cost when the run was done, its start included, USD.
    #[serde(default, with = "number")]
    pub machine_cost_usd: f64,
}

impl Measurements {
    /// All of it that is measured in fractions, by name: finite and not negative in a run that really was.
    pub fn measured(&self) -> [(&'static str, f64); 6] {
        [
            ("wall_seconds", self.wall_seconds),
            ("waited_for_weights_seconds", self.waited_for_weights_seconds),
            ("waited_for_compute_seconds", self.waited_for_compute_seconds),
            ("read_bytes_per_second", self.read_bytes_per_second),
            ("tokens_per_second", self.tokens_per_second),
            ("machine_cost_usd", self.machine_cost_usd),
        ]
    }
}

/// Where a synthetic model with known answers is, and what was planted in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miniature {
    pub path: String,
    /// The text that it reads.
    pub text: String,
    /// Feature dimensions that must pass the default criterion, ascending.
    pub expected_dims: Vec<usize>,
    pub expected_classification: String,
}
