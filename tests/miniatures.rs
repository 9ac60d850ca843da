//! Tests of every miniature model: the planted features are found, and the engine agrees with the
//! second implementation of the model's description.

use outlier::engine::extract;
use outlier::hub::{self, Access};
use outlier::miniature;
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, Criterion, ExtractArgs, Keep, TokenSource};
use outlier::stats;
use outlier::text::load_tokens;
use outlier::weights::{OpenModel, open};

use crate::oracle::{load_args, relative_error, tensors};

/// ‖a − b‖ / ‖b‖ between the engine's f32 and f64.
const TOLERANCE: f64 = 1e-4;
/// Tokens of a sequence that is also computed in f64.
const FEW: usize = 12;

fn opened(folder: &std::path::Path) -> OpenModel {
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    open(files, &load_args(folder, ComputeDtype::F32)).unwrap()
}

fn ids(sequences: usize, positions: usize) -> Vec<Vec<u32>> {
    (0..sequences).map(|s| (0..positions).map(|t| ((s * 31 + t * t * 7 + t) % 256) as u32).collect()).collect()
}

#[test]
fn every_miniature_has_what_was_planted() {
    let root = tempfile::tempdir().unwrap();
    for name in miniature::names() {
        let made = miniature::make(root.path(), name).unwrap();
        let model = opened(made.path.as_ref());
        let tokens = load_tokens(&TokenSource::Ids { ids: ids(4, 64) }, &Silent).unwrap();
        let acts = extract(&model, &tokens, &ExtractArgs::default(), &Silent).unwrap();
        let found = stats::detect(&acts, &Criterion::default()).unwrap();
        let mut dims: Vec<usize> = found.features.iter().map(|feature| feature.feature_dim).collect();
        dims.sort_unstable();
        assert_eq!(dims, made.expected_dims, "{name}");
        assert_eq!(
            serde_json::to_value(found.classification).unwrap(),
            made.expected_classification.as_str(),
            "{name}"
        );
    }
}

#[test]
fn every_miniature_computes_what_its_description_says() {
    let root = tempfile::tempdir().unwrap();
    for name in miniature::names() {
        let made = miniature::make(root.path(), name).unwrap();
        let model = opened(made.path.as_ref());
        let tokens = load_tokens(&TokenSource::Ids { ids: ids(1, FEW) }, &Silent).unwrap();
        let out = root.path().join("full");
        let args = ExtractArgs {
            keep: Keep::Full,
            out: Some(out.display().to_string()),
            logits: true,
            ..ExtractArgs::default()
        };
        extract(&model, &tokens, &args, &Silent).unwrap();
        let full = tensors(&out.join("activations.safetensors"));
        let plain = outlier::reference::compute(&model, &tokens.ids[0]).unwrap();
        let close = |of: &str, expected: &[f64]| {
            let expected: Vec<f32> = expected.iter().map(|value| *value as f32).collect();
            let error = relative_error(&full[of], &expected);
            assert!(error <= TOLERANCE, "{name}: {of} is {error:.2e} from its definition");
        };
        plain.sites.iter().for_each(|(site, rows)| close(&site.name(), &rows.concat()));
        close("final_logits_last", &plain.last_logits);
    }
}

/// The reference names them all.
#[test]
fn every_miniature_is_in_the_reference() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md")).unwrap();
    let (_, behind) = page.split_once("Makes a small synthetic model").unwrap();
    let summary = behind.lines().next().unwrap();
    for name in miniature::names() {
        assert!(
            summary.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name),
            "{name}: {summary}"
        );
    }
}
