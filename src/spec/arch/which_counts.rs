//! Tests of precedence between two spellings of a setting, and of keys without effect that releases
//! have, as in the configuration classes of transformers 5.23.

use serde_json::{Value, json};

use super::class_fields::{Keys, fixtures, outcome, read};
use super::*;
use crate::spec::{Ffn, Layer, Mixer};
use crate::vocabulary::Activation;

/// The config of the fixture in the folder `name`.
pub(super) fn fixture(model_type: &str, name: &str) -> Keys {
    fixtures(model_type).into_iter().find(|(folder, _)| folder == name).expect("there is such a fixture").1
}

/// A config without the keys `left_out` and with those of `more`.
pub(super) fn with(config: &Keys, left_out: &[&str], more: Value) -> Keys {
    let mut config = config.clone();
    config.retain(|key, _| !left_out.contains(&key.as_str()));
    config.extend(more.as_object().unwrap().clone());
    config
}

pub(super) fn refused(config: &Keys) -> String {
    outcome(config).expect_err("the config is refused")
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
/// head and embedding are tied. The heads of Llama 4 and Qwen3.5 were missing if only the whole
/// ties them.
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
    // A head that is not in the files is tied where either says so: the class of the language model
    // goes by the one, that of the whole by the other.
    for (around, inside, folder) in [("llama4", "llama4_text", "llama4"), ("qwen3_5", "qwen3_5_text", "qwen3_5")] {
        let tied = |whole: Value, own: Value| tied(around, fixture(inside, folder), whole, own);
        assert!(!tied(json!({}), json!({})) && !tied(says(false), says(false)), "{around}");
        assert!(tied(says(true), json!({})) && tied(says(true), says(false)), "{around}");
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
        ("dots1", json!({"num_nextn_predict_layers": 0})),
        ("ernie4_5_moe", json!({"use_rmsnorm": true, "multi_token_pred_lambda": 0.1, "use_recompute_moe": false})),
        ("hunyuan_v1_dense", json!({"routed_scaling_factor": 1.0})),
        ("mpt", json!({"ffn_config": {"fc_type": "torch", "ffn_type": "mptmlp"}, "norm_eps": 1e-5})),
        ("gpt2", json!({"model_parallel": false})),
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

/// It was taken for a share that is left out, and a part of each head turned.
#[test]
fn a_null_in_place_of_the_share_of_a_head_turns_whole_heads() {
    for (model_type, folder) in [("glm4", "glm4"), ("glm4_moe", "glm4_moe"), ("qwen3_next", "qwen3_next")] {
        let config = fixture(model_type, folder);
        let of =
            |value: Value| outcome(&with(&config, &["partial_rotary_factor"], json!({"partial_rotary_factor": value})));
        assert_eq!(of(json!(null)), of(json!(1.0)), "{model_type}");
        assert_ne!(of(json!(null)), outcome(&config), "{model_type}");
    }
    // KeyError or TypeError of transformers.
    for (model_type, folder, key) in [
        ("phi", "phi", "partial_rotary_factor"),
        ("stablelm", "stablelm", "partial_rotary_factor"),
        ("nemotron", "nemotron", "partial_rotary_factor"),
        ("gpt_neox", "gpt_neox", "rotary_pct"),
        ("gpt_neox", "gpt_neox", "rotary_emb_base"),
        ("llama", "llama", "rope_theta"),
    ] {
        let config = with(&fixture(model_type, folder), &[], json!({key: null}));
        assert!(refused(&config).contains(&format!("`{key}` is null, which is no number")), "{model_type}");
    }
}

/// transformers takes four experts then, whatever the name in OpenAI's own code says.
#[test]
fn the_older_name_of_the_experts_per_token_of_gpt_oss_does_not_count() {
    let config = fixture("gpt_oss", "gpt_oss");
    let of = |number: u64| with(&config, &["num_experts_per_tok"], json!({"experts_per_token": number}));
    assert!(refused(&of(2)).contains("`experts_per_token` is 2; only 4 is supported"));
    assert!(outcome(&of(4)).is_ok());
}

/// The key itself was suggested, where another architecture has it.
#[test]
fn a_key_that_is_not_understood_is_not_suggested_in_its_own_place() {
    let config = with(&fixture("llama", "llama"), &[], json!({"topk_group": 2}));
    let error = read(&config).unwrap_err();
    assert!(error.message.contains("not understood: `topk_group`: 2"), "{error}");
    assert!(!error.hint.unwrap().contains("did you mean `topk_group`"));
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

/// Keys that are only understood in their usual spelling were missing or "not understood".
#[test]
fn other_names_of_keys_in_transformers_are_read() {
    let table: Keys = serde_json::from_str(include_str!("../../../tests/configs/class_fields.json")).unwrap();
    let mut renamed = 0;
    for model_type in supported() {
        for (key, names) in table[model_type]["names"].as_object().unwrap() {
            for name in names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
                for (folder, config) in fixtures(model_type) {
                    // Some names stand for more than another spelling of a value.
                    let Some(value) = config.get(key).filter(|_| !config.contains_key(name)) else { continue };
                    let other = with(&config, &[key], json!({name: value}));
                    assert_eq!(outcome(&other), outcome(&config), "{folder}: {name} for {key}");
                    let both = with(&config, &[], json!({name: value}));
                    assert_eq!(outcome(&both), outcome(&config), "{folder}: {name} beside {key}");
                    renamed += 1;
                }
            }
        }
    }
    assert!(renamed > 20, "{renamed}");
}

#[test]
fn a_value_under_another_name_is_refused_by_that_name() {
    let config = fixture("deepseek_v32", "deepseek_v32");
    let odd = with(&config, &["n_routed_experts"], json!({"num_local_experts": 0}));
    assert!(refused(&odd).contains("`num_local_experts` is 0"), "{}", refused(&odd));
    let two = with(&config, &[], json!({"num_local_experts": 3}));
    assert!(refused(&two).contains("`num_local_experts` is 3, but `n_routed_experts` is"), "{}", refused(&two));
}

/// Sizes that transformers leaves out, because they are those of the class, were missing.
#[test]
fn a_config_inside_another_one_may_leave_everything_out() {
    let table: Keys = serde_json::from_str(include_str!("../../../tests/configs/class_fields.json")).unwrap();
    for Around(around, inside, _) in AROUND {
        let inner = match *around {
            "mistral3" => &["mistral", "ministral3", "mistral4"][..],
            "kimi_k25" => &["kimi_k2", "deepseek_v3"],
            _ => &[*inside],
        };
        for model_type in inner {
            let of = |text: Keys| {
                let text = with(&text, &[], json!({"model_type": model_type}));
                let config = json!({"model_type": around, "text_config": text});
                let (text, nested) =
                    language_model(Config::parse(&config.to_string(), "config.json").unwrap()).unwrap();
                assert!(nested);
                format!(
                    "{:?}",
                    model(&text, &Released).unwrap_or_else(|error| panic!("{around}, {model_type}: {error}"))
                )
            };
            let fields = table[*model_type]["fields"].as_object().unwrap().clone();
            assert_eq!(of(Keys::new()), of(fields), "{around}, {model_type}");
        }
    }
}

/// An odd number was refused; modeling_gpt_neox and others turn as many dimensions as there are
/// cosines, two for each frequency.
#[test]
fn an_odd_number_of_rotary_dimensions_turns_one_more_where_transformers_does() {
    let rope = |model_type: &str, folder: &str, key: &str, more: Value| {
        let model =
            read(&with(&fixture(model_type, folder), &["rope_scaling"], more)).map_err(|error| error.message)?;
        let of = |layer: &Layer| match &layer.mixer.as_ref()?.body {
            Mixer::Attention(attention) => attention.rope.clone(),
            _ => None,
        };
        Ok::<_, String>(model.layers.iter().find_map(of).unwrap_or_else(|| panic!("{key}")))
    };
    let neox =
        rope("gpt_neox", "gpt_neox", "rotary_pct", json!({"rotary_pct": 0.39, "rotary_emb_base": 10000})).unwrap();
    let frequencies = neox.inverse_frequencies(1);
    assert_eq!((neox.dim, frequencies.len()), (4, 2));
    // 10000^(-2 / 3).
    assert!((frequencies[1] - 0.002_154_434_7).abs() < 1e-9, "{frequencies:?}");
    for (model_type, key) in [("phi", "partial_rotary_factor"), ("stablelm", "partial_rotary_factor")] {
        let error = rope(model_type, model_type, key, json!({key: 0.45})).unwrap_err();
        assert!(error.contains("rotary dimensions of"), "{error}");
    }
}

#[test]
fn mpt_with_mlps_of_another_width_was_refused() {
    let config = fixture("mpt", "mpt");
    let width = |ratio: Value| {
        let model = read(&with(&config, &[], json!({"expansion_ratio": ratio}))).unwrap();
        let Ffn::Dense(mlp) = &model.layers[0].ffn.as_ref().unwrap().body else { unreachable!() };
        mlp.up.weight.shape[0]
    };
    assert_eq!([json!(4), json!(2), json!(2.5), json!(null)].map(width), [160, 80, 100, 160]);
    assert!(refused(&with(&config, &[], json!({"expansion_ratio": 0}))).contains("`expansion_ratio` is 0"));
}

#[test]
fn llama_4_with_another_activation_was_refused() {
    let model = read(&with(&fixture("llama4_text", "llama4_text"), &[], json!({"hidden_act": "gelu"}))).unwrap();
    let networks = model.layers.iter().filter_map(Layer::moe).map(|moe| moe.experts.network(0).activation);
    let all: Vec<_> = networks.collect();
    assert!(!all.is_empty() && all.iter().all(|act| *act == Activation::Halves(&Activation::GeluErf)), "{all:?}");
}

/// What transformers 5 writes of every layer was refused.
#[test]
fn layers_with_an_indexer_are_named_as_transformers_names_them() {
    for model_type in ["deepseek_v32", "glm_moe_dsa"] {
        let config = fixture(model_type, model_type);
        let layers = config["num_hidden_layers"].as_u64().unwrap() as usize;
        for name in ["indexed_attention", "deepseek_sparse_attention", "full_attention"] {
            assert_eq!(
                outcome(&with(&config, &[], json!({"layer_types": vec![name; layers]}))),
                outcome(&config),
                "{name}"
            );
        }
        let other = with(&config, &[], json!({"layer_types": vec!["sliding_attention"; layers]}));
        assert!(refused(&other).contains("`layer_types` has \"sliding_attention\""), "{}", refused(&other));
    }
}

/// llm-foundry and transformers write more into the object of MPT's attention than its class reads.
#[test]
fn keys_of_the_attention_of_mpt_that_change_nothing() {
    let config = fixture("mpt", "mpt");
    let attention = |more: Value| {
        let attention = with(config["attn_config"].as_object().unwrap(), &[], more);
        with(&config, &[], json!({"attn_config": attention}))
    };
    let more = json!({"fused_qkv": true, "nope": false, "fused_norm_attn_norm": false, "kv_dim": null,
        "chunk_size_feed_forward": 0, "id2label": {"0": "LABEL_0"}, "return_dict": true});
    assert_eq!(outcome(&attention(more)), outcome(&config));
    assert!(refused(&attention(json!({"nope": true}))).contains("`nope` is true"));
}

/// transformers 5 writes 0 into the config of a Qwen1.5-MoE without windows, which was refused.
#[test]
fn a_window_of_no_width_that_is_not_used_is_none() {
    for model_type in ["qwen2_moe", "qwen2", "qwen3", "qwen3_moe"] {
        let (folder, config) = fixtures(model_type).remove(0);
        let unused = with(&config, &["layer_types"], json!({"use_sliding_window": false}));
        assert_eq!(outcome(&with(&unused, &[], json!({"sliding_window": 0}))), outcome(&unused), "{folder}");
        let used = with(&unused, &[], json!({"sliding_window": 0, "use_sliding_window": true}));
        assert!(refused(&used).contains("`sliding_window` is 0"), "{folder}: {}", refused(&used));
    }
}
