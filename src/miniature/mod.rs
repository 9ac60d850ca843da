//! Synthetic models with known answers: small models of the architectures of the sweep, and one of
//! each other kind of layer, in the file layout of released checkpoints.
//!
//! Weights are random with a fixed seed. Some features are planted by scaling norm weights; the
//! projections that read them are scaled down in return, so that activations stay bounded. The
//! models show that the program works, and say nothing about trained models.

mod plant;
mod table;
mod write;

use std::path::Path;

use serde_json::{Map, Value};

use crate::disk;
use crate::error::{Error, Result};
use crate::outside;
use crate::record::Miniature;
use crate::spec::arch::{self, Released};
use crate::spec::config::Config;
use crate::suggest;
use crate::weights::SYNTHETIC_KEY;

pub use plant::Planted;

/// The version, which is raised when the same name gives other weights.
const VERSION: u32 = 1;
/// The largest size in bytes of the file that says how a miniature was made.
const MAX_MARK: u64 = 1 << 20;
const SEED: u64 = 20_220_815; // The seed is the day on which LLM.int8() appeared.

/// The English text that miniature models read. It was written for this purpose.
pub const TEXT: &str = include_str!("../../stdlib/miniature_text.txt");

pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    table::MINIATURES.iter().map(|miniature| miniature.name)
}

/// Makes the miniature `name` below `root`, unless it exists.
pub fn make(root: &Path, name: &str) -> Result<Miniature> {
    let Some(recipe) = table::MINIATURES.iter().find(|miniature| miniature.name == name) else {
        return Err(Error::not_found(format!("no miniature model \"{name}\"")).hint(suggest::hint(name, names())));
    };
    let folder = root.join(name);
    let text = folder.join("text.txt");
    let mark = folder.join("miniature.json");
    let mut planted: Vec<usize> = recipe.planted.iter().map(|planted| planted.dim).collect();
    planted.sort_unstable();
    let made = Miniature {
        path: folder.display().to_string(),
        text: text.display().to_string(),
        expected_dims: planted,
        expected_classification: recipe.classification().to_string(),
    };
    let stamp = serde_json::json!({ "version": VERSION, "seed": SEED, "recipe": recipe.config });
    let current = outside::read(&mark, MAX_MARK)
        .ok()
        .and_then(|data| outside::json::from_slice(&data, outside::json::SMALL).ok());
    if current.as_ref() == Some(&stamp) {
        return Ok(made);
    }
    let mut config: Map<String, Value> = serde_json::from_str(recipe.config).expect("recipes are JSON");
    config.insert(SYNTHETIC_KEY.to_string(), true.into());
    let config_text = serde_json::to_string_pretty(&config).expect("JSON");
    let spec = arch::model(&Config::parse(&config_text, &format!("miniature {name}"))?, &Released)?;
    write::checkpoint(&folder, &spec, recipe.planted, SEED, recipe.first_shard)?;
    disk::write(&folder.join("config.json"), config_text.as_bytes())?;
    disk::write(&folder.join("tokenizer.json"), write::byte_tokenizer().to_string().as_bytes())?;
    disk::write(&text, TEXT.as_bytes())?;
    // This file is written last, because its presence means that the model is complete.
    disk::write(&mark, stamp.to_string().as_bytes())?;
    Ok(made)
}
