//! The resources that an analysis needs, estimated from a config and, if available, from the
//! headers of the weight files.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimateArgs {
    pub num_sequences: usize,
    pub sequence_length: usize,
    pub memory_budget: u64,
    pub logits: bool,
    /// Number of GPUs that share the sequences.
    #[serde(default = "one")]
    pub gpus: usize,
}

fn one() -> usize {
    1
}

/// An estimate. All sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub id: String,
    pub model_type: String,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub parameters: u64,
    /// Stored size of the tensors that the model uses, which are downloaded.
    pub download_bytes: u64,
    /// The most that this analysis reads of them, if every expert and every embedding row is used.
    pub read_bytes: u64,
    /// Size of the largest layer, loaded in the compute dtype.
    pub layer_bytes: u64,
    /// The most weights in memory at the same time: those in use and those read ahead.
    pub resident_weight_bytes: u64,
    /// The residual stream and, for a mixture of experts, the norm output of all tokens.
    pub hidden_bytes: u64,
    /// The statistics of the norm outputs while the pass runs.
    pub tap_bytes: u64,
    pub workspace_bytes: u64,
    /// The peak of memory, including the program itself.
    pub total_bytes: u64,
    /// On GPUs: the peak of memory on each of them.
    #[serde(default)]
    pub vram_bytes: u64,
    /// Floating-point operations of the prefill, two per multiply-add.
    pub flops: f64,
}
