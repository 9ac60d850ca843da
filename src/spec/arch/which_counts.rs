//! Tests of precedence between two spellings of a setting, and of keys without effect that releases
//! have, as in the configuration classes of transformers 5.23.

use serde_json::{Value, json};

use super::class_fields::{Keys, fixtures, outcome, read};
use super::*;
use crate::spec::{Layer, Mixer};

/// The config of the fixture in the folder `name`.
fn fixture(model_type: &str, name: &str) -> Keys {
    fixtures(model_type).into_iter().find(|(folder, _)| folder == name).expect("there is such a fixture").1
}

/// A config without the keys `left_out` and with those of `more`.
fn with(config: &Keys, left_out: &[&str], more: Value) -> Keys {
    let mut config = config.clone();
    config.retain(|key, _| !left_out.contains(&key.as_str()));
    config.extend(more.as_object().unwrap().clone());
    config
}

fn refused(config: &Keys) -> String {
    outcome(config).expect_err("the config is refused")
}

#[test]
fn gemma_4_that_sees_in_both_directions_was_computed_forwards() {
    let config = fixture("gemma4_text", "gemma4");
    let of = |value: Value| with(&config, &[], json!({"use_bidirectional_attention": value}));
    assert!(refused(&of(json!("all"))).contains("`use_bidirectional_attention` is \"all\""));
    assert_eq!(outcome(&of(json!("vision"))), outcome(&of(json!(null))));
    assert!(outcome(&config).is_ok());
}

