//! Tests of what configs of Gemma 4 mean: directions, ropes and heads of each kind of layer.

use serde_json::{Value, json};

use super::class_fields::{Keys, outcome};
use super::which_counts::{fixture, refused, with};

#[test]
fn gemma_4_that_sees_in_both_directions_was_computed_forwards() {
    let config = fixture("gemma4_text", "gemma4");
    let of = |value: Value| with(&config, &[], json!({"use_bidirectional_attention": value}));
    assert!(refused(&of(json!("all"))).contains("`use_bidirectional_attention` is \"all\""));
    assert_eq!(outcome(&of(json!("vision"))), outcome(&of(json!(null))));
    assert!(outcome(&config).is_ok());
}

/// The config with this rope of the layers without a window.
fn gemma_4_with(config: &Keys, rope: Value) -> Keys {
    let ropes = json!({"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": rope});
    with(config, &[], json!({"rope_parameters": ropes}))
}

#[test]
fn gemma_4_took_every_rope_of_whole_layers_for_a_proportional_one() {
    let config = fixture("gemma4_text", "gemma4");
    let of = |rope: Value| gemma_4_with(&config, rope);
    let proportional = of(json!({"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}));
    let old = of(json!({"type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25, "factor": 1}));
    assert_eq!(outcome(&old), outcome(&proportional));
    // Without a type all of a head turns, in its usual pairs.
    let plain = of(json!({"rope_theta": 1e6, "partial_rotary_factor": 0.25}));
    assert_eq!(outcome(&plain), outcome(&of(json!({"rope_type": "default", "rope_theta": 1e6}))));
    assert_ne!(outcome(&plain), outcome(&proportional));
    for key in ["rope_type", "type"] {
        assert!(refused(&of(json!({key: null, "rope_theta": 1e6}))).contains(&format!("`{key}` is null")), "{key}");
    }
    assert!(refused(&of(json!({"rope_type": "yarn", "rope_theta": 1e6}))).contains("`rope_type` is \"yarn\""));
    let one = with(&config, &[], json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}));
    assert!(refused(&one).contains("has no rope for `sliding_attention`"));
}

#[test]
fn gemma_4_turned_a_quarter_where_its_rope_left_the_share_out() {
    let config = fixture("gemma4_text", "gemma4");
    let of = |rope: Value| gemma_4_with(&config, rope);
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
