//! The tokenizers of models for texts and ids of scripts. Opening one reads tokenizer.json, which
//! takes long for a large vocabulary, so the last ones are kept.

use std::sync::{Arc, Mutex, PoisonError};

use super::encoder::Encoder;
use crate::error::Result;
use crate::progress::Progress;

/// The number of tokenizers that are kept.
const KEPT: usize = 4;

/// A tokenizer by the folder of its model, and whether it adds special tokens.
type Key = (String, bool);

#[derive(Default)]
pub struct Tokenizers {
    /// The latest one is last.
    opened: Mutex<Vec<(Key, Arc<Encoder>)>>,
}

impl Tokenizers {
    /// The ids of each text, by the tokenizer of the model in `folder`; with its special tokens if
    /// `special`.
    ///
    /// # Errors
    /// `not_found` if there is no tokenizer, `corrupt` if it is damaged, `bad_argument` if it fails
    /// on a text, and `interrupted`.
    pub fn encode(
        &self,
        folder: &str,
        texts: &[String],
        special: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<u32>>> {
        let encoder = self.open(folder, special)?;
        let ids = |text: &String| Ok(encoder.with_special_tokens(&encoder.ids(text, progress)?));
        texts.iter().map(ids).collect()
    }

    /// The text of each list of ids, without special tokens if `skip_special`.
    ///
    /// # Errors
    /// `bad_argument` for an id that is no token, and otherwise as `encode`.
    pub fn decode(&self, folder: &str, ids: &[Vec<u32>], skip_special: bool) -> Result<Vec<String>> {
        let encoder = self.open(folder, false)?;
        ids.iter().map(|ids| encoder.decoded(ids, skip_special)).collect()
    }

    fn open(&self, folder: &str, special: bool) -> Result<Arc<Encoder>> {
        let opened = || self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (folder.to_string(), special);
        if let Some((_, encoder)) = opened().iter().find(|(known, _)| *known == key) {
            return Ok(encoder.clone());
        }
        let encoder = Arc::new(Encoder::open(folder, special)?);
        let mut opened = opened();
        if opened.len() >= KEPT {
            opened.remove(0);
        }
        opened.push((key, encoder.clone()));
        Ok(encoder)
    }
}