#[test]
fn gemma_4_turned_a_quarter_where_its_rope_left_the_share_out() {
    let config = fixture("gemma4_text", "gemma4");
    let of = |rope: Value| with(&config, &[], json!({"rope_parameters": {"full_attention": rope}}));
    let whole = of(json!({"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 1.0}));
    let quarter = of(json!({"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}));
    assert_eq!(outcome(&of(json!({"rope_type": "proportional", "rope_theta": 1e6}))), outcome(&whole));
    assert_eq!(outcome(&with(&config, &["rope_parameters"], json!({}))), outcome(&quarter));
    assert_ne!(outcome(&whole), outcome(&quarter));
}

#[test]
fn gemma_4_as_transformers_5_saves_it_was_refused() {
    let config = fixture("gemma4_text", "gemma4");
    let layers = config["layer_types"].as_array().unwrap().iter().enumerate();
    let full: Vec<_> = layers.filter(|(_, kind)| *kind == "full_attention").map(|(i, _)| i).collect();
    assert!(full.len() > 1);
    let all = |own: Value| -> Value { full.iter().map(|i| (format!("{i:02}"), own.clone())).collect::<Keys>().into() };
    let global = ["global_head_dim", "num_global_key_value_heads"];
    let of = |own: Value| with(&config, &global, json!({"per_layer_config": own}));
    let own = json!({"head_dim": config[global[0]], "num_key_value_heads": config[global[1]]});
    assert_eq!(outcome(&of(all(own.clone()))), outcome(&config));
    // It has precedence over the older keys, and values that it leaves out are those of other
    // layers.
    let both = with(&config, &[], json!({"global_head_dim": 64, "per_layer_config": all(own.clone())}));
    assert_eq!(outcome(&both), outcome(&config));
    let plain = with(&config, &[], json!({"global_head_dim": config["head_dim"], "num_global_key_value_heads": null}));
    assert_eq!(outcome(&of(json!({}))), outcome(&plain));
    let first = full[0].to_string();
    for odd in [
        json!({first: own}),
        json!({"0": {"head_dim": 24}}),
        json!({"99": {"head_dim": 24}}),
        json!({"0": 24}),
        all(json!({"intermediate_size": 8})),
        all(json!({"head_dim": "24"})),
        json!([]),
    ] {
        assert!(refused(&of(odd.clone())).contains("`per_layer_config`"), "{odd}");
    }
}

#[test]
fn the_last_layer_of_gemma_4_sees_everything_whatever_the_list_says() {
    let config = fixture("gemma4_text", "gemma4");
    let mut types = config["layer_types"].as_array().unwrap().clone();
    *types.last_mut().unwrap() = json!("sliding_attention");
    assert_eq!(outcome(&with(&config, &[], json!({"layer_types": types}))), outcome(&config));
}

#[test]
fn phi_3_takes_the_original_context_of_its_class() {
    let config = fixture("phi3", "phi3");
    let factors = vec![1.25; 64];
    let of = |inside: Value, beside: Value| {
        let mut scaling = json!({"type": "longrope", "short_factor": factors, "long_factor": factors});
        scaling.as_object_mut().unwrap().extend(inside.as_object().unwrap().clone());
        let sizes = json!({"max_position_embeddings": 131_072, "hidden_size": 512, "num_attention_heads": 4,
            "num_key_value_heads": 4, "rope_scaling": scaling});
        let left_out = ["original_max_position_embeddings", "rope_parameters", "rope_theta", "partial_rotary_factor"];
        outcome(&with(&with(&config, &left_out, sizes), &[], beside))
    };
    let said = of(json!({}), json!({"original_max_position_embeddings": 4096}));
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(of(json!({}), json!({})), said);
    assert_eq!(of(json!({"original_max_position_embeddings": 8192}), json!({})), said);
    assert_ne!(of(json!({}), json!({"original_max_position_embeddings": 8192})), said);
}

#[test]
fn gpt_neox_turned_by_names_that_its_class_does_not_read() {
    let config = fixture("gpt_neox", "gpt_neox");
    let plain = outcome(&config);
    assert!(plain.is_ok());
    for unread in [json!({"rope_theta": 1e6}), json!({"partial_rotary_factor": 1.0})] {
        assert_eq!(outcome(&with(&config, &[], unread.clone())), plain, "{unread}");
        // Keys that are missing have the defaults, and these do not replace them.
        assert_eq!(outcome(&with(&config, &["rotary_emb_base", "rotary_pct"], unread.clone())), plain, "{unread}");
    }
    assert_ne!(outcome(&with(&config, &[], json!({"rotary_emb_base": 1e6}))), plain);
    let inside = json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25, "rope_type": "default"}});
    assert_eq!(outcome(&with(&config, &[], with(&Keys::new(), &[], inside.clone()).into())), plain);
    assert_eq!(outcome(&with(&with(&config, &[], inside), &[], json!({"rotary_emb_base": 1e6}))), plain);
}

#[test]
fn apertus_without_an_object_for_its_rope_has_the_base_of_its_class() {
    let config = with(&fixture("apertus", "apertus"), &["rope_scaling", "rope_parameters", "rope_theta"], json!({}));
    let plain = outcome(&config);
    assert!(plain.is_ok());
    assert_eq!(outcome(&with(&config, &[], json!({"rope_theta": 5e5}))), plain);
    let object = json!({"rope_type": "default"});
    let of = |theta: f64| outcome(&with(&config, &[], json!({"rope_theta": theta, "rope_scaling": object})));
    assert_ne!(of(5e5), of(12e6), "beside an object it counts");
}

#[test]
fn an_original_context_beside_ropes_by_type_of_layer_does_not_count() {
    let config = with(&fixture("qwen2", "qwen2"), &["rope_theta"], json!({"max_position_embeddings": 64}));
    let rope = json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16});
    let objects = json!({"rope_parameters": {"full_attention": rope}});
    let plain = outcome(&with(&config, &[], objects.clone()));
    assert!(plain.is_ok(), "{plain:?}");
    let beside = with(&with(&config, &[], objects), &[], json!({"original_max_position_embeddings": 32}));
    assert_eq!(outcome(&beside), plain);
}

#[test]
fn layers_of_nemotron_h_are_as_many_as_are_described_and_words_count_before_letters() {
    let config = with(&fixture("nemotron_h", "nemotron_h"), &["layers_block_type"], json!({"num_hidden_layers": 4}));
    let of = |more: Value| outcome(&with(&config, &["hybrid_override_pattern", "layers_block_type"], more));
    let plain = of(json!({"hybrid_override_pattern": "M*-E"}));
    assert!(plain.is_ok(), "{plain:?}");
    assert_eq!(of(json!({"hybrid_override_pattern": "M*-E", "num_hidden_layers": 99})), plain);
    let words = json!(["linear_attention", "full_attention", "mlp", "moe"]);
    assert_eq!(of(json!({"hybrid_override_pattern": "MMMM", "layers_block_type": words})), plain);
    assert!(of(json!({"hybrid_override_pattern": ""})).unwrap_err().contains("describes no layer"));
}

#[test]
fn older_names_of_nemotron_h_were_refused() {
    let config = fixture("nemotron_h", "nemotron_h");
    let plain = outcome(&config);
    for (old, new, other) in [
        ("mamba_n_groups", "n_groups", json!(1)),
        ("mamba_d_conv", "conv_kernel", json!(2)),
        ("mamba_conv_bias", "use_conv_bias", json!(false)),
        ("mamba_dt_min", "time_step_min", json!(0.5)),
    ] {
        let renamed = outcome(&with(&config, &[new], json!({old: other})));
        assert_eq!(renamed, outcome(&with(&config, &[], json!({new: other}))), "{old}");
        assert_eq!(renamed, outcome(&with(&config, &[], json!({old: other}))), "{old} counts more");
        assert_ne!(renamed, plain, "{old}");
    }
    let others = json!({"mamba_expand": 2, "mamba_chunk_size": 128, "mamba_dt_max": 0.1, "mamba_dt_init_floor": 1e-4,
        "mamba_dt_limit": [0.0, "Infinity"]});
    assert_eq!(outcome(&with(&config, &[], others)), plain);
}

#[test]
fn older_names_of_lfm2_count_more() {
    let config = fixture("lfm2", "lfm2");
    let tied = |more: Value| read(&with(&config, &["tie_embedding", "tie_word_embeddings"], more)).unwrap().tied;
    assert!(tied(json!({})) && tied(json!({"tie_embedding": true})));
    assert!(!tied(json!({"tie_embedding": false})) && !tied(json!({"tie_word_embeddings": false})));
    assert!(!tied(json!({"tie_embedding": false, "tie_word_embeddings": true})));
    let both = with(&config, &[], json!({"intermediate_size": 4000, "theta": 1e6}));
    assert_eq!(outcome(&both), outcome(&config));
}

#[test]
fn experts_of_hy_3_have_the_width_that_transformers_reads() {
    let config = fixture("hy_v3", "hy_v3");
    assert_eq!(outcome(&with(&config, &[], json!({"expert_hidden_dim": 4000}))), outcome(&config));
}

/// If transformers makes the model around a language model, the config of the whole decides whether
/// head and embedding are tied. For Llama 4 and Qwen3.5 it makes only the language model.
#[test]
fn who_says_that_a_head_inside_a_larger_model_is_tied() {
    let tied = |around: &str, inside: Keys, whole: Value, own: Value| {
        let inside = with(&with(&inside, &["tie_word_embeddings"], json!({})), &[], own);
        let mut config = json!({"model_type": around, "text_config": inside});
        config.as_object_mut().unwrap().extend(whole.as_object().unwrap().clone());
        let (text, nested) = language_model(Config::parse(&config.to_string(), "config.json").unwrap()).unwrap();
        assert!(nested);
        model(&text, &Released).unwrap().tied
    };
    let says = |value: bool| json!({"tie_word_embeddings": value});
    for (around, inside, folder) in [
        ("mistral3", "ministral3", "ministral3"),
        ("mistral3", "mistral", "mistral"),
        ("gemma3", "gemma3_text", "gemma3_text"),
        ("gemma4", "gemma4_text", "gemma4"),
        ("kimi_k25", "kimi_k2", "kimi_k2"),
    ] {
        let tied = |whole: Value, own: Value| tied(around, fixture(inside, folder), whole, own);
        assert!(tied(json!({}), json!({})) && tied(json!({}), says(false)), "{around}");
        assert!(tied(says(true), says(false)) && !tied(says(false), says(true)), "{around}");
    }
    for (around, inside, folder) in [("llama4", "llama4_text", "llama4"), ("qwen3_5", "qwen3_5_text", "qwen3_5")] {
        let tied = |whole: Value, own: Value| tied(around, fixture(inside, folder), whole, own);
        assert!(!tied(json!({}), json!({})) && !tied(says(true), says(false)), "{around}");
        assert!(tied(says(false), says(true)), "{around}");
    }
}

/// These keys were "not understood".
#[test]
fn keys_of_releases_that_change_nothing() {
    for (model_type, keys) in [
        ("nemotron_h", json!({"attention_head_dim": 128, "rms_norm_eps": 1e-5, "num_query_groups": 8})),
        ("gemma2", json!({"sliding_window_size": 4096})),
        ("phimoe", json!({"expert_dropout": 0.0})),
        ("qwen2", json!({"dual_chunk_attention_config": {"chunk_size": 262_144, "local_size": 8192}})),
        (
            "gpt_neox",
            json!({"num_steps": "global_step301000", "custom_pipelines": {"text-generation": {"impl": "x.py"}}}),
        ),
        ("stablelm", json!({"num_heads": 32, "norm_eps": 1e-5, "rope_pct": 0.25, "rotary_scaling_factor": 1.0})),
        ("starcoder2", json!({"activation_function": "gelu"})),
        ("hunyuan_v1_dense", json!({"use_mla": false, "moe_topk": 1, "skip_cls_token": false})),
        ("nemotron", json!({"rope_percent": 0.5})),
        ("gptj", json!({"n_ctx": 2048})),
        ("deepseek_v3", json!({"num_mtp_layers": 1, "mlp_bias": false})),
    ] {
        let (folder, config) = fixtures(model_type).remove(0);
        let plain = outcome(&config);
        assert!(plain.is_ok(), "{folder}");
        assert_eq!(outcome(&with(&config, &[], keys)), plain, "{folder}");
    }
}

#[test]
fn biases_of_trinity_and_hy_3_are_those_of_their_classes() {
    for model_type in ["afmoe", "hy_v3"] {
        let model = read(&with(&fixture(model_type, model_type), &[], json!({"attention_bias": true}))).unwrap();
        let biased = |layer: &Layer| match &layer.mixer.as_ref().unwrap().body {
            Mixer::Attention(attention) => attention.out.bias.is_some(),
            _ => false,
        };
        assert!(model.layers.iter().all(biased), "{model_type}");
    }
}

#[test]
fn a_number_that_python_reads_as_infinity_was_no_number() {
    let text = Value::Object(with(&fixture("llama", "llama"), &["initializer_range"], json!({}))).to_string();
    let odd = text.replacen('{', r#"{"initializer_range": 1e999, "layer_norm_init": -1e999, "#, 1);
    let error = Config::parse(&odd, "config.json").and_then(|config| model(&config, &Released)).unwrap_err();
    assert!(error.message.contains("not understood: `layer_norm_init`: -Infinity"), "{error}");
    let odd = text.replacen('{', r#"{"initializer_range": 1e999, "#, 1);
    model(&Config::parse(&odd, "config.json").unwrap(), &Released).unwrap();
}

#[test]
fn a_null_of_a_switch_that_is_on_by_default_is_off() {
    for (model_type, folder, key) in [
        ("deepseek_v3", "deepseek_v3", "rope_interleave"),
        ("deepseek_v3", "deepseek_v3", "norm_topk_prob"),
        ("falcon", "falcon_rw", "multi_query"),
        ("falcon", "falcon_rw", "parallel_attn"),
    ] {
        let config = fixture(model_type, folder);
        let of = |value: Value| outcome(&with(&config, &[], json!({key: value})));
        assert_eq!(of(json!(null)), of(json!(false)), "{key}");
        assert_ne!(of(json!(null)), of(json!(true)), "{key}");
    }
}
