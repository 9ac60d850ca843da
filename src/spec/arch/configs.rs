//! Tests of every config of `tests/configs/releases.json`, shrunk to the fixture of its
//! architecture: it is accepted, or refused for the reason in that file. The keys of `keys.rs` have
//! no effect on the model.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::*;
use crate::spec::keys::{self, At};
use crate::spec::rope::Scaling;
use crate::spec::{Layer, Mixer};
use crate::vocabulary::Span;

const RELEASES: &str = include_str!("../../../tests/configs/releases.json");
const ROPES: &str = include_str!("../../../tests/configs/ropes.json");

fn table(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn fixture(model_type: &str) -> Map<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The folder of this name comes first, if there is one.
    folders.sort_by_key(|folder| (!folder.ends_with(model_type), folder.clone()));
    let configs = folders.iter().filter_map(|folder| std::fs::read_to_string(folder.join("config.json")).ok());
    // For a larger model, this takes the language model.
    let configs = configs.map(|text| {
        let config = table(&text.replace("Infinity", "1e9"));
        config.get("text_config").unwrap_or(&config).as_object().unwrap().clone()
    });
    let mut of_type = configs.filter(|config| config.get("model_type").is_some_and(|name| name == model_type));
    of_type.next().unwrap_or_else(|| panic!("no fixture is a {model_type}"))
}

/// The sizes of the fixture, with all other keys of a release.
fn shrunk(release: &Value, sizes: &Value) -> Map<String, Value> {
    let model_type = release["type"].as_str().unwrap();
    let sizes = sizes[model_type].as_array().unwrap();
    let mut config = fixture(model_type);
    config.retain(|key, _| key == "model_type" || sizes.iter().any(|size| size == key));
    config.extend(release["keys"].as_object().unwrap().clone());
    if let Some(types) = release["keys"]["layer_types"].as_array() {
        // The table has the first period of the list.
        let layers = config["num_hidden_layers"].as_u64().unwrap() as usize;
        config.insert("layer_types".to_string(), types.iter().cycle().take(layers).cloned().collect());
    }
    config
}

fn read(config: &Map<String, Value>) -> Result<Model> {
    model(&Config::parse(&Value::Object(config.clone()).to_string(), "config.json")?, &Released)
}

/// The description of the model in words.
fn spec(config: &Map<String, Value>) -> String {
    format!("{:?}", read(config).unwrap_or_else(|error| panic!("{error}: {config:?}")))
}

fn releases() -> impl Iterator<Item = (Value, Map<String, Value>)> {
    let table = table(RELEASES);
    let sizes = table["sizes"].clone();
    table["releases"].as_array().unwrap().clone().into_iter().map(move |release| {
        let config = shrunk(&release, &sizes);
        (release, config)
    })
}

