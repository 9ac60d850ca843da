//! Tests of attribution, quantiles, the tokens that experts need, and the recipe for quantisers.

use std::collections::BTreeMap;

use outlier::progress::Silent;
use outlier::record::{
    Activations, Attribution, ExtractArgs, Measure, MeasureArgs, QUANTILE_LEVELS, QuantFormat, Site, TokenSource,
};
use outlier::results::{IgnoreRule, ignored};
use outlier::stats;
use outlier::text::load_tokens;

use crate::measures::{MODELS, measured, measured_on, near, reference};

/// On an emulated GPU, which is slow, some models.
fn models() -> Vec<&'static str> {
    match std::env::var_os("OUTLIER_TEST_DEVICE") {
        Some(_) => vec!["llama", "qwen3_next"],
        None => MODELS.to_vec(),
    }
}

fn attributed(model: &str, measure: MeasureArgs, memory_budget: u64) -> (Activations, Attribution) {
    let observe = vec![Measure::Attribution, Measure::Top];
    let measure = MeasureArgs { sites: vec![Site::ResidPost], observe, ..measure };
    let acts = measured(model, ExtractArgs { measure, memory_budget, ..ExtractArgs::default() });
    let attribution = acts.measures.attribution.clone().unwrap();
    (acts, attribution)
}

#[test]
fn what_is_written_adds_up_to_the_residual_stream() {
    for model in models() {
        let (acts, attribution) =
            attributed(model, MeasureArgs { dims: vec![3, 9], ..MeasureArgs::default() }, 1 << 30);
        assert_eq!(
            (attribution.positions.as_slice(), attribution.dims.as_slice()),
            ([0].as_slice(), [3, 9].as_slice())
        );
        assert_eq!(attribution.sequences, acts.num_sequences, "{model}");
        assert!(!attribution.values.is_empty(), "{model}");
        let mut experts = 0;
        for of in &attribution.values {
            let what = format!("{model}, sequence {}, position {}, dimension {}", of.sequence, of.position, of.dim);
            assert_eq!(of.layers.len(), acts.num_layers, "{what}");
            assert!(of.position == 0 || [3, 9].contains(&of.dim), "{what}");
            let (mut sum, mut largest) = (f64::from(of.embedding), f64::from(of.embedding.abs()));
            for layer in &of.layers {
                let parts = [layer.attention, layer.feed_forward, layer.shared_expert].into_iter().flatten();
                let parts: Vec<f32> = parts.chain(layer.experts.iter().map(|of| of.value)).collect();
                sum += parts.iter().map(|x| f64::from(*x)).sum::<f64>();
                largest = parts.iter().fold(largest, |most, x| most.max(f64::from(x.abs())));
                // Each addition rounds once, relative to the largest value so far.
                let rounding = 1e-6 * largest.max(f64::from(layer.residual.abs()));
                assert!(f64::from(layer.rest.abs()) <= rounding, "{what}, layer {}: {}", layer.layer, layer.rest);
                let difference = (sum - f64::from(layer.residual)).abs();
                assert!(difference <= (layer.layer + 1) as f64 * 2e-6 * largest, "{what}, layer {}", layer.layer);
                // Routed experts write by themselves, and all else has one network.
                assert!(layer.attention.is_some(), "{what}");
                assert_eq!(layer.feed_forward.is_some(), layer.experts.is_empty(), "{what}");
                experts += layer.experts.len();
            }
        }
        let (count, per_token) = stats_of_experts(&acts);
        assert_eq!(experts, attribution.values.len() * per_token, "{model}: {count} mixtures");
        // The largest value of each layer at the first position is among them.
        for top in &acts.measures.top {
            let first = top.values.iter().find(|value| value.position == 0);
            let known = |of: &&outlier::record::AttributedValue| {
                first.is_some_and(|top| (top.sequence, top.dim) == (of.sequence, of.dim) && of.position == 0)
            };
            let Some(value) = first else { continue };
            if let Some(found) = attribution.values.iter().find(known) {
                assert_eq!(found.layers[top.at.layer].residual, value.value, "{model}, layer {}", top.at.layer);
            }
        }
    }
}

