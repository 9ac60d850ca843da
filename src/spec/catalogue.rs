//! The table of supported architectures: releases of each, the modules of its two norms, and how it
//! was verified.
//!
//! `outlier models` prints the table, and docs/models.md shows it. Tests compare it with the
//! fixtures and with the errors measured on them.

/// A `model_type` that the program computes.
#[derive(Debug)]
pub struct Architecture {
    pub model_type: &'static str,
    /// Larger models around it whose language model is computed.
    pub inside: &'static [&'static str],
    pub kind: &'static str,
    /// Examples of releases.
    pub releases: &'static str,
    /// The modules of transformers whose outputs are the sites `input_layernorm` and
    /// `post_attention_layernorm`.
    pub norms: [&'static str; 2],
    /// Folders of tests/fixtures: small random models of this type, with the outputs of
    /// transformers.
    pub fixtures: &'static [&'static str],
    /// The largest ‖a − b‖ / ‖b‖ of any norm output, the last logits or the losses of the fixtures
    /// in f32: against transformers in f32, and against the same description computed in f64
    /// (`reference`). It has 1 digit and was measured with AVX-512.
    pub apart: [f64; 2],
}

/// The meaning of `apart`, in words.
pub const COMPARED: &str = "Compared are the outputs of both norms of every layer, the logits of the last token and the mean loss, in \
                            f32: with Hugging Face transformers 5.23 (f32, eager attention), and with a second computation of this \
                            program in f64, which shares no kernel with the first. The figures are the largest ‖a − b‖ / ‖b‖ of any of them. Weights are read in \
                            BF16, F16 and F32 and in every quantised format of docs/quantised.md.";

impl Architecture {
    /// The names in config.json, such as "`kimi_k2`, inside `kimi_k25`".
    pub fn names(&self) -> String {
        match self.inside {
            [] => self.model_type.to_string(),
            all => format!("{}, inside {}", self.model_type, all.join(", ")),
        }
    }
}

/// The modules of the two norms if they have the names of the sites.
const USUAL: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];
const GEMMA: [&str; 2] = ["input_layernorm", "pre_feedforward_layernorm"];
/// No norm stands before a sublayer: the site is the residual stream itself.
const STREAM: [&str; 2] = ["the stream that enters the layer", "the stream between both sublayers"];
const ONE: &str = "the same norm";

const fn row(
    model_type: &'static str,
    inside: &'static [&'static str],
    kind: &'static str,
    releases: &'static str,
    norms: [&'static str; 2],
    fixtures: &'static [&'static str],
    apart: [f64; 2],
) -> Architecture {
    Architecture { model_type, inside, kind, releases, norms, fixtures, apart }
}

