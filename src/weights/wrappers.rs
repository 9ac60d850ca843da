//! Names of tensors with additions of wrappers: DataParallel, torch.compile, FSDP and peft add
//! prefixes to the model's names, and a model that is saved without unwrapping keeps them.

use crate::spec::naming::Naming;

/// Parts that wrappers add anywhere in names.
const PARTS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Parts of the names of weights that peft adds.
const ADAPTED: [&str; 3] = ["lora_", ".base_layer.", ".modules_to_save."];

/// The difference between the names of a file and those of a model.
#[derive(Debug, PartialEq)]
pub(super) struct Wrapped<'a> {
    /// The additional part of its name.
    too_much: TooMuch<'a>,
    adapted: bool,
}

#[derive(Debug, PartialEq)]
enum TooMuch<'a> {
    /// A prefix of all names.
    Prefix(&'a str),
    /// A part anywhere in names.
    Part(&'static str),
}

/// The tensor that corresponds to the missing `missing` among `stored`, under a name that a wrapper
/// has changed.
pub(super) fn find<'a>(missing: &str, stored: &[&'a str], naming: Naming) -> Option<Wrapped<'a>> {
    // A doubled prefix would be read, and is not what is advised.
    let doubled = naming.base.repeat(2);
    let is_it = |name: &str| naming.whole(name) == missing && !name.starts_with(&doubled);
    let adapted = stored.iter().any(|name| ADAPTED.iter().any(|part| name.contains(part)));
    let first = *stored.first()?;
    for (dot, _) in first.match_indices('.') {
        let prefix = &first[..=dot];
        if !stored.iter().all(|name| name.starts_with(prefix)) {
            break;
        }
        if stored.iter().any(|name| is_it(&name[prefix.len()..])) {
            return Some(Wrapped { too_much: TooMuch::Prefix(prefix), adapted });
        }
    }
    PARTS.into_iter().find_map(|part| {
        let without = |name: &str| name.split('.').filter(|other| *other != part).collect::<Vec<_>>().join(".");
        let found = stored.iter().any(|name| name.contains(part) && is_it(&without(name)));
        found.then_some(Wrapped { too_much: TooMuch::Part(part), adapted })
    })
}

impl Wrapped<'_> {
    /// A description of the names, for a message.
    pub(super) fn problem(&self) -> String {
        match self.too_much {
            TooMuch::Prefix(prefix) => format!("all names in the files begin with `{}`", crate::outside::shown(prefix)),
            TooMuch::Part(part) => format!("names in the files have `{part}.` in them"),
        }
    }

    /// The advice.
    pub(super) fn advice(&self) -> String {
        if self.adapted {
            return "an adapter is still around the model: save it merged in Python, with peft: \
                    model.merge_and_unload().save_pretrained(FOLDER)"
                .to_string();
        }
        let name = match self.too_much {
            TooMuch::Prefix(prefix) => format!("k.removeprefix(\"{}\")", crate::outside::shown(prefix)),
            TooMuch::Part(part) => format!("k.replace(\"{part}.\", \"\")"),
        };
        format!(
            "the model was saved with a wrapper around it; take it off in Python, with safetensors.torch, for each FILE: \
             save_file({{{name}: t for k, t in load_file(FILE).items()}}, FILE, {{\"format\": \"pt\"}})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Naming = Naming { base: "model.", head: "lm_head.", in_memory: None, older: &[], nested: false };

    #[test]
    fn what_wrappers_add_to_names_is_found() {
        let of = |missing: &str, stored: &[&'static str]| find(missing, stored, LLAMA).map(|found| found.too_much);
        let embedding = "model.embed_tokens.weight";
        for prefix in ["module.", "_orig_mod.", "base_model.model.", "_orig_mod.module.", "llm."] {
            let stored = [format!("{prefix}lm_head.weight"), format!("{prefix}model.embed_tokens.weight")];
            let stored: Vec<&str> = stored.iter().map(String::as_str).collect();
            assert_eq!(find(embedding, &stored, LLAMA).unwrap().too_much, TooMuch::Prefix(prefix));
        }
        // A base model without its own prefix.
        assert_eq!(of(embedding, &["module.embed_tokens.weight"]), Some(TooMuch::Prefix("module.")));
        let norm = "model.layers.0.input_layernorm.weight";
        let inside = "model.layers.0._checkpoint_wrapped_module.input_layernorm.weight";
        assert_eq!(of(norm, &[embedding, inside]), Some(TooMuch::Part("_checkpoint_wrapped_module")));
        // The norm of a layer is not the final norm.
        assert_eq!(of("model.norm.weight", &[embedding, "model.layers.0.norm.weight"]), None);
        assert_eq!(of(embedding, &[]), None);
    }
}
