//! The enum of requests and the enum of replies.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
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
    /// Writes the miniature of a sweep model in `folder`.
    Miniature {
        folder: String,
        name: String,
    },
}

impl Op {
    /// A hash of the request.
    pub fn id(&self) -> String {
        let bytes = rmp_serde::to_vec(self).expect("requests can be sent");
        format!("{:x}", Sha256::digest(bytes))[..32].to_string()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The model and the folder of its files.
    Model {
        info: ModelInfo,
        folder: String,
    },
    Tokens(Tokens),
    Activations(Box<Activations>),
    Estimate(Estimate),
    Miniature(Miniature),
}

/// The contents of a reply.
///
/// # Errors
/// If it is another kind of reply.
impl Reply {
    /// The model and the folder of its files.
    pub fn model(self) -> Result<(ModelInfo, String)> {
        match self {
            Reply::Model { info, folder } => Ok((info, folder)),
            other => Err(other.instead_of("a model")),
        }
    }

    pub fn tokens(self) -> Result<Tokens> {
        match self {
            Reply::Tokens(tokens) => Ok(tokens),
            other => Err(other.instead_of("tokens")),
        }
    }

    pub fn activations(self) -> Result<Activations> {
        match self {
            Reply::Activations(acts) => Ok(*acts),
            other => Err(other.instead_of("activations")),
        }
    }

    pub fn estimate(self) -> Result<Estimate> {
        match self {
            Reply::Estimate(estimate) => Ok(estimate),
            other => Err(other.instead_of("an estimate")),
        }
    }

    pub fn miniature(self) -> Result<Miniature> {
        match self {
            Reply::Miniature(made) => Ok(made),
            other => Err(other.instead_of("a miniature model")),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Reply::Model { .. } => "a model",
            Reply::Tokens(_) => "tokens",
            Reply::Activations(_) => "activations",
            Reply::Estimate(_) => "an estimate",
            Reply::Miniature(_) => "a miniature model",
        }
    }

    fn instead_of(&self, asked: &str) -> Error {
        Error::corrupt(format!("{asked} was asked for, {} came", self.kind()))
            .hint("the machine does not run this program as it was sent there: end it and take another one")
    }
}
