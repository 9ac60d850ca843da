//! Finds weights in the files that no part of the model uses. The user is told when a model is
//! loaded, because a model without them is another model.
//!
//! transformers leaves them out as well, with a warning. A `model_type` that is nearly right drops
//! biases or norms, and a config with too few layers drops the last ones. The results then look
//! like those of the trained model, and are not.

use std::collections::{BTreeSet, HashSet};

use super::checkpoint::Checkpoint;
use crate::formats;
use crate::outside::shown;
use crate::spec::Model;
use crate::spec::inventory;
use crate::spec::naming::{self, Naming};
use crate::words::counted;

/// Number of tensors that a note names.
const NAMED: usize = 3;

/// Parts of names of buffers in old releases. Their contents follow from the config.
const BUFFERS: &[&str] = &["rotary_emb.inv_freq", "decoder.version"];
/// Masks of attention in old releases, which are not biases.
const MASKS: &[&str] = &[
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "attn.attention.bias",
    "attn.attention.masked_bias",
];
/// Heads of classifiers, reward models and models for question answering. Their input is the
/// decoder's output.
const HEADS: &[&str] =
    &["score.", "classifier.", "v_head.", "value_head.", "reward_head.", "qa_outputs.", "multiple_choice_head."];
/// The parts of a layer for multi-token prediction: norms of both inputs, the projection that joins
/// them, and its head.
const PREDICTION: &[&str] = &["eh_proj.", "enorm.", "hnorm.", "shared_head."];
/// Parts outside the layers that predict further tokens.
const PREDICTING: &[&str] = &["mtp.", "mtp_"];
/// The indexer of a layer, which chooses keys. Sequences long enough for a choice are refused.
const INDEXER: &str = "self_attn.indexer.";

/// Keys and values that a layer has in the files but does not use, because it uses those of an
/// earlier layer.
const KEYS: &[&str] = &["self_attn.k_proj.", "self_attn.v_proj.", "self_attn.k_norm.", "self_attn.v_norm."];

/// A tensor that nothing uses.
struct Unused<'a> {
    /// The tensor's name in its file.
    name: &'a str,
    /// The decoder layer that it belongs to, if any.
    layer: Option<usize>,
    /// True if it is outside the decoder, in files whose names tell what is inside.
    beside: bool,
}

/// A note about the weights that are left out, or None if they have no effect.
pub(super) fn note(checkpoint: &Checkpoint, model: &Model, naming: Naming) -> Option<String> {
    let used: HashSet<String> = inventory::tensors(model).into_iter().map(|(tensor, _)| tensor.name).collect();
    let names = Names::new(checkpoint, model, naming);
    let mut unused: Vec<Unused> = checkpoint
        .stored()
        .filter(|(whole, stored)| !used.contains(*whole) && !names.without_effect(whole, stored))
        .map(|(whole, stored)| Unused { name: stored, layer: names.layer(whole), beside: names.beside(stored) })
        .collect();
    unused.sort_by_key(|tensor| (tensor.beside, tensor.layer, tensor.name));
    let first = unused.first()?;
    let list: Vec<String> = unused.iter().take(NAMED).map(|tensor| format!("`{}`", shown(tensor.name))).collect();
    let rest = match unused.len() - list.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (count, place) = (counted(unused.len(), "tensor"), &checkpoint.place);
    let (are, kind) = (if unused.len() == 1 { "is" } else { "are" }, &model.model_type);
    let what = format!("{place}: {count} in the files {are} not used: {}{rest}", list.join(", "));
    let layers = model.layers.len();
    let deepest = unused.iter().filter_map(|tensor| tensor.layer).max();
    let beyond = |tensor: &Unused| tensor.layer.is_some_and(|layer| layer >= layers);
    Some(if first.beside {
        format!("{what}; they stand beside the decoder, and nothing that is measured depends on them")
    } else if let Some(deepest) = deepest.filter(|deepest| *deepest >= layers && unused.iter().all(beyond)) {
        format!(
            "{what}; config.json says {}, and the files have {}: all numbers are those of a model without the others, as in transformers",
            counted(layers, "layer"),
            deepest + 1
        )
    } else {
        format!(
            "{what}; a {kind} model with this config.json has no place for them, and all numbers are those of a model without them, as in \
             transformers: is `model_type` that of the model, and config.json unchanged?"
        )
    })
}

