//! The one enum of requests and the one enum of replies.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::record::{
    Activations, Estimate, EstimateArgs, ExtractArgs, LoadArgs, Miniature, ModelInfo, TokenSource, Tokens,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Fetches and opens a model; no weights are read.
    Load(LoadArgs),
    Tokens(TokenSource),
    Extract {
        model: LoadArgs,
        tokens: Tokens,
        args: ExtractArgs,
    },
    Estimate {
        model: LoadArgs,
        args: EstimateArgs,
    },
    /// Writes the miniature of a sweep model below `folder`.
    Miniature {
        folder: String,
        name: String,
    },
}

impl Op {
    /// Equal for equal requests.
    pub fn id(&self) -> String {
        let bytes = rmp_serde::to_vec(self).expect("requests can be sent");
        format!("{:x}", Sha256::digest(bytes))[..32].to_string()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The model and the folder its files are in.
    Model {
        info: ModelInfo,
        folder: String,
    },
    Tokens(Tokens),
    Activations(Box<Activations>),
    Estimate(Estimate),
    Miniature(Miniature),
}
