//! Tests of `estimate_vram` against measurements: memory at several sizes, bytes read, and the
//! effect of settings.

use std::process::Command;

use serde_json::{Value, json};

use crate::checkpoint::{self, Arrays};
use crate::project::{Outcome, Project, stripped};
use crate::streaming::{Shape, VOCAB, noise, ones};

/// How far the estimate of memory may be from the measured peak, either way.
pub const TOLERANCE: f64 = 0.15;

fn both(shape: &Shape, sequences: usize, length: usize, options: &str, extract: &str) -> (Value, Value) {
    both_with(&|project| shape.write(project), sequences, length, options, extract, &|_| ())
}

/// The estimate, and the measurements of a run with the same settings in a process of its own, which `with` prepares. `write`
/// makes the model.
pub fn both_with(
    write: &dyn Fn(&Project),
    sequences: usize,
    length: usize,
    options: &str,
    extract: &str,
    with: &dyn Fn(&mut Command),
) -> (Value, Value) {
    let project = Project::new();
    write(&project);
    let row: Vec<usize> = (0..length).map(|t| (t * 7 + 3) % 256).collect();
    project.file("ids.json", serde_json::to_string(&vec![row; sequences]).unwrap());
    let script = format!(
        "let model = load_model(\"model\", #{{ {options} }});
         let acts = model.extract(load_tokens(#{{ ids: \"ids.json\" }}), #{{ {extract} }});
         let estimate = estimate_vram(\"model\", #{{
             gpus: model.device.split(\",\").len(), num_sequences: {sequences}, sequence_length: {length}, {options}{comma}{extract}
         }});
         print(#{{ e: estimate, m: acts.measurements }}.to_json());",
        comma = if options.is_empty() || extract.is_empty() { "" } else { ", " },
    );
    // What a build has for debuggers is no memory of a run.
    let mut command = project.file("run.rhai", script).command_of(stripped(), &["run", "run.rhai"]);
    with(&mut command);
    let mut json = Outcome::of(command.output().unwrap()).json();
    (json["e"].take(), json["m"].take())
}

#[track_caller]
fn agree(shape: &Shape, sequences: usize, length: usize, options: &str, extract: &str) {
    close(both(shape, sequences, length, options, extract));
}

#[track_caller]
fn close((estimate, measured): (Value, Value)) {
    let (estimated, peak) =
        (estimate["total_bytes"].as_f64().unwrap(), measured["peak_memory_bytes"].as_f64().unwrap());
    println!("estimated {estimated} bytes, measured {peak}: {:.2}", estimated / peak);
    if cfg!(target_os = "linux") {
        assert!((estimated / peak - 1.0).abs() <= TOLERANCE, "estimated {estimate}, measured {measured}");
    }
}

/// Sizes of multi-head latent attention in a model like DeepSeek-V3, whose feed-forward networks are dense.
#[derive(Clone, Copy)]
pub struct Latent {
    /// Rank of the queries; without one they have a projection of their own.
    pub queries: Option<usize>,
    pub rank: usize,
    pub heads: usize,
    /// Sizes of the parts of a key without and with positions, and of a value.
    pub sizes: [usize; 3],
}

impl Latent {
    pub fn write(&self, project: &Project, hidden: usize) {
        let (inner, layers) = (hidden, 2);
        let Self { queries, rank, heads, sizes: [nope, rope, value] } = *self;
        let config = json!({
            "model_type": "deepseek_v3", "hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": VOCAB,
            "first_k_dense_replace": layers, "intermediate_size": inner, "moe_intermediate_size": inner,
            "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
            "num_attention_heads": heads, "num_key_value_heads": heads, "q_lora_rank": queries, "kv_lora_rank": rank,
            "qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": value, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        });
        let mut arrays = Arrays::new();
        let mut add = |name: String, shape: &[usize]| {
            let array = if shape.len() == 1 { ones(shape) } else { noise(&name, shape) };
            arrays.insert(format!("{name}.weight"), array);
        };
        add("model.embed_tokens".into(), &[VOCAB, hidden]);
        add("model.norm".into(), &[hidden]);
        add("lm_head".into(), &[VOCAB, hidden]);
        for layer in 0..layers {
            let mut add = |part: &str, shape: &[usize]| add(format!("model.layers.{layer}.{part}"), shape);
            add("input_layernorm", &[hidden]);
            add("post_attention_layernorm", &[hidden]);
            let q = heads * (nope + rope);
            match queries {
                None => add("self_attn.q_proj", &[q, hidden]),
                Some(rank) => {
                    add("self_attn.q_a_proj", &[rank, hidden]);
                    add("self_attn.q_a_layernorm", &[rank]);
                    add("self_attn.q_b_proj", &[q, rank]);
                }
            }
            add("self_attn.kv_a_proj_with_mqa", &[rank + rope, hidden]);
            add("self_attn.kv_a_layernorm", &[rank]);
            add("self_attn.kv_b_proj", &[heads * (nope + value), rank]);
            add("self_attn.o_proj", &[hidden, heads * value]);
            add("mlp.gate_proj", &[inner, hidden]);
            add("mlp.up_proj", &[inner, hidden]);
            add("mlp.down_proj", &[hidden, inner]);
        }
        project.file("model/config.json", config.to_string());
        checkpoint::write(&project.path("model/model.safetensors"), &arrays);
    }
}

/// Kinds of latent attention: long keys, long values, and queries without a latent.
pub const LATENT: [Latent; 3] = [
    Latent { queries: Some(64), rank: 64, heads: 16, sizes: [160, 32, 32] },
    Latent { queries: Some(64), rank: 64, heads: 16, sizes: [32, 32, 224] },
    Latent { queries: None, rank: 512, heads: 16, sizes: [64, 32, 64] },
];

#[test]
fn latent_attention_with_values_of_another_size_than_keys() {
    // Narrow layers and many tokens: queries, keys and values take 60 to 95 MB, which is far more than the program itself. How
    // much of that is in memory is the kernel's choice.
    for latent in LATENT {
        close(both_with(&|project| latent.write(project, 64), 128, 64, "", "", &|_| ()));
    }
}

#[test]
fn weights_are_most_of_it() {
    // Large layers, few tokens; enough of them that the next layer arrives while one computes.
    agree(&Shape { hidden: 1024, inner: 4096, experts: 0, layers: 3 }, 2, 32, "", "");
}

#[test]
fn activations_are_most_of_it() {
    agree(&Shape { hidden: 128, inner: 256, experts: 0, layers: 2 }, 64, 384, "", "");
}

#[test]
fn a_budget_bounds_the_workspace() {
    // Room for one sequence, where without a budget two are computed at once.
    agree(&Shape { hidden: 512, inner: 1024, experts: 0, layers: 2 }, 8, 384, "", "memory_budget: 10000000");
}

#[test]
fn one_layer_at_a_time() {
    agree(&Shape { hidden: 1024, inner: 2048, experts: 0, layers: 3 }, 4, 16, "chunk_layers: 1", "");
}

#[test]
fn experts_and_logits() {
    agree(&Shape { hidden: 512, inner: 512, experts: 8, layers: 2 }, 8, 256, "", "logits: true");
}

#[test]
fn what_is_measured_beside_the_norms_is_counted() {
    // Narrow layers and many tokens, so that the observers need more than the rest does.
    let shape = Shape { hidden: 192, inner: 768, experts: 0, layers: 2 };
    let alone = both(&shape, 16, 384, "", "").0["total_bytes"].as_f64().unwrap();
    let measures = "[\"outliers\", \"moments\", \"quantisation_error\", \"quantiles\", \"attribution\"]";
    let (estimate, measured) = both(&shape, 16, 384, "", &format!("sites: \"all\", observe: {measures}, dims: [3, 5]"));
    let (estimated, peak) =
        (estimate["total_bytes"].as_f64().unwrap(), measured["peak_memory_bytes"].as_f64().unwrap());
    println!("estimated {estimated} bytes, measured {peak}, without {alone}");
    assert!(estimated > 1.2 * alone, "{estimate} and {alone} without");
    // How many bins quantiles need, and how many rungs are reached, is not known beforehand.
    assert!((0.75..1.3).contains(&(estimated / peak)), "estimated {estimate}, measured {measured}");
}

#[test]
fn bf16() {
    agree(&Shape { hidden: 1024, inner: 2048, experts: 0, layers: 3 }, 4, 32, "dtype: \"bf16\"", "");
}

#[test]
fn what_is_read_is_what_was_announced_but_for_unused_embeddings() {
    let shape = Shape { hidden: 64, inner: 96, experts: 0, layers: 3 };
    let (estimate, measured) = both(&shape, 1, 256, "", "");
    assert_eq!(estimate["read_bytes"], measured["bytes_read"]);
}

#[test]
fn embeddings_per_layer_and_borrowed_keys_are_counted() {
    let project = Project::new();
    project.copy("tests/fixtures/gemma4_e", "own").copy("tests/fixtures/gemma4_e", "none");
    let config = project.text("none/config.json");
    let without = config
        .replace("\"hidden_size_per_layer_input\": 8", "\"hidden_size_per_layer_input\": 0")
        .replace("\"num_kv_shared_layers\": 3", "\"num_kv_shared_layers\": 0")
        .replace("\"use_double_wide_mlp\": true", "\"use_double_wide_mlp\": false");
    assert_ne!(config, without);
    project.file("plain/config.json", without).file("alone/config.json", config);
    let hidden = |model: &str| {
        let options = "#{ num_sequences: 32, sequence_length: 64 }";
        let json = project.script(&format!("print(estimate_vram(\"{model}\", {options}).to_json());")).json();
        json["hidden_bytes"].as_u64().unwrap()
    };
    let (tokens, vocab) = (32 * 64, 256);
    assert_eq!(hidden("plain"), tokens * 40 * 4);
    // Six layers of 8 numbers for each id, and the keys and values of one layer of each kind that later ones may still use.
    let most = tokens * 40 * 4 + vocab * 48 * 4 + tokens * 2 * (8 + 16) * 4;
    for model in ["alone", "own"] {
        assert!(hidden(model) > tokens * 40 * 4 + vocab * 48 * 4 && hidden(model) <= most, "{}", hidden(model));
    }
}

/// Bytes of a release of which there is nothing but the config.
fn announced(config: &Value) -> f64 {
    let project = Project::new();
    std::fs::create_dir_all(project.path("model")).unwrap();
    project.file("model/config.json", config.to_string());
    let script = "print(estimate_vram(\"model\", #{ num_sequences: 1, sequence_length: 64 }).to_json());";
    let estimate = project.file("run.rhai", script).run(&["run", "run.rhai"]).json();
    estimate["download_bytes"].as_f64().unwrap()
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} bytes, expected {expected}");
}

/// Experts in four bits with a scale in bf16 for each 32 columns, all else in bf16. Expected is the sum over the shapes.
#[test]
fn kimi_k2_thinking_is_counted_from_its_config_alone() {
    let mut config = json!({
        "model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168, "num_hidden_layers": 61,
        "vocab_size": 163840, "first_k_dense_replace": 1, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1,
        "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "routed_scaling_factor": 2.827,
        "moe_layer_freq": 1, "num_nextn_predict_layers": 0, "tie_word_embeddings": false, "attention_bias": false,
        "max_position_embeddings": 262144, "rope_theta": 50000.0,
    });
    config["quantization_config"] = json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
        "config_groups": { "group_0": {
            "targets": ["Linear"], "input_activations": null, "output_activations": null,
            "weights": {
                "num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "symmetric": true, "dynamic": false,
            },
        } },
    });
    let found = announced(&config);
    let hidden = 7168.0;
    let attention = (1536.0 + 576.0 + 64.0 * 128.0) * hidden + 64.0 * 192.0 * 1536.0 + 64.0 * 256.0 * 512.0 + 2048.0;
    let moe = 384.0 * hidden + 3.0 * hidden * 2048.0;
    let experts = 60.0 * 384.0 * 3.0 * hidden * 2048.0;
    let plain = 61.0 * (attention + 2.0 * hidden) + 3.0 * hidden * 18432.0 + 60.0 * moe + 2.0 * 163840.0 * hidden;
    let expected = 2.0 * plain + experts * (0.5 + 2.0 / 32.0);
    near(found, expected);
}