/// The structure of a checkpoint's names of tensors.
struct Names {
    naming: Naming,
    /// The text before the number of a layer: "model.layers.".
    layers: String,
    /// True if the files write the base model's prefix before the names of its tensors.
    prefixed: bool,
    /// Layers that predict further tokens, after those of the decoder.
    prediction: BTreeSet<usize>,
    /// Layers that use the keys and values of other layers.
    borrowing: BTreeSet<usize>,
}

impl Names {
    fn new(checkpoint: &Checkpoint, model: &Model, naming: Naming) -> Self {
        let first = model.layers.first().and_then(|layer| inventory::core(layer, true).into_iter().next());
        let first = &first.map_or_else(String::new, |part| part.weight.name);
        let layers = first.split_once("0.").map_or(&first[..], |(before, _)| before).to_string();
        let prefixed = checkpoint.entry(first).is_some_and(|entry| entry.name.starts_with(naming.base));
        let borrowing = model.layers.iter().enumerate().filter(|(_, layer)| layer.borrows().is_some());
        let borrowing = borrowing.map(|(i, _)| i).collect();
        let mut names = Self { naming, layers, prefixed, prediction: BTreeSet::new(), borrowing };
        let predicts = |whole: &str| {
            let (layer, rest) = names.in_layer(whole)?;
            (layer >= model.layers.len() && PREDICTION.iter().any(|own| rest.starts_with(own))).then_some(layer)
        };
        names.prediction = checkpoint.stored().filter_map(|(whole, _)| predicts(whole)).collect();
        names
    }

    /// The layer of a tensor, and the tensor's name in it.
    fn in_layer<'n>(&self, whole: &'n str) -> Option<(usize, &'n str)> {
        let (layer, rest) = whole.strip_prefix(&self.layers)?.split_once('.')?;
        Some((layer.parse().ok()?, rest))
    }

    fn layer(&self, whole: &str) -> Option<usize> {
        self.in_layer(whole).map(|(layer, _)| layer)
    }

    /// Whether the tensor has no effect in a model of this kind.
    fn without_effect(&self, whole: &str, stored: &str) -> bool {
        let bare = stored.strip_prefix(self.naming.base).unwrap_or(stored);
        let has = |parts: &[&str]| parts.iter().any(|part| stored.contains(part));
        has(BUFFERS)
            || formats::is_passed(whole)
            || stored.ends_with("position_ids")
            || HEADS.iter().any(|head| bare.starts_with(head))
            || self.in_layer(whole).is_some_and(|(_, rest)| MASKS.contains(&rest))
            || PREDICTING.iter().any(|prefix| bare.starts_with(prefix))
            || self.in_layer(whole).is_some_and(|(_, rest)| rest.starts_with(INDEXER))
            || self.layer(whole).is_some_and(|layer| self.prediction.contains(&layer))
            || self.in_layer(whole).is_some_and(|(layer, rest)| {
                self.borrowing.contains(&layer) && KEYS.iter().any(|part| rest.starts_with(part))
            })
    }

    /// Whether a tensor of this name cannot be part of the decoder or of its head.
    fn beside(&self, stored: &str) -> bool {
        let inside = |prefix: &&str| stored.starts_with(*prefix);
        if self.naming.nested {
            return !naming::NESTED.iter().chain(&[naming::NESTED_BASE]).chain(naming::HEADS).any(inside);
        }
        self.prefixed && ![self.naming.base].iter().chain(naming::HEADS).chain(self.naming.older).any(inside)
    }
}
