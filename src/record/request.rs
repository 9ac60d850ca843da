//! Requests to the engine as plain data. Their fields are options of scripts, with the meaning that
//! the documentation shows.

use serde::{Deserialize, Serialize};

use super::option::{Opt, OptionSet, OptionType, defaults, option_set, shared_option};
use super::option_types::{
    AllOr, Beside, Bytes, Choice, Flag, Float, Float32, Floats32, Needed, OfMachine, Optional, PathText, Positive,
    SeedNumber, Text, Whole, Wholes, Word,
};
use super::{ComputeDtype, DEFAULT_HIT, LaneArgs, MassiveRule, Measure, Site};

/// Default size of the workspace in bytes, without weights and residual stream.
pub const DEFAULT_MEMORY_BUDGET: u64 = 1 << 30;
/// By default the weights of two layers are in memory: the current one and the next, which is being
/// read.
pub const DEFAULT_CHUNK_LAYERS: usize = 2;
/// The split of a dataset, and the revision of a repository, if none is named.
pub const DEFAULT_SPLIT: &str = "train";
pub const DEFAULT_REVISION: &str = "main";
/// The key or column of texts, its usual name in datasets, and the seed of an order of documents,
/// if none is named.
pub const DEFAULT_COLUMN: &str = "text";
pub const ORDER_SEED: u64 = 0;

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
        chunk_layers: Positive = DEFAULT_CHUNK_LAYERS;
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

option_set! {
    /// A text to be cut into sequences, with the options of load_tokens for it.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct TextArgs {
        /// Name of the text file or of the dataset.
        path: Beside<String>;
        dataset: Beside<Option<DatasetArgs>>;
        /// The documents, if they are not read from `path`.
        documents: Beside<Option<Brought>>;
        /// The location of `tokenizer.json`: a folder, or a hub id.
        tokenizer: Beside<String>;
        /// what the file is, where its name and its first bytes do not tell
        format: Optional<Choice<TextFormat>>;
        /// key of JSON objects ("meta.text" of objects in them) or column of a table
        column: Optional<Text>, otherwise DEFAULT_COLUMN.to_string();
        /// number of windows; of `texts`, by default all of them
        num_sequences: Needed;
        /// tokens per window
        sequence_length: Needed;
        /// windows left out at the beginning
        skip_sequences: Whole = 0;
        /// The seed of a random order of the documents. Without it they keep their order.
        shuffle: Shuffled;
        /// "tokens" over all documents, "documents" one window each, or "text" cut before
        /// tokenising
        windows: Optional<Choice<Windows>> => "\"tokens\", or \"documents\" with separator or texts";
        /// share of a window that the next one repeats, 0 to below 1
        overlap: Float = 0.0;
        /// splits the text into documents; each gives its first tokens
        separator: Optional<Text>;
        /// typographic quotes become ASCII ones first
        straight_quotes: Flag = false;
        /// the special tokens that tokenizer.json adds, such as <s>
        add_special_tokens: Flag = true;
    }
}

option_set! {
    /// The options of load_tokens that give an order of documents.
    pub struct OrderOptions {
        /// documents in random order
        shuffle: Flag = false;
        /// seed of that order
        seed: Optional<SeedNumber>, otherwise ORDER_SEED;
    }
}

/// The options of an order of documents; None if they keep theirs.
pub struct Shuffled;

impl OptionType for Shuffled {
    type Value = Option<u64>;
    const INCLUDED: Option<&'static [Opt]> = Some(OrderOptions::OPTIONS);

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

impl TextArgs {
    /// True for texts that a script gives, and that are not read from a file or a dataset.
    pub fn is_given(&self) -> bool {
        self.documents.is_some() && self.path == super::Tokens::SCRIPT
    }

    /// How documents become sequences: as asked for, or as suits what is read.
    pub fn windows(&self) -> Windows {
        let several = self.separator.is_some() || self.is_given();
        self.windows.unwrap_or(if several { Windows::Documents } else { Windows::Tokens })
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
        /// dimensions of the residual stream that quantisation_error also keeps exact, that hits
        /// always has, and whose writes attribution knows
        dims: Wholes = Vec::new();
        /// |x| from which "hits" keeps a token, a rung of the ladder
        #[serde(default = "default_hit", skip_serializing_if = "is_default_hit")]
        hits_from: Float32 = DEFAULT_HIT;
        /// true: weights also reads the matrices that the pass has no use for: experts that no
        /// token chose, the embedding, and the head
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unread_weights: Flag = false;
        /// positions of each sequence at which attribution knows all dimensions; it knows those of
        /// `dims` at every position
        #[serde(default = "first_position", skip_serializing_if = "is_first_position")]
        attributed_positions: Wholes = first_position();
        /// the tensors that keep: "full" writes, by name, or "all"
        #[serde(default = "norms", skip_serializing_if = "are_norms")]
        keep_sites: AllOr<Site> = norms();
        /// only these layers are written; without a list all
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keep_layers: Wholes = Vec::new();
        /// only these sequences are written; without a list all
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keep_sequences: Wholes = Vec::new();
        /// Rules for massive activations; without one, that of the paper.
        massive_rules: Beside<Vec<MassiveRule>>;
    }
}

fn default_hit() -> f32 {
    DEFAULT_HIT
}

fn is_default_hit(from: &f32) -> bool {
    *from == DEFAULT_HIT
}

fn norms() -> Vec<Site> {
    Site::NORMS.to_vec()
}

fn are_norms(sites: &[Site]) -> bool {
    sites == Site::NORMS
}

/// Most massive activations are at the first position.
fn first_position() -> Vec<usize> {
    vec![0]
}

fn is_first_position(positions: &[usize]) -> bool {
    positions == first_position()
}

impl Default for MeasureArgs {
    fn default() -> Self {
        defaults::<Self>()
    }
}

impl MeasureArgs {
    /// True if every norm output is what keep: "full" writes.
    pub fn keeps_norms(&self) -> bool {
        are_norms(&self.keep_sites) && self.keep_layers.is_empty() && self.keep_sequences.is_empty()
    }

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
