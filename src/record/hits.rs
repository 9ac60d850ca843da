//! The tokens at which feature dimensions of a site are hit, as plain data.

use serde::{Deserialize, Serialize};

use super::{Site, number};

/// Default magnitude from which a value is a hit: that of Dettmers et al. 2022.
pub const DEFAULT_HIT: f32 = 6.0;

/// The most dimensions of a site in a record, beside those that were asked for by number.
pub const MAX_HIT_DIMS: usize = 32;

/// Features of one site, with the tokens at which they are hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteHits {
    pub site: Site,
    /// The layers that have the site, ascending.
    pub layers: Vec<usize>,
    /// The rung of the record's ladder from which a value is a hit.
    #[serde(with = "number")]
    pub from: f32,
    /// Number of other dimensions with a hit, which are left out.
    pub others: usize,
    /// Dimensions by falling number of layers with a hit, then by hits, then by number.
    pub dims: Vec<DimHits>,
}

/// The hits of one dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DimHits {
    pub dim: usize,
    /// Number of layers with a hit.
    pub layers_hit: usize,
    /// Number of hits in all layers.
    pub hits: u64,
    /// Number of tokens with a hit in any layer.
    pub count: usize,
    /// False if the memory for hits was full at some layer, and hits of it are missing.
    pub whole: bool,
    /// Empty in the header of a file, where arrays have it.
    #[serde(default)]
    pub tokens: TokenHits,
}

/// Tokens with a hit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenHits {
    /// sequence * positions + position, ascending.
    pub token: Vec<u32>,
    /// The value of the largest magnitude in any layer, [tokens].
    #[serde(with = "number")]
    pub value: Vec<f32>,
    /// The layer of that value, [tokens].
    pub layer: Vec<u16>,
    /// For each layer of the site the number of rungs of the ladder that |x| reaches, or 0 without
    /// a hit, [tokens * layers].
    pub rungs: Vec<u8>,
}

/// The tokens of a record with hits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenTexts {
    /// The id of each token, [sequences * positions].
    #[serde(default)]
    pub ids: Vec<u32>,
    /// Length of `text` in bytes; 0 if the model has no tokenizer.
    pub bytes: usize,
    /// The texts of all tokens, one behind the other.
    #[serde(default)]
    pub text: String,
    /// Where the text of each token ends in `text`, [tokens]; empty without text.
    #[serde(default)]
    pub ends: Vec<u32>,
}

impl TokenTexts {
    /// The text of a token, if there is one.
    pub fn of(&self, token: usize) -> Option<&str> {
        let end = *self.ends.get(token)? as usize;
        let start = if token == 0 { 0 } else { self.ends[token - 1] as usize };
        self.text.get(start..end)
    }

    /// Sets the texts of all tokens.
    pub fn set(&mut self, pieces: &[String]) {
        self.text = pieces.concat();
        self.bytes = self.text.len();
        let mut end = 0;
        self.ends = pieces
            .iter()
            .map(|piece| {
                end += piece.len() as u32;
                end
            })
            .collect();
    }
}
