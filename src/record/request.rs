//! What can be asked of the engine, as plain data: the option maps of scripts end here.

use serde::{Deserialize, Serialize};

use super::ComputeDtype;

/// Default workspace beside weights and hidden states.
pub const DEFAULT_MEMORY_BUDGET: u64 = 1 << 30;
/// The layer at work and the one being read.
pub const DEFAULT_CHUNK_LAYERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadArgs {
    /// A folder, or a hub id `owner/name`.
    pub id: String,
    /// Branch, tag or commit on the hub.
    pub revision: Option<String>,
    pub dtype: ComputeDtype,
    pub device: String,
    pub chunk_layers: usize,
    /// Weights are read from the hub by ranges and not written to disk.
    #[serde(default)]
    pub stream: bool,
    /// Bytes of a GPU's memory that may be used; all that is free where it is not given.
    #[serde(default)]
    pub max_vram: Option<u64>,
}

/// Where token ids come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TokenSource {
    /// A JSON file holding an array of arrays of ids.
    IdsJson {
        path: String,
    },
    /// An integer tensor [sequences, positions] of a safetensors file.
    IdsSafetensors {
        path: String,
        tensor: String,
    },
    /// Ids given by the script.
    Ids {
        ids: Vec<Vec<u32>>,
    },
    Text(Box<TextArgs>),
}

/// A file of a dataset on the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetArgs {
    /// `owner/name`
    pub id: String,
    pub config: Option<String>,
    pub split: String,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Path of a file of texts within the dataset; the smallest one of config and split where none is named.
    pub file: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextArgs {
    /// Name of a file of texts, or of the dataset.
    pub path: String,
    pub dataset: Option<DatasetArgs>,
    /// The documents themselves, when they are not read from `path`.
    pub documents: Option<Brought>,
    /// Format of the file; told by its name and its first bytes where it is not given.
    pub format: Option<TextFormat>,
    /// Key of a JSON object, or column of a table, that holds the text; "text" where it is not given.
    pub column: Option<String>,
    /// Place that has `tokenizer.json`: a folder, or an address on the hub.
    pub tokenizer: String,
    pub num_sequences: usize,
    pub sequence_length: usize,
    /// Sequences passed over before the first one that is used.
    pub skip_sequences: usize,
    /// Seed of the random order of documents; in their own order without.
    pub shuffle: Option<u64>,
    /// Share of a window that the next one repeats, 0 to below 1.
    pub overlap: f64,
    /// Splits a text file into documents.
    pub separator: Option<String>,
    pub windows: Windows,
    /// Typographic quotes become ASCII ones before tokenising.
    pub straight_quotes: bool,
    /// Whether each sequence gets the special tokens that tokenizer.json adds (such as `<s>` in front).
    pub add_special_tokens: bool,
}

/// Documents that were read elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brought {
    /// In their order.
    pub documents: Vec<String>,
    /// They are consecutive pieces of one text.
    pub one_text: bool,
}

/// What a file of texts can be said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFormat {
    /// Plain text, whatever it looks like.
    Text,
    /// JSON Lines, or a JSON array or object.
    Json,
    /// A table with commas, semicolons or the like between cells.
    Csv,
    /// A table with tabs between cells.
    Tsv,
    /// A table in which quotes are characters like any other.
    Unquoted,
    Parquet,
}

/// How documents become sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Windows {
    /// All documents are one stream of tokens, which is cut.
    Tokens,
    /// As `Tokens`, but each window is turned back into text, the rest is cut as text, and both are tokenised again.
    Text,
    /// Each document gives one sequence, its first tokens.
    Documents,
}

/// What stays of the norm outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The folded record only.
    Stats,
    /// Also `activations.safetensors`, every value.
    Full,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtractArgs {
    /// Rungs of the ladder beside the default ones; all positive.
    pub thresholds: Vec<f32>,
    pub keep: Keep,
    /// Folder for `activations.safetensors`.
    pub out: Option<String>,
    pub logits: bool,
    /// Bytes of workspace beside weights and hidden states.
    pub memory_budget: u64,
    /// None: a run that is cut off starts again.
    pub checkpoint: Option<CheckpointArgs>,
}

/// How a run that is cut off is to be continued by the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointArgs {
    /// The file, relative to the project's folder on the machine where the work runs.
    pub path: String,
    /// Layers between two checkpoints; None: often enough to lose little, seldom enough to cost little.
    pub layers: Option<usize>,
}

impl Default for ExtractArgs {
    fn default() -> Self {
        let memory_budget = DEFAULT_MEMORY_BUDGET;
        Self { thresholds: Vec::new(), keep: Keep::Stats, out: None, logits: false, memory_budget, checkpoint: None }
    }
}

/// Tokens of one analysis, in all: their residual stream alone would fill the memory of any machine.
pub const MAX_TOKENS: usize = 1 << 28;

/// Rungs every record has, so that another threshold needs no second run: fine where thresholds are usually chosen, then
/// by factors of about 1.4.
pub const DEFAULT_LADDER: [f32; 22] = [
    3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0,
    512.0, 1024.0,
];
