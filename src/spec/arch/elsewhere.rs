//! Values of `model_type` in transformers 5.23 that this program does not support. Such a name is
//! not a misspelling, and another name in its place would give wrong numbers.

/// Sorted by name.
#[rustfmt::skip]
pub(super) const NAMES: &[&str] = &[
    "albert", "arcee", "aria", "aria_text", "axk1", "axk2", "aya_vision", "bailing_hybrid", "bamba", "bart", "bert", "bert-generation",
    "big_bird", "bigbird_pegasus", "biogpt", "bitnet", "blenderbot", "blenderbot-small", "blt", "camembert", "chameleon", "chatglm",
    "clip", "codegen", "cohere2_moe", "cohere2_vision", "cpmant", "ctrl", "cwm", "dbrx", "deberta", "deberta-v2", "deepseek_v4",
    "diffllama", "distilbert", "doge", "electra", "emu3", "ernie", "ernie4_5", "esm", "exaone", "exaone_moe", "falcon_h1", "falcon_mamba",
    "flex_olmo", "florence2", "fuyu", "gemma3n", "gemma3n_text", "gemma4", "git", "glm", "glm4v", "glm4v_moe", "got_ocr2", "gpt-sw3",
    "gpt_bigcode", "gpt_neox_japanese", "granitemoehybrid", "granitemoeshared", "helium", "hyperclovax", "idefics2", "idefics3",
    "internlm2", "internlm3", "internvl", "jais2", "jamba", "jetmoe", "kimi_linear", "led", "lfm2_moe", "lfm2_vl", "llava", "llava_next",
    "llava_onevision", "longcat_flash", "longformer", "longt5", "mamba", "mamba2", "marian", "mbart", "mellum", "mimo_v2_flash",
    "minicpm", "minicpm3", "minimax", "ministral", "mllama", "mobilebert", "modernbert", "modernbert-decoder", "moshi", "mpnet", "mt5",
    "mvp", "nanochat", "nomic_bert", "olmo", "olmo_hybrid", "openai-gpt", "paligemma", "pegasus", "persimmon", "phi3_v",
    "phi4_multimodal", "pixtral", "plbart", "prophetnet", "qwen", "qwen2_5_omni", "qwen2_5_vl", "qwen2_audio", "qwen2_vl", "qwen3_5",
    "qwen3_5_moe", "qwen3_omni_moe", "qwen3_vl", "qwen3_vl_moe", "recurrent_gemma", "reformer", "rembert", "roberta", "roc_bert",
    "roformer", "rwkv", "siglip", "smolvlm", "solar_open", "switch_transformers", "t5", "t5gemma", "umt5", "vaultgemma", "whisper",
    "xglm", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xlstm", "youtu", "zamba", "zamba2",
];

#[cfg(test)]
mod tests {
    use super::super::supported;
    use super::NAMES;

    #[test]
    fn no_name_is_computed_here_and_stands_here_as_well() {
        assert!(NAMES.is_sorted());
        assert_eq!(supported().filter(|name| NAMES.contains(name)).collect::<Vec<_>>(), [""; 0]);
    }
}
