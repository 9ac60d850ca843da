//! Requests to the engine as plain data, made from the option maps of scripts.

use serde::{Deserialize, Serialize};

use super::ComputeDtype;

/// Default size of the workspace in bytes, without weights and residual stream.
pub const DEFAULT_MEMORY_BUDGET: u64 = 1 << 30;
/// By default the weights of two layers are in memory: the current one and the next, which is being
/// read.
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
    /// True if weights are read from the hub by byte ranges and not written to disk.
    #[serde(default)]
    pub stream: bool,
    /// Limit of GPU memory in bytes; all free memory by default.
    #[serde(default)]
    pub max_vram: Option<u64>,
}

/// The source of token ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TokenSource {
    /// A JSON file with an array of arrays of ids.
    IdsJson {
        path: String,
    },
    /// An integer tensor [sequences, positions] in a safetensors file.
    IdsSafetensors {
        path: String,
        tensor: String,
    },
    /// Ids written in the script.
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
    /// A branch, tag or commit.
    pub revision: Option<String>,
    /// Path of a text file within the dataset. By default the smallest file of the config and
    /// split.
    pub file: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextArgs {
    /// Name of the text file or of the dataset.
    pub path: String,
    pub dataset: Option<DatasetArgs>,
    /// The documents, if they are not read from `path`.
    pub documents: Option<Brought>,
    /// Format of the file. By default it is recognised by the file's name and first bytes.
    pub format: Option<TextFormat>,
    /// The key of a JSON object, or the column of a table, with the text. "text" by default.
    pub column: Option<String>,
    /// The location of `tokenizer.json`: a folder, or a hub id.
    pub tokenizer: String,
    pub num_sequences: usize,
    pub sequence_length: usize,
    /// Number of sequences that are skipped before the first used one.
    pub skip_sequences: usize,
    /// Seed for the shuffling of documents. Without it they keep their order.
    pub shuffle: Option<u64>,
    /// Share of a window that the next window repeats, at least 0 and less than 1.
    pub overlap: f64,
    /// Separator of the documents in a text file.
    pub separator: Option<String>,
    pub windows: Windows,
    /// True if typographic quotes become ASCII quotes before tokenisation.
    pub straight_quotes: bool,
    /// True if each sequence gets the special tokens that tokenizer.json adds, such as `<s>` at the
    /// start.
    pub add_special_tokens: bool,
}

impl TextArgs {
    /// True for texts that a script gives, and that are not read from a file or a dataset.
    pub fn is_given(&self) -> bool {
        self.documents.is_some() && self.path == super::Tokens::SCRIPT
    }
}

/// Documents that a script has read or made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brought {
    /// The documents in their order.
    pub documents: Vec<String>,
    /// True if they are consecutive pieces of one text.
    pub one_text: bool,
}

/// A format of text files that can be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFormat {
    /// Plain text, even if it looks like another format.
    Text,
    /// JSON Lines, or a JSON array or object.
    Json,
    /// A table with a comma, semicolon or similar between cells.
    Csv,
    /// A table with tabs between cells.
    Tsv,
    /// A table in which quotes are characters like any other.
    Unquoted,
    Parquet,
}

/// The way in which documents become sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Windows {
    /// All documents form one stream of tokens, which is cut into windows.
    Tokens,
    /// As `Tokens`, but each window is decoded to text, that text is removed from the rest of the
    /// text, and both are tokenised again.
    Text,
    /// Each document gives one sequence: its first tokens.
    Documents,
}

/// The output of an extraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Only the record of statistics.
    Stats,
    /// In addition `activations.safetensors` with every value.
    Full,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtractArgs {
    /// Rungs of the ladder in addition to the default ones; all positive.
    pub thresholds: Vec<f32>,
    pub keep: Keep,
    /// Folder for `activations.safetensors`.
    pub out: Option<String>,
    pub logits: bool,
    /// Size of the workspace in bytes, without weights and residual stream.
    pub memory_budget: u64,
    /// If None, an interrupted run starts from the beginning.
    pub checkpoint: Option<CheckpointArgs>,
}

/// Options for continuing an interrupted run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointArgs {
    /// The checkpoint file, relative to the project's folder on the machine that computes.
    pub path: String,
    /// Number of layers between two checkpoints. By default checkpoints are frequent enough to lose
    /// little work and rare enough to take little time.
    pub layers: Option<usize>,
}

impl Default for ExtractArgs {
    fn default() -> Self {
        let memory_budget = DEFAULT_MEMORY_BUDGET;
        Self { thresholds: Vec::new(), keep: Keep::Stats, out: None, logits: false, memory_budget, checkpoint: None }
    }
}

/// The largest number of tokens in one analysis: the residual stream of more would fill the memory
/// of any machine.
pub const MAX_TOKENS: usize = 1 << 28;

/// The rungs of every record, so that another threshold needs no second run. They are fine in the
/// usual range of thresholds, then grow by factors of about 1.4.
pub const DEFAULT_LADDER: [f32; 22] = [
    3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0,
    512.0, 1024.0,
];
