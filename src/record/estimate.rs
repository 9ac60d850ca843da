//! The resources that an analysis needs, estimated from a config and, if available, from the
//! headers of the weight files.

use serde::{Deserialize, Serialize};

use super::option::{defaults, option_set};
use super::option_types::{Beside, Flag, OfMachine, Positive, Whole};
use super::{ExtractArgs, Logits, MeasureArgs, MemoryBudget, TokensInfo};

option_set! {
    /// The size of an analysis, with the options of estimate_vram.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct EstimateArgs {
        /// sequences of the analysis
        num_sequences: Positive = 16;
        /// tokens per sequence
        sequence_length: Positive = 2048;
        memory_budget: MemoryBudget;
        logits: Logits;
        /// GPUs that share the sequences; vram_bytes is what each needs
        #[serde(default = "one")]
        gpus: OfMachine<Positive> = 1;
        /// lanes beside the model as it is: docs/lanes.md
        #[serde(default)]
        lanes: Whole = 0;
        /// whether a lane rounds or changes weights
        #[serde(default)]
        lane_weights: Flag = false;
        /// What is measured beside the ladders of norms.
        #[serde(default, skip_serializing_if = "MeasureArgs::is_default")]
        measure: Beside<MeasureArgs>;
    }
}

impl EstimateArgs {
    /// The size of an extraction. It and its estimate have options in common, which mean the same.
    pub fn of(extraction: &ExtractArgs, tokens: &TokensInfo) -> Self {
        let ExtractArgs { memory_budget, logits, .. } = *extraction;
        let (lanes, lane_weights) = (extraction.lanes.lanes.len(), extraction.lanes.change_weights());
        let TokensInfo { num_sequences, sequence_length, .. } = *tokens;
        let measure = extraction.measure.clone();
        Self {
            num_sequences,
            sequence_length,
            memory_budget,
            logits,
            lanes,
            lane_weights,
            measure,
            ..defaults::<Self>()
        }
    }
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
    /// The statistics of the norm outputs while the pass runs, and what else is measured.
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
