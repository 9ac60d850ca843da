//! Tests of bf16 against the f32 reference: the same fixtures have the same outlier features,
//! except for those at the edge of a criterion.
//!
//! A feature is at the edge when the reference itself changes its verdict if the threshold moves by `EDGE`.
//! `OUTLIER_FIXTURES=DIR` runs the same checks over other folders.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use outlier::record::{ComputeDtype, Criterion, LayerUnit};
use outlier::stats;

use crate::oracle::{SWEEP, check_all, compare_rounded, fixtures, run, tensors};

/// ‖a − b‖ / ‖b‖ per tensor: bf16 keeps 8 bits, and its rounding errors add up over the layers.
const BF16_TOLERANCE: f64 = 5e-2;
/// Share of the threshold that bf16 may move a value by.
const EDGE: f32 = 0.02;

/// The dims that pass the default criterion at `threshold`, counted over the reference's own activations.
fn passing(reference: &HashMap<String, Vec<f32>>, hidden: usize, threshold: f32) -> BTreeSet<usize> {
    let criterion = Criterion::default();
    let layers = reference.keys().filter(|name| name.ends_with(".attn_norm")).count();
    let positions = reference["layers.0.attn_norm"].len() / hidden;
    let mut dims = BTreeSet::new();
    for dim in 0..hidden {
        let mut anywhere = vec![false; positions];
        let mut layers_hit = 0;
        for layer in 0..layers {
            let mut hit = false;
            for site in ["attn_norm", "ffn_norm"] {
                let values = reference[&format!("layers.{layer}.{site}")].iter().skip(dim).step_by(hidden);
                for (anywhere, _) in anywhere.iter_mut().zip(values).filter(|(_, x)| x.abs() >= threshold) {
                    (*anywhere, hit) = (true, true);
                }
            }
            layers_hit += hit as usize;
        }
        let positions_hit = anywhere.iter().filter(|hit| **hit).count();
        let enough = |count: usize, all: usize, share: f64| count as f64 / all as f64 >= share;
        if enough(layers_hit, layers, criterion.min_layer_percentage)
            && enough(positions_hit, positions, criterion.min_seq_percentage)
        {
            dims.insert(dim);
        }
    }
    dims
}

fn check(folder: &Path) {
    let name = folder.display();
    let (acts, full) = run(folder, ComputeDtype::Bf16);
    let (worst, at) = compare_rounded(folder, &full, (acts.hidden_size, acts.model.vocab_size));
    println!("{name}: worst relative error in bf16 {worst:.2e} at {at}");
    assert!(worst <= BF16_TOLERANCE, "{name}: relative error {worst:.2e} at {at}");
    let criterion = Criterion { layer_unit: LayerUnit::Block, ..Criterion::default() };
    let found = stats::detect(&acts, &criterion).unwrap().features;
    let found: BTreeSet<usize> = found.iter().map(|feature| feature.feature_dim).collect();
    let reference = tensors(&folder.join("reference.safetensors"));
    let at = |threshold| passing(&reference, acts.hidden_size, threshold);
    let threshold = criterion.magnitude_threshold;
    let (certain, possible) = (at(threshold * (1.0 + EDGE)), at(threshold * (1.0 - EDGE)));
    assert!(found.is_superset(&certain), "{name}: of {certain:?} only {found:?} were found");
    assert!(found.is_subset(&possible), "{name}: {found:?} were found, at most {possible:?} are right");
}

#[test]
fn every_architecture_keeps_its_outlier_features_in_bf16() {
    // A GPU rounds the operands of all products: that of the models of the sweep is small enough.
    let on_a_gpu = std::env::var_os("OUTLIER_TEST_DEVICE").is_some();
    match on_a_gpu {
        true => SWEEP.iter().for_each(|name| check(&fixtures().join(name))),
        false => check_all(&fixtures(), None, check),
    }
}

/// Not part of the suite's own data: more variants, or other seeds.
#[test]
fn other_fixtures_keep_their_outlier_features_in_bf16() {
    if let Some(root) = std::env::var_os("OUTLIER_FIXTURES") {
        check_all(Path::new(&root), std::env::var("OUTLIER_ONLY").ok().as_deref(), check);
    }
}