/// Number of mixtures, and of experts of one token in all of them.
fn stats_of_experts(acts: &Activations) -> (usize, usize) {
    let tokens = (acts.num_sequences * acts.sequence_length) as u64;
    let of = |of: &outlier::record::ExpertCoverage| (of.tokens_per_expert.iter().sum::<u64>() / tokens) as usize;
    (acts.expert_coverage.len(), acts.expert_coverage.iter().map(of).sum())
}

#[test]
fn attribution_knows_the_positions_and_dimensions_that_it_is_asked_for() {
    let measure = MeasureArgs { attributed_positions: vec![5, 2], ..MeasureArgs::default() };
    let (_, attribution) = attributed("olmoe", measure.clone(), 1 << 30);
    assert_eq!(attribution.positions, [2, 5]);
    assert!(attribution.values.iter().all(|of| [2, 5].contains(&of.position)));
    // Divided otherwise, the same.
    let (_, small) = attributed("olmoe", measure, 400 << 10);
    assert_eq!(small, attribution);
    // No position, and one dimension.
    let measure = MeasureArgs { attributed_positions: vec![], dims: vec![7], ..MeasureArgs::default() };
    let (_, column) = attributed("olmoe", measure, 1 << 30);
    assert!(!column.values.is_empty() && column.values.iter().all(|of| of.dim == 7));
    assert!(column.values.iter().any(|of| of.position > 0));
    assert!(column.values.iter().all(|of| of.layers.iter().all(|layer| !layer.experts.is_empty())));
}