/// All architectures, in the order of their names.
#[rustfmt::skip]
pub const ARCHITECTURES: &[Architecture] = &[
    row("afmoe", &[], "mixture of experts, sandwich norms", "Trinity Nano, Mini, Large",
        ["input_layernorm", "pre_mlp_layernorm"], &["afmoe"], [7e-07, 7e-07]),
    row("apertus", &[], "dense", "Apertus-8B, Apertus-70B",
        ["attention_layernorm", "feedforward_layernorm"], &["apertus"], [4e-07, 3e-07]),
    row("bloom", &[], "dense, linear biases", "BLOOM and BLOOMZ in all sizes",
        USUAL, &["bloom"], [4e-07, 5e-07]),
    row("cohere", &[], "dense, parallel", "Command R and R+, Aya 23",
        ["input_layernorm", ONE], &["cohere", "cohere_plus"], [6e-07, 5e-07]),
    row("cohere2", &[], "dense, parallel, windows", "Command R7B, Command A, Aya Expanse",
        ["input_layernorm", ONE], &["cohere2"], [5e-07, 7e-07]),
    row("deepseek_v2", &[], "mixture of experts, latent attention", "DeepSeek-V2 and V2-Lite, DeepSeek-Coder-V2",
        USUAL, &["deepseek_v2"], [7e-07, 6e-07]),
    row("deepseek_v3", &[], "mixture of experts, latent attention", "DeepSeek-V3, R1",
        USUAL, &["deepseek_v3"], [6e-07, 6e-07]),
    row("deepseek_v32", &[], "mixture of experts, latent attention",
        "DeepSeek-V3.2, for sequences up to `index_topk` tokens",
        USUAL, &["deepseek_v32"], [2e-06, 6e-07]),
    row("dots1", &[], "mixture of experts", "dots.llm1",
        USUAL, &["dots1"], [6e-07, 6e-07]),
    row("ernie4_5_moe", &[], "mixture of experts", "ERNIE-4.5-21B-A3B, 300B-A47B",
        USUAL, &["ernie4_5_moe"], [8e-07, 1e-06]),
    row("exaone4", &[], "dense", "EXAONE-4.0-1.2B, EXAONE-4.0-32B",
        STREAM, &["exaone4"], [6e-07, 4e-07]),
    row("falcon", &[], "dense, parallel", "Falcon-7B, 11B, 40B, 180B and RW",
        ["input_layernorm; ln_attn in 40B and 180B",
            "the same norm; ln_mlp in 40B and 180B; post_attention_layernorm in RW"],
        &["falcon", "falcon_11b", "falcon_40b", "falcon_rw"], [3e-06, 3e-06]),
    row("gemma", &[], "dense", "Gemma, CodeGemma",
        USUAL, &["gemma"], [2e-06, 8e-07]),
    row("gemma2", &[], "dense, sandwich norms", "Gemma 2",
        GEMMA, &["gemma2"], [8e-07, 9e-07]),
    row("gemma3_text", &["gemma3"], "dense", "Gemma 3; of the models that see, the language model",
        GEMMA, &["gemma3_text", "gemma3_vlm"], [2e-06, 9e-07]),
    row("gemma4_text", &["gemma4"], "dense, sandwich norms, embeddings per layer", "Gemma 4 31B, E2B and E4B",
        GEMMA, &["gemma4", "gemma4_e"], [2e-06, 2e-06]),
    row("glm4", &[], "dense", "GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1",
        USUAL, &["glm4"], [5e-07, 6e-07]),
    row("glm4_moe", &[], "mixture of experts", "GLM-4.5",
        USUAL, &["glm4_moe"], [6e-07, 6e-07]),
    row("glm4_moe_lite", &[], "mixture of experts, latent attention", "GLM-4.7-Flash",
        USUAL, &["glm4_moe_lite"], [4e-07, 4e-07]),
    row("glm_moe_dsa", &[], "mixture of experts, latent attention", "GLM-5, for sequences up to `index_topk` tokens",
        USUAL, &["glm_moe_dsa"], [4e-07, 4e-07]),
    row("gpt2", &[], "dense", "GPT-2 in all sizes",
        ["ln_1", "ln_2"], &["gpt2", "gpt2_lm"], [2e-06, 7e-07]),
    row("gpt_neo", &[], "dense, windows", "GPT-Neo-125M to 2.7B",
        ["ln_1", "ln_2"], &["gpt_neo"], [2e-06, 9e-07]),
    row("gpt_neox", &[], "dense, parallel", "Pythia in all sizes, GPT-NeoX-20B",
        USUAL, &["gpt_neox"], [3e-07, 4e-07]),
    row("gpt_oss", &[], "mixture of experts", "gpt-oss-20b, gpt-oss-120b, with their four-bit weights (MXFP4)",
        USUAL, &["gpt_oss", "gpt_oss_bf16"], [2e-06, 2e-06]),
    row("gptj", &[], "dense, parallel", "GPT-J-6B",
        ["ln_1", ONE], &["gptj"], [2e-06, 7e-07]),
    row("granite", &[], "dense", "Granite 3",
        USUAL, &["granite"], [3e-07, 2e-07]),
    row("granitemoe", &[], "mixture of experts", "Granite 3.0 and 3.1 with experts",
        USUAL, &["granitemoe"], [3e-07, 2e-07]),
    row("hunyuan_v1_dense", &[], "dense", "Hunyuan-0.5B to 7B",
        USUAL, &["hunyuan_v1_dense"], [9e-07, 1e-06]),
    row("hunyuan_v1_moe", &[], "mixture of experts", "Hunyuan-A13B",
        USUAL, &["hunyuan_v1_moe"], [1e-06, 2e-06]),
    row("hy_v3", &[], "mixture of experts", "Hy3",
        USUAL, &["hy_v3"], [5e-07, 5e-07]),
    row("kimi_k2", &["kimi_k25"], "mixture of experts, latent attention", "Kimi K2, K2.5, K2.6",
        USUAL, &["kimi_k2", "kimi_k25"], [8e-07, 9e-07]),
    row("lfm2", &[], "dense, short convolutions", "LFM2-350M to 2.6B",
        ["operator_norm", "ffn_norm"], &["lfm2"], [7e-07, 9e-07]),
    row("llama", &[], "dense", "Llama 2 and 3, SmolLM2, TinyLlama, Yi, Vicuna, CodeLlama",
        USUAL,
        &["llama", "llama_dynamic", "llama_linear", "llama_longrope", "llama_square", "llama_yarn"], [9e-07, 2e-06]),
    row("llama4_text", &["llama4"], "mixture of experts, chunked attention", "Llama 4 Scout, Maverick",
        USUAL, &["llama4", "llama4_text"], [6e-07, 8e-07]),
    row("minimax_m2", &[], "mixture of experts", "MiniMax-M2",
        USUAL, &["minimax_m2"], [6e-07, 4e-07]),
    row("ministral3", &["mistral3"], "dense", "Ministral 3, Devstral 2",
        USUAL, &["ministral3"], [5e-07, 5e-07]),
    row("mistral", &["mistral3"], "dense", "Mistral 7B, Mistral-Nemo, Mistral-Small-24B-2501, Zephyr",
        USUAL, &["mistral", "mistral3"], [7e-07, 5e-07]),
    row("mistral4", &["mistral3"], "mixture of experts, latent attention", "Mistral Small 4",
        USUAL, &["mistral4", "mistral4_nested"], [2e-06, 1e-06]),
    row("mixtral", &[], "mixture of experts", "Mixtral-8x7B, Mixtral-8x22B",
        USUAL, &["mixtral"], [9e-07, 4e-07]),
    row("mpt", &[], "dense, linear biases", "MPT-7B, MPT-30B",
        ["norm_1", "norm_2"], &["mpt"], [4e-06, 5e-06]),
    row("nemotron", &[], "dense", "Nemotron-4, Minitron",
        USUAL, &["nemotron"], [5e-07, 4e-07]),
    row("nemotron_h", &[], "hybrid with Mamba-2, dense or mixtures", "Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano",
        ["norm, of a layer with a mixer", "norm, of a layer with a feed-forward network"],
        &["nemotron_h"], [5e-07, 6e-07]),
    row("olmo2", &[], "dense, norms behind", "OLMo 2 in all sizes",
        STREAM, &["olmo2"], [4e-07, 4e-07]),
    row("olmo3", &[], "dense", "OLMo 3",
        STREAM, &["olmo3"], [5e-07, 4e-07]),
    row("olmoe", &[], "mixture of experts", "OLMoE-1B-7B",
        USUAL, &["olmoe"], [4e-07, 3e-07]),
    row("opt", &[], "dense", "OPT-125M to OPT-66B",
        ["self_attn_layer_norm; the stream in 350M", "final_layer_norm; the stream in 350M"],
        &["opt", "opt_350m"], [5e-07, 4e-07]),
    row("phi", &[], "dense, parallel", "Phi-1, Phi-1.5, Phi-2",
        ["input_layernorm", ONE], &["phi"], [8e-07, 9e-07]),
    row("phi3", &[], "dense", "Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini",
        USUAL, &["phi3", "phi3_4k"], [2e-06, 2e-06]),
    row("phimoe", &[], "mixture of experts", "Phi-3.5-MoE",
        USUAL, &["phimoe"], [7e-07, 7e-07]),
    row("qwen2", &[], "dense", "Qwen2, Qwen2.5, QwQ-32B, DeepSeek-R1-Distill-Qwen",
        USUAL, &["qwen2"], [6e-07, 4e-07]),
    row("qwen2_moe", &[], "mixture of experts", "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
        USUAL, &["qwen2_moe"], [9e-07, 6e-07]),
    row("qwen3", &[], "dense", "Qwen3-0.6B to Qwen3-32B",
        USUAL, &["qwen3"], [2e-06, 2e-06]),
    row("qwen3_5_moe_text", &["qwen3_5_moe"], "mixture of experts, linear attention", "Qwen3.5-35B-A3B and larger",
        USUAL, &["qwen3_5_moe", "qwen3_5_moe_names"], [3e-06, 5e-06]),
    row("qwen3_5_text", &["qwen3_5"], "dense, linear attention", "Qwen3.5, the dense sizes",
        USUAL, &["qwen3_5"], [4e-06, 4e-06]),
    row("qwen3_moe", &[], "mixture of experts", "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder",
        USUAL, &["qwen3_moe"], [4e-07, 3e-07]),
    row("qwen3_next", &[], "mixture of experts, linear attention", "Qwen3-Next-80B",
        USUAL, &["qwen3_next"], [5e-06, 7e-06]),
    row("seed_oss", &[], "dense", "Seed-OSS-36B",
        USUAL, &["seed_oss"], [5e-07, 6e-07]),
    row("smollm3", &[], "dense", "SmolLM3-3B",
        USUAL, &["smollm3"], [1e-06, 9e-07]),
    row("stablelm", &[], "dense", "StableLM 3B, StableLM 2 1.6B and 12B",
        ["input_layernorm", "post_attention_layernorm; the same norm in 12B"],
        &["stablelm", "stablelm_12b"], [7e-07, 6e-07]),
    row("starcoder2", &[], "dense", "StarCoder2-3B to StarCoder2-15B",
        USUAL, &["starcoder2"], [2e-06, 2e-06]),
];