#[test]
fn configs_of_releases_are_accepted_or_refused_for_a_true_reason() {
    let mut wrong = Vec::new();
    for (release, config) in releases() {
        let got = read(&config).map(|_| "accepted".to_string()).unwrap_or_else(|error| error.message);
        let expected = release["refused"].as_str().unwrap_or("accepted");
        if !got.contains(expected) {
            wrong.push(format!("{}: {got}\n    expected: {expected}", release["name"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let architectures: Vec<_> = releases().map(|(release, _)| release["type"].as_str().unwrap().to_string()).collect();
    assert!(architectures.len() > 100 && supported().all(|name| architectures.iter().any(|other| other == name)));
}

#[test]
fn keys_without_effect_leave_the_model_of_every_release_as_it_is() {
    for (release, config) in releases().filter(|(release, _)| release["refused"].is_null()) {
        let model_type = release["type"].as_str().unwrap();
        let read_by_the_architecture = |key: &str| {
            let mut without = config.clone();
            without.remove(key);
            // A key whose absence changes or breaks the model is a key that is read.
            !matches!(read(&without), Ok(model) if format!("{model:?}") == spec(&config))
        };
        let mut bare = config.clone();
        bare.retain(|key, _| keys::row(key, model_type).is_none() || read_by_the_architecture(key));
        assert_eq!(spec(&config), spec(&bare), "{}", release["name"]);
        assert!(bare.len() < config.len(), "{}", release["name"]);
    }
}

/// Tests every row of the table in every architecture that it holds for, with a value that has no
/// effect and one that would.
#[test]
fn every_row_of_the_table_holds() {
    for model_type in supported() {
        let fixture = fixture(model_type);
        let plain = spec(&fixture);
        let config = Config::parse(&Value::Object(fixture.clone()).to_string(), "config.json").unwrap();
        model(&config, &Released).unwrap();
        // The table does not decide about keys that an architecture reads.
        for name in keys::names().filter(|name| !config.was_read(name)) {
            let Some(row) = keys::row(name, model_type) else {
                continue;
            };
            let with = |value: &Value| {
                let mut config = fixture.clone();
                config.insert(name.to_string(), value.clone());
                config
            };
            let values =
                [json!(true), json!(false), json!(0), json!(1.0), json!(7), json!("silu"), json!([]), json!({"x": 1})];
            for value in &values {
                match read(&with(value)) {
                    Ok(model) => {
                        assert!(row.at.accepts(value), "{model_type}: {name} is {value}");
                        assert_eq!(format!("{model:?}"), plain, "{model_type}: {name} is {value}");
                    }
                    Err(error) => {
                        assert!(!row.at.accepts(value), "{model_type}: {error}");
                        assert!(error.message.contains(row.otherwise), "{model_type}: {error}");
                        assert!(error.message.contains(&format!("`{name}` is ")), "{model_type}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn rows_say_why_and_do_not_hide_each_other() {
    for (i, row) in keys::ROWS.iter().enumerate() {
        assert!(!row.because.is_empty(), "{row:?}");
        assert_eq!(row.otherwise.is_empty(), matches!(row.at, At::Any | At::Told), "{row:?}");
        assert!(row.of.iter().all(|name| supported().any(|known| known == *name)), "{row:?}");
        for earlier in &keys::ROWS[..i] {
            let both = |key: &&&str| earlier.keys.contains(*key);
            let shared = row.keys.iter().find(both);
            let overlap =
                earlier.of.is_empty() || row.of.is_empty() || row.of.iter().any(|name| earlier.of.contains(name));
            assert!(shared.is_none() || !overlap, "{shared:?} stands twice");
        }
    }
}

/// The expected values are from the class of rotary embeddings that transformers 5.23 makes from
/// the same config.
#[test]
fn ropes_of_releases_turn_by_the_angles_of_transformers() {
    let ropes = table(ROPES);
    let mut compared = 0;
    for (release, config) in releases().filter(|(release, _)| release["refused"].is_null()) {
        let of = |rope: &&Value| rope["releases"].as_array().unwrap().contains(&release["name"]);
        let Some(expected) = ropes.as_array().unwrap().iter().find(of) else {
            continue;
        };
        let model = read(&config).unwrap();
        let rope = model.layers.iter().find_map(|layer| match &layer.mixer.as_ref()?.body {
            Mixer::Attention(attention) => attention.rope.clone(),
            _ => None,
        });
        let rope = rope.expect("architectures with a rope are in the table");
        let (got, want) = (rope.inverse_frequencies(1), expected["inverse_frequencies"].as_array().unwrap());
        assert_eq!(got.len(), want.len(), "{}", release["name"]);
        for (got, want) in got.iter().zip(want) {
            let want = want.as_f64().unwrap();
            assert!((*got as f64 - want).abs() <= 2e-6 * want, "{}: {got}, not {want}", release["name"]);
        }
        let factor = expected["attention_scaling"].as_f64().unwrap();
        assert!((rope.table_factor() as f64 - factor).abs() < 1e-6, "{}", release["name"]);
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}

/// Class defaults of transformers 5.23, written out. A config without these keys describes the same
/// model.
#[test]
fn what_is_left_out_is_the_default_of_the_class() {
    let llama = json!({"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e4, "tie_word_embeddings": false});
    let with = |more: Value| {
        let mut all = llama.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        all
    };
    let yarn = json!({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
        "original_max_position_embeddings": 4096});
    #[rustfmt::skip]
    let defaults = [
        ("llama", with(json!({"num_key_value_heads": 4, "head_dim": 8, "attention_bias": false, "mlp_bias": false}))),
        ("qwen3", with(json!({"num_key_value_heads": 32, "head_dim": 128, "attention_bias": false, "use_sliding_window": false,
            "sliding_window": 4096, "max_window_layers": 28}))),
        ("qwen3_moe", with(json!({"num_key_value_heads": 4, "head_dim": 8, "attention_bias": false, "use_sliding_window": false,
            "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": []}))),
        ("mixtral", with(json!({"rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_key_value_heads": 8, "head_dim": 4}))),
        ("olmoe", with(json!({"rms_norm_eps": 1e-5, "num_key_value_heads": 4, "attention_bias": false, "norm_topk_prob": false}))),
        ("gpt_oss", with(json!({"rms_norm_eps": 1e-5, "rope_theta": 150_000.0, "num_key_value_heads": 8, "head_dim": 64,
            "attention_bias": true, "sliding_window": 128, "swiglu_limit": 7.0, "swiglu_alpha": 1.702, "rope_parameters": yarn}))),
        ("qwen3_next", with(json!({"num_key_value_heads": 2, "head_dim": 256, "attention_bias": false, "norm_topk_prob": true,
            "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "decoder_sparse_step": 1}))),
        ("glm4_moe", with(json!({"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "attention_bias": false, "norm_topk_prob": true,
            "partial_rotary_factor": 0.5, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
            "routed_scaling_factor": 1.0, "use_qk_norm": false}))),
        ("gpt2", json!({"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": true, "n_inner": 128,
            "scale_attn_weights": true, "scale_attn_by_inverse_layer_idx": false}).as_object().unwrap().clone()),
        ("opt", json!({"activation_function": "relu", "enable_bias": true, "tie_word_embeddings": true, "do_layer_norm_before": true,
            "word_embed_proj_dim": 32, "layer_norm_elementwise_affine": true, "_remove_final_layer_norm": false}).as_object().unwrap().clone()),
    ];
    for (model_type, spelled) in defaults {
        let mut bare = fixture(model_type);
        let heads = bare.get("num_attention_heads").and_then(Value::as_u64);
        bare.retain(|key, _| !spelled.contains_key(key) && key != "rope_scaling" && key != "layer_types");
        // More heads are needed if the default number of key heads does not divide those of the
        // fixture.
        let groups = spelled.get("num_key_value_heads").and_then(Value::as_u64);
        if let (Some(heads), Some(groups)) = (heads, groups) {
            bare.insert("num_attention_heads".to_string(), heads.max(groups).into());
        }
        let mut whole = bare.clone();
        whole.extend(spelled);
        assert_eq!(spec(&bare), spec(&whole), "{model_type}");
    }
}

#[test]
fn ministral3_ties_its_head_only_inside_a_model_that_sees() {
    let mut alone = fixture("ministral3");
    alone.remove("tie_word_embeddings");
    let plain = read(&alone).unwrap();
    assert!(!plain.tied && plain.head != plain.embedding);
    let around = json!({"model_type": "mistral3", "text_config": alone});
    let config = Config::parse(&around.to_string(), "config.json").unwrap();
    let (inside, nested) = language_model(config).unwrap();
    assert!(nested && model(&inside, &Released).unwrap().tied);
}

#[test]
fn windows_of_exaone_by_letters_or_by_a_number() {
    let windows = |pattern: Value| {
        let mut config = fixture("exaone4");
        config.remove("layer_types");
        config.insert("num_hidden_layers".to_string(), json!(6));
        config.insert("sliding_window".to_string(), json!(8));
        config.insert("sliding_window_pattern".to_string(), pattern);
        let global = |layer: &Layer| match &layer.mixer.as_ref().unwrap().body {
            Mixer::Attention(attention) => attention.span == Span::All && attention.rope.is_none(),
            _ => false,
        };
        let spec = read(&config)?;
        Ok::<_, Error>(spec.layers.iter().map(|layer| if global(layer) { 'G' } else { 'L' }).collect::<String>())
    };
    assert_eq!(windows(json!("LLLG")).unwrap(), "LLLGLG", "and the last one");
    assert_eq!(windows(json!("LG")).unwrap(), "LGLGLG");
    assert_eq!(windows(json!(3)).unwrap(), "LLGLLG");
    assert_eq!(windows(json!(4)).unwrap(), "LLLGLL");
    assert!(windows(json!("LLX")).unwrap_err().message.contains("known are the letters L and G"));
}

#[test]
fn gemma_2_reads_its_window_under_one_name() {
    let mut config = fixture("gemma2");
    let plain = spec(&config);
    config.insert("sliding_window_size".to_string(), json!(4096));
    assert_eq!(spec(&config), plain);
}

/// As in modeling_gemma3: attention is given no cap, and Gemma3ForConditionalGeneration has none.
#[test]
fn gemma_3_capped_scores_and_the_logits_of_a_model_that_sees() {
    let mut alone = fixture("gemma3_text");
    let plain = spec(&alone);
    alone.insert("attn_logit_softcapping".to_string(), json!(50.0));
    assert_eq!(spec(&alone), plain);
    alone.insert("final_logit_softcapping".to_string(), json!(30.0));
    assert_eq!(read(&alone).unwrap().logit_softcap, Some(30.0));
    let around = json!({"model_type": "gemma3", "text_config": alone});
    let (inside, nested) = language_model(Config::parse(&around.to_string(), "config.json").unwrap()).unwrap();
    assert!(nested && model(&inside, &Released).unwrap().logit_softcap.is_none());
}

/// As in HunYuanMoEV1Moe, whose shared expert is an ordinary network.
#[test]
fn hunyuan_counted_shared_experts_that_are_one() {
    let mut config = fixture("hunyuan_v1_moe");
    config.insert("num_shared_expert".to_string(), json!(1));
    let plain = spec(&config);
    config.insert("num_shared_expert".to_string(), json!(2));
    assert_eq!(spec(&config), plain);
}

#[test]
fn phi_3_5_moe_turns_by_the_usual_magnitude_where_none_is_given() {
    let mut config = fixture("phimoe");
    let scaling = config.get_mut("rope_scaling").unwrap().as_object_mut().unwrap();
    scaling.remove("short_mscale");
    scaling.remove("long_mscale");
    let model = read(&config).unwrap();
    let Mixer::Attention(attention) = &model.layers[0].mixer.as_ref().unwrap().body else { unreachable!() };
    let Scaling::LongRope { attention_factor, .. } = attention.rope.as_ref().unwrap().scaling else { unreachable!() };
    assert!(attention_factor > 1.0 && attention_factor < 2.0, "{attention_factor}");
    assert_eq!(model.max_positions, None, "both magnitudes are the same");
}

#[test]
fn layers_that_borrow_keys_take_those_of_the_last_of_their_kind() {
    let text = include_str!("../../../tests/fixtures/gemma4_e/config.json");
    let (config, _) = language_model(Config::parse(text, "config.json").unwrap()).unwrap();
    let spec = model(&config, &Released).unwrap();
    let borrowed: Vec<_> = spec.layers.iter().map(Layer::borrows).collect();
    // Layers 0, 2 and 4 have windows.
    assert_eq!(borrowed, [None, None, None, Some(1), Some(2), Some(1)]);
    assert_eq!([2, 3, 5, 6].map(|done| spec.lenders(done)), [vec![1], vec![1, 2], vec![1], vec![]]);
    let mut all = fixture("gemma4_text");
    all.insert("num_kv_shared_layers".to_string(), all["num_hidden_layers"].clone());
    assert!(read(&all).unwrap_err().message.contains("`num_kv_shared_layers` is "));
}

/// Random variants found keys that transformers does not read, whatever the original code did with
/// them.
#[test]
fn weights_of_experts_that_transformers_sums_anyway() {
    for (model_type, key, odd) in [
        ("afmoe", "route_norm", json!(false)),
        ("hy_v3", "route_norm", json!(false)),
        ("deepseek_v2", "norm_topk_prob", json!(true)),
    ] {
        let mut config = fixture(model_type);
        let plain = spec(&config);
        config.insert(key.to_string(), odd);
        assert_eq!(spec(&config), plain, "{model_type}");
    }
}

/// Random variants found that sizes of missing layers were "not understood", and that biases and
/// shared experts were read that transformers does not have.
#[test]
fn nemotron_h_reads_what_its_layers_need_and_no_more() {
    let mut config = fixture("nemotron_h");
    let plain = spec(&config);
    for (key, value) in
        [("attention_bias", json!(true)), ("mamba_proj_bias", json!(true)), ("n_shared_experts", json!(3))]
    {
        let mut odd = config.clone();
        odd.insert(key.to_string(), value);
        assert_eq!(spec(&odd), plain, "{key}");
    }
    for pattern in ["MMMM", "****", "----", "EEEE"] {
        config.insert("hybrid_override_pattern".to_string(), json!(pattern));
        config.insert("num_hidden_layers".to_string(), json!(4));
        assert_eq!(read(&config).unwrap().layers.len(), 4, "{pattern}");
    }
}
