//! Tests of spellings of ropes: equivalent, contradictory and invalid ones.

use serde_json::{Value, json};

use super::config::Config;
use super::rope::Rope;
use super::rope_config::{DEFAULTS, RopeDefaults};
use crate::error::Result;

fn rope(text: &str) -> Result<Rope> {
    let defaults = RopeDefaults {
        partial_rotary_factor: Some(1.0),
        layer_types: &["full_attention", "sliding_attention"],
        ..DEFAULTS
    };
    Rope::from_config(&Config::parse(text, "config.json").unwrap(), 64, &defaults)
}

#[test]
fn old_and_new_spellings_agree() {
    let old =
        rope(r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}, "partial_rotary_factor": 0.5}"#);
    let new = rope(
        r#"{"rope_parameters": {"rope_theta": 500000, "rope_type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5}}"#,
    );
    assert_eq!(old.unwrap(), new.unwrap());
}

/// What `rope_parameters_dict[…]` of transformers looks up, and does not find.
#[test]
fn keys_that_transformers_cannot_do_without_are_required() {
    let whole = [
        r#"{"rope_type": "linear", "factor": 4.0}"#,
        r#"{"rope_type": "dynamic", "factor": 4.0}"#,
        r#"{"rope_type": "yarn", "factor": 4.0}"#,
        r#"{"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}"#,
    ];
    let of = |scaling: &Value| {
        rope(&json!({ "max_position_embeddings": 64, "rope_theta": 1e4, "rope_scaling": scaling }).to_string())
    };
    for text in whole {
        let scaling: Value = serde_json::from_str(text).unwrap();
        assert!(of(&scaling).is_ok(), "{text}");
        for key in scaling.as_object().unwrap().keys().filter(|key| *key != "rope_type") {
            let mut without = scaling.clone();
            without.as_object_mut().unwrap().remove(key);
            let message = of(&without).unwrap_err().message;
            assert!(message.contains(&format!("rope_scaling.{key}` is missing")), "{text} without {key}: {message}");
        }
    }
    // Null is the ratio of the two contexts.
    let null = json!({ "rope_type": "yarn", "factor": null, "original_max_position_embeddings": 16 });
    let four = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    assert_eq!(of(&null).unwrap(), of(&four).unwrap());
}

#[test]
fn gpt_oss_yarn_temperature() {
    let yarn = rope(
        r#"{"rope_theta": 150000, "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": false,
            "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}}"#,
    );
    assert!((yarn.unwrap().table_factor() - 1.34657).abs() < 1e-5);
}

