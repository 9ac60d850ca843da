//! Tests of the statistics of weights against references that NumPy made of the same checkpoints.

use outlier::progress::Silent;
use outlier::record::{Activations, ExtractArgs, Measure, MeasureArgs, Site, TokenSource, WeightStats};
use outlier::text::load_tokens;

use crate::measures::{MODELS, measured, measured_on, near, reference};

/// Whether a weight belongs to multi-token prediction, which is no part of the model: it is in a
/// layer behind the last, or in a module of its own.
fn predicts_more(name: &str, layers: usize) -> bool {
    let behind = |rest: &str| rest.split('.').next().and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= layers);
    name.starts_with("mtp.") || name.split_once("layers.").is_some_and(|(_, rest)| behind(rest))
}

fn weights_of(model: &str, unread_weights: bool, logits: bool) -> Activations {
    let measure = MeasureArgs {
        sites: vec![Site::AttnIn],
        observe: vec![Measure::Weights],
        unread_weights,
        ..MeasureArgs::default()
    };
    measured(model, ExtractArgs { measure, logits, ..ExtractArgs::default() })
}

#[track_caller]
fn agree(got: &WeightStats, expected: &serde_json::Value, what: &str) {
    let shape: Vec<usize> = serde_json::from_value(expected[0].clone()).unwrap();
    // The reference turns decoded experts of gpt-oss to where unpacked ones are.
    let turned: Vec<usize> = match shape[..] {
        [experts, a, b] if got.shape != shape => vec![experts, b, a],
        _ => shape,
    };
    assert_eq!(got.shape, turned, "{what}");
    near(f64::from(got.absmax), &expected[1], &format!("{what}: largest |x|"));
    near(f64::from(got.excess_kurtosis), &expected[2], &format!("{what}: excess kurtosis"));
    for (got, expected) in [(got.int8_error, &expected[3]), (got.int4_error, &expected[4])] {
        let expected = expected.as_f64().unwrap();
        assert!((f64::from(got) / expected - 1.0).abs() < 1e-4, "{what}: error {got}, expected {expected}");
    }
}

/// On an emulated GPU, which is slow, some models.
fn models() -> Vec<&'static str> {
    match std::env::var_os("OUTLIER_TEST_DEVICE") {
        Some(_) => vec!["llama", "gpt_oss"],
        None => MODELS.to_vec(),
    }
}

#[test]
fn statistics_of_all_weights_are_those_of_the_reference() {
    for model in models() {
        let acts = weights_of(model, true, false);
        let expected = reference(model, "weights.json")["tensors"].clone();
        let expected = expected.as_object().unwrap();
        assert_eq!(acts.measures.unread_weights, Vec::<String>::new(), "{model}");
        let mut compared = 0;
        for (name, expected) in expected.iter().filter(|(name, _)| !predicts_more(name, acts.num_layers)) {
            let what = format!("{model}: {name}");
            // Names are those of the whole model, and files may leave its prefix out.
            let named = |of: &&WeightStats| of.name == *name || of.name.ends_with(&format!(".{name}"));
            let got = acts.measures.weights.iter().find(named).unwrap_or_else(|| panic!("{what}"));
            assert_eq!(got.rows, got.rows_measured, "{what}");
            agree(got, expected, &what);
            compared += 1;
        }
        assert_eq!(acts.measures.weights.len(), compared, "{model}");
    }
}

#[test]
fn what_a_pass_does_not_read_is_named() {
    for model in ["olmoe", "gpt_oss"] {
        let tokens = load_tokens(&TokenSource::Ids { ids: vec![vec![1, 2]] }, &Silent).unwrap();
        let measure = MeasureArgs { observe: vec![Measure::Weights], ..MeasureArgs::default() };
        let acts = measured_on(model, &tokens, ExtractArgs { measure, logits: true, ..ExtractArgs::default() });
        let expected = reference(model, "weights.json")["tensors"].clone();
        let whole = |of: &&WeightStats| of.rows == of.rows_measured;
        let of = |name: &str| acts.measures.weights.iter().find(|of| of.name == name);
        for got in acts.measures.weights.iter().filter(whole) {
            agree(got, &expected[&got.name], &format!("{model}: {}", got.name));
        }
        let unread = &acts.measures.unread_weights;
        for name in expected.as_object().unwrap().keys() {
            let measured = of(name).filter(whole).is_some();
            assert!(measured != unread.contains(name), "{model}: {name} is either measured or named");
        }
        assert!(unread.contains(&"model.embed_tokens.weight".to_string()), "{model}: rows of tokens only");
        assert!(of("lm_head.weight").is_some(), "{model}: the logits have read the head");
        let idle = |of: &outlier::record::ExpertCoverage| of.tokens_per_expert.iter().filter(|n| **n == 0).count();
        assert!(acts.expert_coverage.iter().map(idle).sum::<usize>() > 0, "{model}: no expert is idle");
        for layer in acts.expert_coverage.iter().filter(|_| model == "olmoe") {
            let prefix = format!("model.layers.{}.mlp.experts.", layer.layer);
            let matrices = unread.iter().filter(|name| name.starts_with(&prefix)).count();
            assert_eq!(matrices, 3 * idle(layer), "layer {}", layer.layer);
        }
        for layer in acts.expert_coverage.iter().filter(|_| model == "gpt_oss") {
            let got = of(&format!("model.layers.{}.mlp.experts.down_proj", layer.layer)).unwrap();
            let experts = layer.tokens_per_expert.len() as u64;
            assert_eq!(got.rows_measured, got.rows / experts * (experts - idle(layer) as u64), "layer {}", layer.layer);
        }
    }
}

#[test]
fn the_bits_of_all_else_stay_and_order_does_not_matter() {
    let plain = measured("olmoe", ExtractArgs::default());
    let acts = weights_of("olmoe", false, false);
    assert_eq!(plain.all, acts.all);
    let small = measured(
        "olmoe",
        ExtractArgs {
            memory_budget: 400 << 10,
            measure: MeasureArgs { observe: vec![Measure::Weights], ..MeasureArgs::default() },
            ..ExtractArgs::default()
        },
    );
    assert_eq!(small.measures.weights, acts.measures.weights);
}
