//! The whole model's name of a weight, derived from its name in a file.

use std::cmp::Ordering;

/// The names of an architecture's tensors in files. The base model's names may have its prefix or
/// not.
#[derive(Clone, Copy)]
pub struct Naming {
    /// The prefix of the base model in the whole one, with the dot: "model.".
    pub base: &'static str,
    /// The prefix of the head in files. In transformers' memory it is always the first of `HEADS`.
    pub head: &'static str,
    /// The prefix of the base model in transformers' memory, if that is another one.
    pub in_memory: Option<&'static str>,
    /// The prefixes in models for question answering and older releases.
    pub older: &'static [&'static str],
    /// True if the model is the language model inside a larger one, for images or speech, which
    /// adds prefixes.
    pub nested: bool,
}

/// The prefixes of the head's names; GPT-NeoX has its own.
pub const HEADS: &[&str] = &["lm_head.", "embed_out."];

/// The prefixes of a language model inside a larger model: of the base model, and of the language
/// model.
pub const NESTED: [&str; 2] = ["model.language_model.", "language_model.model."];
pub const NESTED_HEAD: &str = "language_model.lm_head.";
/// The prefix in the base model of a larger one, which has no head.
pub const NESTED_BASE: &str = "language_model.";

impl Naming {
    /// The order of two names of one tensor: alphabetical, as in transformers, with older prefixes
    /// last.
    pub fn order(&self, one: &str, other: &str) -> Ordering {
        self.is_older(one).cmp(&self.is_older(other)).then_with(|| one.cmp(other))
    }

    /// Whether a name has one of the older prefixes.
    pub fn is_older(&self, name: &str) -> bool {
        self.older.iter().any(|prefix| name.starts_with(prefix))
    }

    /// The name that transformers assigns to a stored name: a missing prefix is added, and the
    /// head's and a doubled one are removed. The number of an expert comes before its projection.
    pub fn whole(&self, stored: &str) -> String {
        numbered(self.prefixed(stored))
    }

    fn prefixed(&self, stored: &str) -> String {
        if self.nested {
            let inside = NESTED.iter().find_map(|prefix| stored.strip_prefix(prefix));
            let in_base = stored.strip_prefix(NESTED_BASE);
            return match (inside, stored.strip_prefix(NESTED_HEAD), in_base) {
                (None, Some(rest), _) => format!("lm_head.{rest}"),
                (Some(rest), ..) | (.., Some(rest)) => format!("{}{rest}", self.base),
                // Tensors outside the language model keep their names, which none of its weights
                // has.
                _ => stored.to_string(),
            };
        }
        let is_head = |name: &str| HEADS.iter().any(|head| name.starts_with(head));
        let unprefixed = stored.strip_prefix(self.base);
        if let Some(rest) = self.in_memory.and_then(|prefix| stored.strip_prefix(prefix)) {
            return format!("{}{rest}", self.base);
        }
        let older = self.older.iter().find_map(|prefix| stored.strip_prefix(prefix));
        match (unprefixed, older) {
            // The head is next to the base model, not in it.
            (Some(head), _) if is_head(head) => head.to_string(),
            // A class around the whole model has a field that is called as the base model.
            (Some(rest), _) if rest.starts_with(self.base) => rest.to_string(),
            (Some(_), _) => stored.to_string(),
            (_, Some(rest)) => format!("{}{rest}", self.base),
            _ if is_head(stored) => match stored.strip_prefix(HEADS[0]) {
                Some(rest) => format!("{}{rest}", self.head),
                None => stored.to_string(),
            },
            _ => format!("{}{stored}", self.base),
        }
    }
}

/// ModelOpt writes `experts.up_proj.3.` where the experts of a model are stacked in its release in
/// bf16; all others `experts.3.up_proj.`.
fn numbered(name: String) -> String {
    for projection in ["gate_proj", "up_proj", "down_proj"] {
        if let Some((before, rest)) = name.split_once(&format!(".experts.{projection}."))
            && let Some((number, behind)) = rest.split_once('.')
            && !number.is_empty()
            && number.bytes().all(|digit| digit.is_ascii_digit())
        {
            return format!("{before}.experts.{number}.{projection}.{behind}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_added_where_they_are_missing_and_taken_off_the_head() {
        let llama =
            Naming { base: "model.", head: "lm_head.", in_memory: None, older: &["transformer."], nested: false };
        for (stored, whole) in [
            ("model.norm.weight", "model.norm.weight"),
            ("norm.weight", "model.norm.weight"),
            ("transformer.norm.weight", "model.norm.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("model.lm_head.weight", "lm_head.weight"),
            ("model.model.norm.weight", "model.norm.weight"),
            ("model.model.model.norm.weight", "model.model.norm.weight"),
            (
                "model.layers.1.mlp.experts.up_proj.12.weight_scale",
                "model.layers.1.mlp.experts.12.up_proj.weight_scale",
            ),
            ("model.layers.1.mlp.experts.up_proj.weight", "model.layers.1.mlp.experts.up_proj.weight"),
        ] {
            assert_eq!(llama.whole(stored), whole);
        }
        let nested = Naming { nested: true, ..llama };
        for (stored, whole) in [
            ("language_model.norm.weight", "model.norm.weight"),
            ("language_model.model.norm.weight", "model.norm.weight"),
            ("model.language_model.norm.weight", "model.norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("vision_tower.norm.weight", "vision_tower.norm.weight"),
        ] {
            assert_eq!(nested.whole(stored), whole);
        }
        let nemotron =
            Naming { base: "backbone.", head: "lm_head.", in_memory: Some("model."), older: &[], nested: false };
        assert_eq!(nemotron.whole("model.norm_f.weight"), "backbone.norm_f.weight");
        assert_eq!(nemotron.whole("lm_head.weight"), "lm_head.weight");
        let neox = Naming { base: "gpt_neox.", head: "embed_out.", ..llama };
        assert_eq!(neox.whole("lm_head.weight"), "embed_out.weight");
        assert_eq!(neox.whole("embed_out.weight"), "embed_out.weight");
        let opt = Naming { base: "model.", head: "lm_head.", in_memory: None, older: &[], nested: false };
        assert_eq!(opt.whole("decoder.layers.0.fc1.bias"), "model.decoder.layers.0.fc1.bias");
        assert_eq!(llama.order("layers.0.x", "model.layers.0.x"), Ordering::Less);
        assert_eq!(llama.order("norm.weight", "model.norm.weight"), Ordering::Greater);
        assert_eq!(llama.order("transformer.layers.0.x", "model.layers.0.x"), Ordering::Greater);
    }
}