/// Pairs of spellings with the same cosines and sines, to the bit, in transformers 5.23.
#[test]
fn spellings_that_transformers_takes_for_the_same_are_the_same() {
    for (one, other) in [
        // These keys are unread, with a warning.
        (
            r#"{"type": "yarn", "factor": 4, "original_max_position_embeddings": 8, "attn_factor": 0.5, "finetuned": true,
            "extrapolation_factor": 2}"#,
            r#"{"type": "yarn", "factor": 4, "original_max_position_embeddings": 8}"#,
        ),
        (
            r#"{"type": "linear", "factor": 2, "original_max_position_embeddings": 3, "alpha": 2, "mscale": 3, "short_factor": [1]}"#,
            r#"{"type": "linear", "factor": 2}"#,
        ),
        (
            r#"{"type": "dynamic", "factor": 2, "original_max_position_embeddings": 3}"#,
            r#"{"type": "dynamic", "factor": 2}"#,
        ),
        (
            r#"{"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": true}"#,
            r#"{"rope_type": "default"}"#,
        ),
        // This is another spelling of no scaling.
        (r#"{"type": "linear", "rope_type": "default", "factor": 1.0}"#, "null"),
        (r#"{"type": null, "rope_type": "linear", "factor": 2.0}"#, r#"{"rope_type": "linear", "factor": 2}"#),
        ("{}", "null"),
        (r#"{"rope_type": "default", "factor": 1.0, "attention_factor": null}"#, "null"),
        (
            r#"{"type": "yarn", "factor": null, "original_max_position_embeddings": 16}"#,
            r#"{"type": "yarn", "factor": 4, "original_max_position_embeddings": 16}"#,
        ),
    ] {
        let config = |scaling: &str| {
            format!(r#"{{"rope_theta": 1e6, "max_position_embeddings": 64, "rope_scaling": {scaling}}}"#)
        };
        let [one, other] = [one, other].map(|scaling| rope(&config(scaling)).unwrap());
        assert_eq!(one, other);
    }
}

#[test]
fn ropes_spelled_twice_are_compared_after_reading() {
    let parameters = r#""rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}"#;
    let with = |more: &str| rope(&format!("{{{parameters}, {more}}}"));
    let alone = rope(&format!("{{{parameters}}}")).unwrap();
    assert_eq!(with(r#""rope_theta": 1000000, "rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap(), alone);
    assert_eq!(with(r#""rope_theta": 1000000, "rope_scaling": {}"#).unwrap(), alone);
    // The inner value is used, and a different outer value is reported.
    assert_eq!(with(r#""rope_theta": 5e5"#).unwrap(), alone);
    // Without a theta inside or outside, the old spelling has another base.
    let error = with(r#""rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap_err();
    assert!(error.message.contains("both present and turn by different angles"), "{error}");
    // A factor of 1 scales nothing, for any kind.
    let plain = rope(
        r#"{"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 1}}"#,
    );
    assert_eq!(plain.unwrap().inverse_frequencies(1), rope(r#"{"rope_theta": 1e6}"#).unwrap().inverse_frequencies(1));
}

/// The rope of the layers of one type, of an architecture whose types differ.
fn of_type(text: &str, name: &str) -> Result<Rope> {
    const FULL: RopeDefaults =
        RopeDefaults { theta: 1e6, layer_types: &["full_attention", "sliding_attention"], ..DEFAULTS };
    const SLIDING: RopeDefaults = RopeDefaults { theta: 1e4, theta_key: "rope_local_base_freq", ..FULL };
    let main = name == "full_attention";
    let defaults = if main { FULL } else { SLIDING };
    Rope::of_type(&Config::parse(text, "config.json").unwrap(), 64, name, main, &defaults)
}

#[test]
fn types_of_layers_have_ropes_of_their_own_in_both_spellings() {
    let old =
        r#"{"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8}}"#;
    let new = r#"{"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500000},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20000}}}"#;
    for name in ["full_attention", "sliding_attention"] {
        assert_eq!(of_type(old, name).unwrap(), of_type(new, name).unwrap(), "{name}");
    }
    let (full, sliding) = (of_type(old, "full_attention").unwrap(), of_type(old, "sliding_attention").unwrap());
    assert_eq!((full.theta, sliding.theta), (5e5, 2e4));
    assert_ne!(full.scaling, sliding.scaling);
    // Missing values have the default of each type. `rope_theta` belongs to the main type alone.
    let bare = |text: &str, name: &str| of_type(text, name).unwrap().theta;
    assert_eq!((bare("{}", "full_attention"), bare("{}", "sliding_attention")), (1e6, 1e4));
    assert_eq!(bare(r#"{"rope_theta": 3e5}"#, "sliding_attention"), 1e4);
    let error = of_type(r#"{"rope_parameters": {"rope_theta": 1e6}}"#, "full_attention").unwrap_err();
    assert!(error.message.contains("where objects for full_attention, sliding_attention are expected"), "{error}");
}

#[test]
fn longrope_takes_its_factors_by_the_length_of_the_sequence() {
    let with = |short: f64, long: f64, more: &str| {
        let list = |factor: f64| vec![factor; 32];
        rope(&format!(
            r#"{{"max_position_embeddings": 256, "original_max_position_embeddings": 16, "rope_scaling":
                {{"type": "longrope", {more} "short_factor": {:?}, "long_factor": {:?}}}}}"#,
            list(short),
            list(long)
        ))
    };
    let (plain, rope) = (rope("{}").unwrap(), with(2.0, 4.0, "").unwrap());
    for (positions, factor) in [(16, 2.0), (17, 4.0)] {
        let expected: Vec<f32> = plain.inverse_frequencies(1).iter().map(|frequency| frequency / factor).collect();
        assert_eq!(rope.inverse_frequencies(positions), expected, "{positions}");
    }
    // sqrt(1 + ln 16 / ln 16), unless the config has another value.
    assert_eq!(rope.table_factor(), 2f32.sqrt());
    assert_eq!(with(2.0, 4.0, r#""factor": 1.0,"#).unwrap().table_factor(), 1.0);
    assert_eq!(with(2.0, 4.0, r#""attention_factor": 1.25,"#).unwrap().table_factor(), 1.25);
    let error = with(2.0, 0.0, "").unwrap_err();
    assert!(error.message.contains("`rope_scaling.long_factor` is no list of 32 positive numbers"), "{error}");
}

#[test]
fn ropes_by_type_of_layer_are_read_where_all_are_equal() {
    let of = |full: &str, sliding: &str| {
        rope(&format!(r#"{{"rope_parameters": {{"full_attention": {full}, "sliding_attention": {sliding}}}}}"#))
    };
    let plain = r#"{"rope_type": "default", "rope_theta": 1e6}"#;
    assert_eq!(of(plain, plain).unwrap(), rope(r#"{"rope_theta": 1e6}"#).unwrap());
    let error = of(plain, r#"{"rope_type": "default", "rope_theta": 1e4}"#).unwrap_err();
    assert!(error.message.contains("`rope_parameters.sliding_attention` differs from `full_attention`"), "{error}");
    let error = of(plain, "null").unwrap_err();
    assert!(error.message.contains("`rope_parameters.sliding_attention` is null beside the ropes"), "{error}");
    let error = rope(r#"{"rope_parameters": {"chunked_attention": {"rope_theta": 1e6}}}"#).unwrap_err();
    assert!(error.message.contains("is the rope of a type of layer that this architecture does not have"), "{error}");
}

/// As in HunYuanDenseV1RotaryEmbedding: base * alpha^(d / (d - 2)), for all lengths.
#[test]
fn alpha_stretches_the_base_where_dynamic_means_that() {
    let of = |scaling: &str| {
        let text = format!(r#"{{"rope_theta": 100, "max_position_embeddings": 8, "rope_scaling": {scaling}}}"#);
        let defaults = RopeDefaults { alpha: true, ..DEFAULTS };
        Rope::from_config(&Config::parse(&text, "config.json").unwrap(), 4, &defaults)
    };
    let stretched = of(r#"{"type": "dynamic", "alpha": 3.0, "factor": 1.0, "mscale": 1.0}"#).unwrap();
    assert!((stretched.theta - 900.0).abs() < 1e-9);
    assert_eq!(stretched.inverse_frequencies(1), stretched.inverse_frequencies(100));
    // Without it the kind is the usual one, which depends on the length.
    let usual = of(r#"{"type": "dynamic", "factor": 2.0}"#).unwrap();
    assert_eq!(usual.theta, 100.0);
    assert_ne!(usual.inverse_frequencies(8), usual.inverse_frequencies(100));
    assert_eq!(of("null").unwrap().theta, 100.0);
}

/// As in `standardize_rope_params`.
#[test]
fn an_original_context_beside_the_object_comes_first() {
    let of = |more: &str, original: u32| {
        rope(&format!(
            r#"{{{more} "rope_theta": 1e6, "max_position_embeddings": 64, "rope_scaling":
                {{"type": "yarn", "factor": 4, "original_max_position_embeddings": {original}}}}}"#
        ))
        .unwrap()
    };
    assert_eq!(of(r#""original_max_position_embeddings": 16,"#, 8), of("", 16));
    assert_ne!(of("", 8), of("", 16));
}

/// transformers 5.23 takes them for a rope called None, and ends with a KeyError.
#[test]
fn a_kind_that_is_null_is_no_default() {
    for (scaling, key) in [
        (r#"{"type": null}"#, "type"),
        (r#"{"rope_type": null}"#, "rope_type"),
        (r#"{"rope_type": null, "type": "linear", "factor": 2}"#, "rope_type"),
    ] {
        let error = rope(&format!(r#"{{"rope_scaling": {scaling}}}"#)).unwrap_err();
        assert!(error.message.contains(&format!("`rope_scaling.{key}` is null")), "{error}");
    }
    assert!(rope(r#"{"rope_scaling": null}"#).is_ok() && rope(r#"{"rope_scaling": {}}"#).is_ok());
}

/// Of configs with a rope for each type of layers, transformers overwrites `rope_type` alone, and
/// the older name was read.
#[test]
fn the_older_name_of_the_kind_does_not_count_where_types_of_layers_have_ropes() {
    let of = |scaling: &str| of_type(&format!(r#"{{"rope_scaling": {scaling}}}"#), "full_attention");
    for kind in ["linear", "dynamic", "yarn"] {
        let error = of(&format!(r#"{{"type": "{kind}", "factor": 8.0}}"#)).unwrap_err();
        assert!(error.message.contains(&format!("`rope_scaling.type` is \"{kind}\", but of this")), "{error}");
    }
    assert_eq!(of(r#"{"type": "default"}"#).unwrap(), of("null").unwrap());
    let both = of(r#"{"type": "linear", "rope_type": "linear", "factor": 8.0}"#).unwrap();
    assert_eq!(both, of(r#"{"rope_type": "linear", "factor": 8.0}"#).unwrap());
    assert!(of_type(r#"{"rope_scaling": {"type": "linear", "factor": 8.0}}"#, "sliding_attention").is_ok());
}

#[test]
fn an_unknown_setting_is_an_error_that_names_it() {
    let error = rope(r#"{"rope_scaling": {"rope_type": "ntk", "factor": 2}}"#).unwrap_err();
    assert!(error.message.contains("`rope_scaling.rope_type` is \"ntk\""), "{error}");
    let error = rope(r#"{"rope_scaling": {"rope_type": "linear", "factor": 2, "betta": 1}}"#).unwrap_err();
    assert!(error.message.contains("`rope_scaling.betta`"), "{error}");
    let error = rope(r#"{"rope_scaling": {"factor": 4}}"#).unwrap_err();
    assert!(
        error.message.contains("`rope_scaling.factor` is 4, but the rope type \"default\" scales nothing"),
        "{error}"
    );
}
