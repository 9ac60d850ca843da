//! Requests to the engine as plain data. Their fields are options of scripts, with the meaning that
//! the documentation shows.

use serde::{Deserialize, Serialize};

use super::option::{Opt, OptionSet, OptionType, defaults, option_set, shared_option};
use super::option_types::{
    AllOr, Beside, Bytes, Choice, Flag, Floats32, OfMachine, Optional, PathText, Positive, Text, Whole, Wholes, Word,
};
use super::{ComputeDtype, LaneArgs, MassiveRule, Measure, Site};

/// Default size of the workspace in bytes, without weights and residual stream.
pub const DEFAULT_MEMORY_BUDGET: u64 = 1 << 30;
/// By default the weights of two layers are in memory: the current one and the next, which is being
/// read.
pub const DEFAULT_CHUNK_LAYERS: usize = 2;
/// The split of a dataset, and the revision of a repository, if none is named.
pub const DEFAULT_SPLIT: &str = "train";
pub const DEFAULT_REVISION: &str = "main";

shared_option! {
    /// also compute the loss per sequence, which reads the head's weights
    pub Logits: Flag = false;
}

shared_option! {
    /// workspace beside weights and hidden states; a number or "512MiB"
    pub MemoryBudget: Bytes = DEFAULT_MEMORY_BUDGET;
}

option_set! {
    /// A model to open, with the options of load_model.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct LoadArgs {
        /// A folder, or a hub id `owner/name`.
        id: Beside<String>;
        /// branch, tag or commit on the hub
        revision: Optional<Text>;
        /// how products are computed: in f32, or with inputs that are rounded to bf16 where that is
        /// faster; weights are read as they are stored and activations are f32 in both
        dtype: Choice<ComputeDtype> = ComputeDtype::F32;
        /// where to compute: "auto", "cpu", "cuda" (all GPUs), "cuda:0" or "cuda:0,2": docs/gpu.md
        device: OfMachine<Text> = "auto".to_string();
        /// layers of weights in memory at once, at most
        chunk_layers: Whole = DEFAULT_CHUNK_LAYERS;
        /// a model of the hub is read by ranges when it is needed; nothing is put on disk
        #[serde(default)]
        stream: OfMachine<Flag> = false;
        /// memory of a GPU that may be used; a number or "24GB"
        #[serde(default)]
        max_vram: OfMachine<Optional<Bytes>> => "what is free";
    }
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

option_set! {
    /// A file of a dataset on the hub, with the options of load_tokens for it.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct DatasetArgs {
        /// `owner/name`
        id: Beside<String>;
        /// configuration of the dataset, such as "sample-10BT"
        config: Optional<Text>;
        /// split of the dataset
        split: Text = DEFAULT_SPLIT.to_string();
        /// branch, tag or commit of the dataset; the result holds the commit
        revision: Optional<Text>, otherwise DEFAULT_REVISION.to_string();
        /// file of the dataset, in place of config and split
        file: Optional<Text>;
    }
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

impl Word for TextFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("text", Self::Text),
        ("json", Self::Json),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("unquoted", Self::Unquoted),
        ("parquet", Self::Parquet),
    ];
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

impl Word for Windows {
    const WORDS: &'static [(&'static str, Self)] =
        &[("tokens", Self::Tokens), ("text", Self::Text), ("documents", Self::Documents)];
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

impl Word for Keep {
    const WORDS: &'static [(&'static str, Self)] = &[("stats", Self::Stats), ("full", Self::Full)];
}

option_set! {
    /// The options of extract_layernorms.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct ExtractArgs {
        /// rungs beside 3, 3.5, … 7, 8, 10, 12, 16, … 1024
        thresholds: Floats32 = Vec::new();
        /// "full" also writes activations.safetensors to `out`
        keep: Choice<Keep> = Keep::Stats;
        /// folder for keep: "full"
        out: Optional<PathText>;
        logits: Logits;
        memory_budget: MemoryBudget;
        checkpoint: Checkpoint;
        /// What is measured beside the ladders of norms.
        #[serde(default, skip_serializing_if = "MeasureArgs::is_default")]
        measure: Beside<MeasureArgs>;
        /// Variants of the model that are computed beside it.
        #[serde(default, skip_serializing_if = "LaneArgs::is_default")]
        lanes: Beside<LaneArgs>;
    }
}

/// Default number of largest values that are kept at each site of a layer.
pub const DEFAULT_TOP: usize = 16;

option_set! {
    /// What a pass measures beside the ladders of norms. An empty list is all that the model has.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct MeasureArgs {
        /// the tensors that are measured, by name, or "all": docs/sites.md
        sites: AllOr<Site> = Site::NORMS.to_vec();
        /// what is measured of them, by name, or "all": docs/measures.md
        observe: AllOr<Measure> = vec![Measure::Outliers];
        /// largest values that are kept at each site of a layer
        top: Positive = DEFAULT_TOP;
        /// dimensions of the residual stream that quantisation_error also keeps exact
        dims: Wholes = Vec::new();
        /// Rules for massive activations; without one, that of the paper.
        massive_rules: Beside<Vec<MassiveRule>>;
    }
}

impl Default for MeasureArgs {
    fn default() -> Self {
        defaults::<Self>()
    }
}

impl MeasureArgs {
    /// True if nothing but the ladders of norms is measured.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
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

option_set! {
    /// The options of extract_layernorms that give a checkpoint.
    pub struct CheckpointOptions {
        /// a file of the project from which a run that was cut off goes on, and one that failed
        /// behind the pass takes it up
        checkpoint: Optional<PathText>;
        /// layers between two states that are left there
        checkpoint_layers: Optional<Whole> => "by time";
    }
}

/// The options of a checkpoint; None without one.
pub struct Checkpoint;

impl OptionType for Checkpoint {
    type Value = Option<CheckpointArgs>;
    const INCLUDED: Option<&'static [Opt]> = Some(CheckpointOptions::OPTIONS);

    fn kind() -> String {
        String::new()
    }

    fn literal(_: &Self::Value) -> String {
        String::new()
    }

    fn absent() -> Option<Self::Value> {
        Some(None)
    }
}

impl Default for ExtractArgs {
    fn default() -> Self {
        defaults::<Self>()
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
