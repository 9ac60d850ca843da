//! How many positions a model was made for: some kinds of rope are stretched from there.

use super::config::Config;
use crate::error::Result;

/// The key in a config.
const CONTEXT: &str = "max_position_embeddings";

/// Its value in the classes of transformers 5.23 of the models that turn, for a config that leaves
/// it out.
#[rustfmt::skip]
const OF_CLASSES: &[(&str, u32)] = &[
    ("afmoe", 16384),
    ("apertus", 65536),
    ("cohere", 8192),
    ("cohere2", 8192),
    ("deepseek_v2", 2048),
    ("deepseek_v3", 4096),
    ("deepseek_v32", 163_840),
    ("dots1", 2048),
    ("ernie4_5_moe", 131_072),
    ("exaone4", 2048),
    ("falcon", 2048),
    ("gemma", 8192),
    ("gemma2", 8192),
    ("gemma3_text", 131_072),
    ("gemma4_text", 131_072),
    ("glm4", 131_072),
    ("glm4_moe", 131_072),
    ("glm4_moe_lite", 202_752),
    ("glm_moe_dsa", 202_752),
    ("gpt_neox", 2048),
    ("gpt_oss", 131_072),
    ("granite", 2048),
    ("granitemoe", 2048),
    ("hunyuan_v1_dense", 2048),
    ("hunyuan_v1_moe", 2048),
    ("hy_v3", 131_072),
    ("kimi_k2", 4096),
    ("lfm2", 128_000),
    ("llama", 2048),
    ("llama4_text", 131_072),
    ("minimax_m2", 196_608),
    ("ministral3", 262_144),
    ("mistral", 131_072),
    ("mistral4", 1_048_576),
    ("mixtral", 131_072),
    ("nemotron", 4096),
    ("olmo2", 2048),
    ("olmo3", 2048),
    ("olmoe", 4096),
    ("phi", 2048),
    ("phi3", 4096),
    ("phimoe", 131_072),
    ("qwen2", 32768),
    ("qwen2_moe", 32768),
    ("qwen3", 32768),
    ("qwen3_5_moe_text", 32768),
    ("qwen3_5_text", 32768),
    ("qwen3_moe", 32768),
    ("qwen3_next", 32768),
    ("seed_oss", 524_288),
    ("smollm3", 32768),
    ("stablelm", 4096),
    ("starcoder2", 4096),
];

/// The number of positions that the model was made for, in its config or of its class.
///
/// # Errors
/// An error if it is no number, or if there is none.
pub(super) fn context(c: &Config) -> Result<f64> {
    let name = c.peek("model_type").and_then(|name| name.as_str());
    match OF_CLASSES.iter().find(|(class, _)| Some(*class) == name) {
        Some((_, context)) if c.missing(CONTEXT) => Ok(f64::from(*context)),
        _ => c.f64(CONTEXT),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn contexts_are_those_of_the_classes() {
        let fields: Value = serde_json::from_str(include_str!("../../tests/configs/class_fields.json")).unwrap();
        assert!(OF_CLASSES.len() > 50);
        for (name, context) in OF_CLASSES {
            assert_eq!(fields[name]["fields"][CONTEXT].as_u64(), Some(u64::from(*context)), "{name}");
        }
    }
}