/// The architecture of a fixture.
pub fn of_fixture(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|one| one.fixtures.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::spec::arch;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.md");
    /// The marks around the tables in the page.
    const MARKS: [[&str; 2]; 2] = [
        ["<!-- architectures -->\n", "<!-- end of architectures -->\n"],
        ["<!-- verified -->\n", "<!-- end of verified -->\n"],
    ];

    fn code(names: &[&str]) -> String {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    fn lists() -> [String; 2] {
        let mut kinds = "| `model_type` | kind | released models of this type |\n|---|---|---|\n".to_string();
        let mut verified = "| `model_type` | `input_layernorm` | `post_attention_layernorm` | fixtures | from transformers | from f64 |\n|---|---|---|---|---|---|\n"
            .to_string();
        for one in ARCHITECTURES {
            let name = format!("`{}`", one.model_type);
            let inside = if one.inside.is_empty() { String::new() } else { format!(", inside {}", code(one.inside)) };
            writeln!(kinds, "| {name}{inside} | {} | {} |", one.kind, one.releases).unwrap();
            let ([input, post], [apart, second]) = (one.norms, one.apart);
            let fixtures = code(one.fixtures);
            writeln!(verified, "| {name} | {input} | {post} | {fixtures} | {apart:.0e} | {second:.0e} |").unwrap();
        }
        [kinds, verified]
    }

    /// `REWRITE=1 cargo test --lib the_page` writes the tables.
    #[test]
    fn the_page_holds_both_tables() {
        let mut page = std::fs::read_to_string(PAGE).unwrap();
        let as_it_is = page.clone();
        for ([begin, end], table) in MARKS.iter().zip(lists()) {
            let (before, rest) = page.split_once(begin).unwrap();
            let (_, after) = rest.split_once(end).unwrap();
            page = format!("{before}{begin}{table}{end}{after}");
        }
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(PAGE, page).unwrap();
            return;
        }
        assert!(page == as_it_is, "REWRITE=1 cargo test --lib the_page");
    }

    #[test]
    fn every_architecture_has_one_row() {
        let listed: Vec<_> = ARCHITECTURES.iter().map(|one| one.model_type).collect();
        assert_eq!(listed, arch::supported().collect::<Vec<_>>(), "in the order of their names");
        assert!(listed.is_sorted_by(|a, b| a < b), "each once");
        let mut around: Vec<_> = ARCHITECTURES.iter().flat_map(|one| one.inside).copied().collect();
        around.sort_unstable();
        around.dedup();
        assert_eq!(around, arch::around().collect::<Vec<_>>());
    }

    #[test]
    fn the_fixtures_of_a_row_are_all_that_there_are_of_its_type() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(path.join("config.json")) else { continue };
            let config: Value = serde_json::from_str(&text.replace("Infinity", "1e9")).unwrap();
            let model_type = config.get("text_config").unwrap_or(&config)["model_type"].as_str().unwrap().to_string();
            found.entry(model_type).or_default().push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        found.values_mut().for_each(|names| names.sort());
        let listed = ARCHITECTURES.iter().map(|one| {
            let mut fixtures: Vec<_> = one.fixtures.iter().map(|name| name.to_string()).collect();
            fixtures.sort();
            (one.model_type.to_string(), fixtures)
        });
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), found);
    }
}