/// ModelOpt has all projections of layers in four bits, with a scale of a byte for each 16 columns; routers and head stay in bf16.
#[test]
fn qwen3_30b_in_nvfp4_is_counted_from_its_config_alone() {
    let routers = (0..48).map(|layer| format!("model.layers.{layer}.mlp.gate"));
    let plain: Vec<String> = std::iter::once("lm_head".to_string()).chain(routers).collect();
    let mut config = json!({
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 48,
        "vocab_size": 151936, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "intermediate_size": 6144, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": true, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "max_position_embeddings": 40960, "tie_word_embeddings": false, "attention_bias": false,
    });
    config["quantization_config"] = json!({ "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": plain });
    let found = announced(&config);
    let attention = 2.0 * 2048.0 * 4096.0 + 2.0 * 2048.0 * 512.0;
    let projections = 48.0 * (attention + 128.0 * 3.0 * 2048.0 * 768.0);
    let plain = 2.0 * 151936.0 * 2048.0 + 48.0 * (128.0 * 2048.0 + 2.0 * 2048.0 + 2.0 * 128.0);
    near(found, projections * (0.5 + 1.0 / 16.0) + 48.0 * (4.0 + 128.0 * 3.0) * 4.0 + 2.0 * plain);
}

#[test]
fn a_machine_estimates_without_an_option_map() {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    let script = r#"
        let gpu = provision_gpu();
        print(gpu.estimate_vram("model") == estimate_vram("model"));
        print(gpu.estimate_vram("model", #{ logits: true }).num_layers);
    "#;
    assert_eq!(project.script(script).ok(), "true\n3\n");
}