#[test]
fn quantiles_of_every_site_are_within_a_bin_of_the_reference() {
    for model in models() {
        let observe = vec![Measure::Quantiles];
        let measure = MeasureArgs { sites: vec![], observe, ..MeasureArgs::default() };
        let acts = measured(model, ExtractArgs { measure, ..ExtractArgs::default() });
        let expected = reference(model, "measures.json");
        let levels: Vec<f64> = serde_json::from_value(expected["quantile_levels"].clone()).unwrap();
        assert_eq!(levels, QUANTILE_LEVELS);
        for (name, of_site) in expected["sites"].as_object().unwrap() {
            let site = Site::of_name(name).unwrap();
            for layer in of_site["layers"].as_array().unwrap() {
                let number = layer["layer"].as_u64().unwrap() as usize;
                let got = acts.measures.quantiles.iter().find(|of| of.at.site == site && of.at.layer == number);
                let got = got.unwrap_or_else(|| panic!("{model}, {name}, layer {number}"));
                let expected: Vec<f64> = serde_json::from_value(layer["quantiles"].clone()).unwrap();
                assert_eq!(got.values.len(), expected.len());
                for ((got, expected), level) in got.values.iter().zip(&expected).zip(levels.iter()) {
                    let allowed = expected.abs() / 256.0 + 1e-4;
                    let difference = (f64::from(*got) - expected).abs();
                    assert!(difference <= allowed, "{model}, {name}, layer {number}, {level}: {got}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn a_recipe_names_the_modules_whose_inputs_would_be_damaged() {
    for model in ["llama", "olmoe", "gpt_oss"] {
        let path = crate::measures::folders()[0].join(model).join("reference.safetensors").display().to_string();
        let tokens = load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap();
        let sites = vec![Site::AttnIn, Site::AttnOut, Site::FfnIn, Site::FfnMid];
        let observe = vec![Measure::QuantisationError, Measure::SuperWeights];
        let measure = MeasureArgs { sites, observe, ..MeasureArgs::default() };
        let acts = measured_on(model, &tokens, ExtractArgs { measure, logits: true, ..ExtractArgs::default() });
        let rule = |max_error| IgnoreRule {
            format: QuantFormat::Int8Token,
            max_error,
            super_weights: false,
            super_experts: false,
        };
        let none = ignored(&acts, &rule(f64::INFINITY)).unwrap();
        let all = ignored(&acts, &rule(0.0)).unwrap();
        // Head and routers are never quantised.
        let usual = |reason: &String| reason == "the head" || reason == "a router";
        assert!(none.values().all(usual) && none.contains_key("lm_head"), "{model}: {none:?}");
        assert!(all.len() > none.len(), "{model}");
        // Every name is that of a weight, or of some weights.
        let weights = reference(model, "weights.json")["tensors"].clone();
        let names: Vec<&String> = weights.as_object().unwrap().keys().collect();
        for name in all.keys() {
            let known = match name.strip_prefix("re:") {
                None => names.iter().any(|weight| weight.trim_end_matches(".weight") == name),
                Some(pattern) => {
                    let (before, after) = pattern.split_once("\\d+").unwrap();
                    let (before, after) = (before.replace("\\.", "."), after.replace("\\.", ".").replace('$', ""));
                    names.iter().any(|weight| weight.starts_with(&before) && weight.contains(&after))
                }
            };
            assert!(known, "{model}: {name} is no module");
        }
        // One site alone above the limit takes the modules that read it, and no others.
        let error = |of: &outlier::record::QuantError| f64::from(of.formats[0].all);
        let mut errors: Vec<f64> = acts.measures.quantisation_error.iter().map(error).collect();
        errors.sort_by(f64::total_cmp);
        let limit = errors[errors.len() - 2];
        let worst = acts.measures.quantisation_error.iter().find(|of| error(of) > limit).unwrap();
        let found: BTreeMap<_, _> =
            ignored(&acts, &rule(limit)).unwrap().into_iter().filter(|(_, reason)| !usual(reason)).collect();
        let readers = acts.measures.modules.iter().filter(|of| of.at == worst.at && !of.gguf.contains("ffn_gate_inp"));
        assert_eq!(found.len(), readers.count(), "{model}: {found:?}");
    }
}

#[test]
fn tokens_that_experts_need_follow_from_their_shares() {
    let acts = measured("olmoe", ExtractArgs { logits: true, ..ExtractArgs::default() });
    let needed = stats::tokens_needed_per_expert(&acts, 10).unwrap();
    let fewest = acts.expert_coverage.iter().flat_map(|of| &of.tokens_per_expert).filter(|n| **n > 0).min().unwrap();
    assert_eq!(needed.tokens, *fewest);
    let expected = 10.0 * (acts.num_sequences * acts.sequence_length) as f64 / *fewest as f64;
    near(needed.expected as f64, &expected.ceil().into(), "expected");
    assert!(needed.likely > expected && needed.likely < 2.0 * expected, "{}", needed.likely);
    assert!(stats::tokens_needed_per_expert(&measured("llama", ExtractArgs::default()), 1).is_err());
}

#[test]
fn a_recipe_names_super_weights_and_super_experts() {
    let path = crate::measures::folders()[0].join("olmoe").join("reference.safetensors").display().to_string();
    let tokens = load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap();
    let observe = vec![Measure::QuantisationError, Measure::SuperWeights, Measure::Experts];
    let measure = MeasureArgs { sites: vec![Site::FfnMid], observe, ..MeasureArgs::default() };
    let mut acts = measured_on("olmoe", &tokens, ExtractArgs { measure, logits: true, ..ExtractArgs::default() });
    let rule = |super_weights, super_experts| IgnoreRule {
        format: QuantFormat::Int8Token,
        max_error: f64::INFINITY,
        super_weights,
        super_experts,
    };
    // One weight whose input and output stand out at the same token, and one expert.
    let (layer, expert) = {
        let found = acts.measures.super_weights.last_mut().unwrap();
        found.input.value = 1e6;
        found.output.value = -1e6;
        (found.output.sequence, found.output.position) = (found.input.sequence, found.input.position);
        (found.layer, found.expert.unwrap())
    };
    let loudest = acts.measures.experts.iter_mut().find(|of| of.layer == 0).unwrap();
    loudest.output_absmax[2] = 1e6;
    let expert_of = |layer: usize, expert: usize| format!("model.layers.{layer}.mlp.experts.{expert}.");
    let of_kind = |rule: &IgnoreRule, words: &str| -> Vec<String> {
        let all = ignored(&acts, rule).unwrap();
        all.into_iter().filter(|(_, reason)| reason.contains(words)).map(|(name, _)| name).collect()
    };
    let weight = of_kind(&rule(true, false), "a super weight");
    assert_eq!(weight, [format!("{}down_proj", expert_of(layer, expert))]);
    let whole = of_kind(&rule(false, true), "a super expert");
    let projections = ["down_proj", "gate_proj", "up_proj"];
    assert_eq!(whole, projections.map(|name| format!("{}{name}", expert_of(0, 2))));
    for (rule, words) in [(rule(false, true), "a super weight"), (rule(true, false), "a super expert")] {
        assert!(of_kind(&rule, words).is_empty(), "{words} was not asked for");
    }
}
