//! What an analysis will need, computed from a config and (where at hand) the headers of the weights.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimateArgs {
    pub num_sequences: usize,
    pub sequence_length: usize,
    pub memory_budget: u64,
    pub logits: bool,
    /// GPUs that share the sequences.
    #[serde(default = "one")]
    pub gpus: usize,
}

fn one() -> usize {
    1
}

/// All sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub id: String,
    pub model_type: String,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub parameters: u64,
    /// Stored weights of the tensors the model uses: what is downloaded.
    pub download_bytes: u64,
    /// What this analysis reads of them at most (every expert used, every embedding row).
    pub read_bytes: u64,
    /// Largest layer as loaded in the compute dtype.
    pub layer_bytes: u64,
    /// Weights in memory at once, at most: what is at work and what is read ahead.
    pub resident_weight_bytes: u64,
    /// Residual stream and, for a mixture of experts, the norm output of all tokens.
    pub hidden_bytes: u64,
    /// The fold of norm outputs.
    pub tap_bytes: u64,
    pub workspace_bytes: u64,
    /// Sum of what is in memory at once, with the program itself.
    pub total_bytes: u64,
    /// On GPUs: what is in the memory of each at once.
    #[serde(default)]
    pub vram_bytes: u64,
    /// Multiply-add operations of the prefill, times two.
    pub flops: f64,
}
