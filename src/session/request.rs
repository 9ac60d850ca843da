//! The requests that a session carries out. Each names its reply.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::progress::Progress;
use crate::record::{EstimateArgs, ExtractArgs, LoadArgs, ModelInfo, TokenSource, Tokens};

/// A request, with the type of its reply. The table in `op.rs` lists all of them.
pub trait Request: Clone + Send {
    type Reply;
}

/// A place that carries out requests of one type. A `Session` does so for every type.
pub trait Serve<R: Request> {
    /// Carries out `request`, and reports events of the work to `progress`.
    fn serve(&self, request: R, progress: &dyn Progress) -> Result<R::Reply>;
}

/// Fetches and opens a model; no weights are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load(pub LoadArgs);

/// The reply to `Load`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loaded {
    pub info: ModelInfo,
    /// The folder of the model's files.
    pub folder: String,
}

/// Makes sequences of token ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadTokens(pub TokenSource);

/// Turns texts into token ids with the tokenizer of a model. The reply has the ids of each text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncodeTexts {
    /// The folder of the model, as `Loaded` gives it.
    pub tokenizer: String,
    pub texts: Vec<String>,
    /// True if each text gets the special tokens that tokenizer.json adds, such as `<s>` at the
    /// start.
    pub add_special_tokens: bool,
}

/// Turns token ids into texts with the tokenizer of a model. The reply has the text of each list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecodeIds {
    /// The folder of the model, as `Loaded` gives it.
    pub tokenizer: String,
    pub ids: Vec<Vec<u32>>,
    /// True if special tokens are left out of the texts.
    pub skip_special_tokens: bool,
}

/// Runs tokens through a model, and records its norm outputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Extract {
    pub model: LoadArgs,
    pub tokens: Tokens,
    pub args: ExtractArgs,
}

/// Estimates the memory and the operations of an extraction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EstimateWork {
    pub model: LoadArgs,
    pub args: EstimateArgs,
}

/// Writes the miniature of a sweep model in `folder`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MakeMiniature {
    pub folder: String,
    pub name: String,
}

impl Extract {
    /// The checkpoint file, relative to the project.
    pub fn checkpoint(&self) -> Option<&str> {
        self.args.checkpoint.as_ref().map(|checkpoint| checkpoint.path.as_str())
    }
}
