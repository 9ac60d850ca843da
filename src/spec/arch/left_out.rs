//! Tests of configs that leave out where a rope is stretched from, and of settings of quantised
//! weights in an object of their own, as in the configuration classes of transformers 5.23.

use serde_json::{Value, json};

use super::class_fields::{fixtures, outcome};
use super::which_counts::{fixture, refused, with};

#[test]
fn a_rope_without_the_context_of_its_model_has_that_of_the_class() {
    let context = |positions: u32| json!({"max_position_embeddings": positions});
    let half = vec![1.0; 7];
    for scaling in [
        json!({"rope_type": "dynamic", "factor": 2.0}),
        json!({"rope_type": "longrope", "factor": 2.0, "short_factor": half, "long_factor": half}),
        json!({"rope_type": "longrope", "short_factor": half, "long_factor": half, "original_max_position_embeddings": 16}),
        json!({"rope_type": "yarn", "factor": 4.0}),
        json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ] {
        let left_out = ["max_position_embeddings", "rope_parameters"];
        let config = with(&fixture("falcon", "falcon"), &left_out, json!({"rope_scaling": scaling}));
        let plain = outcome(&config);
        assert!(plain.is_ok(), "{plain:?}");
        assert_eq!(outcome(&with(&config, &[], context(2048))), plain, "{scaling}");
        assert_ne!(outcome(&with(&config, &[], context(64))), plain, "{scaling}");
        assert!(outcome(&with(&config, &[], json!({"max_position_embeddings": null}))).is_err(), "{scaling}");
    }
}

#[test]
fn queries_grow_from_the_context_of_the_model_where_the_rope_names_none() {
    for model_type in ["ministral3", "mistral4"] {
        let config = fixtures(model_type).remove(0).1;
        let config = with(
            &config,
            &["original_max_position_embeddings", "rope_scaling"],
            json!({"max_position_embeddings": 4096}),
        );
        let of = |more: Value, without: &[&str]| {
            let rope = config["rope_parameters"].as_object().expect("its rope is an object");
            with(&config, &[], json!({"rope_parameters": with(rope, without, more)}))
        };
        const ORIGINAL: &str = "original_max_position_embeddings";
        let none = outcome(&of(json!({}), &[ORIGINAL]));
        assert!(none.is_ok(), "{none:?}");
        assert_eq!(none, outcome(&of(json!({ORIGINAL: 4096}), &[])), "{model_type}");
        assert_ne!(none, outcome(&of(json!({ORIGINAL: 8}), &[])), "{model_type}");
        // Beside the object it has precedence.
        let beside = with(&of(json!({}), &[ORIGINAL]), &[], json!({ORIGINAL: 8}));
        assert_eq!(outcome(&beside), outcome(&of(json!({ORIGINAL: 8}), &[])), "{model_type}");
        // Null is not left out, and a rope that is not stretched from it has none.
        assert!(refused(&of(json!({ORIGINAL: null}), &[])).contains("is null"), "{model_type}");
        let linear = of(json!({"rope_type": "linear", "type": "linear"}), &[ORIGINAL]);
        assert!(refused(&linear).contains("is missing"), "{model_type}");
    }
}

#[test]
fn settings_of_quantisation_beside_those_of_sparsity_are_read() {
    let config = fixture("llama", "llama");
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "tensor"});
    let inner =
        json!({"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "format": "float-quantized"});
    for key in ["compression_config", "quantization_config"] {
        let of = |inner: &Value, sparsity: Value| {
            with(&config, &[], json!({key: {"quantization_config": inner, "sparsity_config": sparsity}}))
        };
        let read = outcome(&of(&inner, json!({"format": "dense"})));
        assert!(read.is_ok(), "{key}: {read:?}");
        let sparse = refused(&of(&inner, json!({"format": "sparse-24-bitmask", "sparsity_structure": "2:4"})));
        assert!(sparse.contains("`sparsity_config`"), "{key}: {sparse}");
        let other = refused(&of(&json!({"quant_method": "aqlm"}), json!(null)));
        assert!(other.contains("`quant_method` \"aqlm\""), "{key}: {other}");
    }
}
