//! Identity and origin of a loaded model and of a set of token sequences, and the measurements of a
//! run.

use serde::{Deserialize, Serialize};

use super::number;
use super::option_types::Word;

/// Arithmetic of the forward pass. The residual stream and all sums are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    F32,
    Bf16,
}

impl Word for ComputeDtype {
    const WORDS: &'static [(&'static str, Self)] = &[("f32", Self::F32), ("bf16", Self::Bf16)];
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
    /// The meaning of `digest`: `"sha256"` of the whole file, or `"sha256 of header"` for large
    /// weight files.
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

/// A loaded model: enough to open it again and to identify it in a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The hub id or folder, as the user wrote it.
    pub id: String,
    /// The hub's commit, if the model is from the hub.
    pub revision: Option<String>,
    pub model_type: String,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub vocab_size: usize,
    /// Routed experts per layer, 0 for a dense model.
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Number of parameters in the tensors that the model uses.
    pub parameters: u64,
    /// The part of `parameters` that one token multiplies with, without embeddings and head.
    #[serde(default)]
    pub active_parameters: u64,
    /// Stored size of those tensors in bytes.
    pub weight_bytes: u64,
    /// How they are stored, most of them first.
    #[serde(default)]
    pub weights_stored_as: Vec<StoredAs>,
    pub dtype: ComputeDtype,
    pub device: String,
    /// Number of layers whose weights may be in memory at the same time.
    pub chunk_layers: usize,
    /// True for the synthetic models of this program.
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
    /// The file of the sequences, or `Tokens::SCRIPT`.
    pub source: String,
    /// The hub's commit, if the sequences are from a dataset there.
    #[serde(default)]
    pub revision: Option<String>,
    pub num_sequences: usize,
    pub sequence_length: usize,
    /// SHA-256 of the ids as little-endian u32, row by row. Empty if there are `parts`, whose ids
    /// are not in the record.
    pub sha256: String,
    /// Of a record that was cut or joined: which sequences of which tokens it has, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TokensPart>,
}

/// Some sequences of one set of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensPart {
    /// Origin, commit, hash and number of sequences of the set, as in `TokensInfo`.
    pub source: String,
    #[serde(default)]
    pub revision: Option<String>,
    pub sha256: String,
    pub num_sequences: usize,
    /// Which of them, counted from 0, in the order of the record.
    pub sequences: Vec<usize>,
}

impl Tokens {
    /// The source of ids that are written in a script.
    pub const SCRIPT: &str = "script";
}

/// The measurements of a run. This is the only part of a result that may differ between two equal
/// runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    #[serde(with = "number")]
    pub wall_seconds: f64,
    /// Seconds in which the forward pass waited for weights.
    #[serde(with = "number")]
    pub waited_for_weights_seconds: f64,
    /// Seconds in which the reading threads waited, because enough weights were read ahead.
    #[serde(default, with = "number")]
    pub waited_for_compute_seconds: f64,
    /// Bytes of tensor data read from the checkpoint.
    pub bytes_read: u64,
    /// Bytes of the tensors (and embedding rows) that this analysis needs.
    pub bytes_needed: u64,
    /// Bytes read, divided by the time in which a read was in flight.
    #[serde(default, with = "number")]
    pub read_bytes_per_second: f64,
    #[serde(with = "number")]
    pub tokens_per_second: f64,
    /// Peak resident memory of the process during the run, in bytes.
    pub peak_memory_bytes: u64,
    /// Peak of used GPU memory in bytes, the largest of all GPUs; 0 on a CPU.
    #[serde(default)]
    pub peak_vram_bytes: u64,
    /// Number of layers that earlier, interrupted runs completed. All other measurements are of
    /// this run alone.
    #[serde(default)]
    pub resumed_at_layer: Option<usize>,
    /// Bytes of tensor data that earlier runs read for the layers they completed.
    #[serde(default)]
    pub bytes_read_before: u64,
    /// Time of completion in RFC 3339, UTC.
    pub completion_time: String,
    /// Provider and GPU of the machine; empty for this computer.
    #[serde(default)]
    pub machine: String,
    /// Cost of the machine until the end of the run, including its start, in USD.
    #[serde(default, with = "number")]
    pub machine_cost_usd: f64,
}

impl Measurements {
    /// The fractional measurements, by name: finite and not negative in every genuine run.
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

/// A synthetic model with known answers, and the features planted in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miniature {
    pub path: String,
    /// The text for this model.
    pub text: String,
    /// Feature dimensions that pass the default criterion, ascending.
    pub expected_dims: Vec<usize>,
    pub expected_classification: String,
}
