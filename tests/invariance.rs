//! Tests that the division of the work does not change the result: memory budget, layers in memory,
//! and threads.

use std::path::Path;

use outlier::error::{Error, Kind};
use outlier::record::{Activations, ComputeDtype, Criterion, ExtractArgs, LoadArgs};
use outlier::stats;

use crate::oracle::{Outcome, kinds, load_args, relative_error, run_with};

/// ‖a − b‖ / ‖b‖ per norm output: sums may be taken in another order, nothing else changes.
const TOLERANCE: f64 = 1e-6;
/// Of logits and loss, which the head computes from there; and of a model with Gated DeltaNet, which normalises sums that
/// nearly cancel and so enlarges what rounding leaves (transformers' own f32 is 4e-6 from f64 there).
const LOOSER: f64 = 1e-5;
/// Bytes beyond the least a model can do with, so that several sequences fit but not all.
const SOME_ROOM: u64 = 2;

fn features(acts: &Activations) -> Vec<(usize, usize, u64)> {
    let everything = Criterion { min_layer_percentage: 0.0, min_seq_percentage: 0.0, ..Criterion::default() };
    let features = stats::detect(acts, &everything).unwrap().features;
    features.iter().map(|f| (f.feature_dim, f.norms_hit, f.seq_positions)).collect()
}

fn assert_same(name: &str, (acts, full): &Outcome, (expected_acts, expected): &Outcome) {
    assert_eq!(features(acts), features(expected_acts), "{name}: features");
    assert_eq!(full.len(), expected.len(), "{name}: tensors");
    for (key, values) in full {
        let error = relative_error(values, &expected[key]);
        let strict = key.ends_with("layernorm") && acts.model.model_type != "qwen3_next";
        let tolerance = if strict { TOLERANCE } else { LOOSER };
        assert!(error <= tolerance, "{name}: {key} differs by {error:.1e}");
    }
}

fn with_budget(folder: &Path, memory_budget: u64) -> Result<Outcome, Error> {
    let args = ExtractArgs { memory_budget, ..ExtractArgs::default() };
    run_with(folder, &load_args(folder, ComputeDtype::F32), args)
}

/// The smallest budget the model accepts, from the hint of the error that a smaller one gives.
fn least_budget(folder: &Path) -> u64 {
    let Err(refused) = with_budget(folder, 1) else { panic!("one byte is no budget") };
    assert_eq!(refused.kind, Kind::Oom, "{refused}");
    let hint = refused.hint.expect("says how much is needed");
    hint.split(' ').find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number in: {hint}"))
}

#[test]
fn the_memory_budget_does_not_change_the_result() {
    for folder in kinds() {
        let name = folder.display().to_string();
        let ample = with_budget(&folder, 1 << 30).unwrap();
        let least = least_budget(&folder);
        for budget in [least, SOME_ROOM * least] {
            assert_same(&format!("{name}, {budget} bytes"), &with_budget(&folder, budget).unwrap(), &ample);
        }
        assert!(with_budget(&folder, least * 9 / 10).is_err(), "{name}: less than the least was accepted");
    }
}

#[test]
fn layers_in_memory_do_not_change_the_result() {
    for folder in kinds() {
        let run = |chunk_layers| {
            let load = LoadArgs { chunk_layers, ..load_args(&folder, ComputeDtype::F32) };
            run_with(&folder, &load, ExtractArgs::default()).unwrap()
        };
        let expected = run(2);
        for chunk_layers in [1, 3, 100] {
            assert_same(&format!("{}, chunk_layers {chunk_layers}", folder.display()), &run(chunk_layers), &expected);
        }
    }
}

#[test]
fn threads_do_not_change_the_result() {
    for folder in kinds() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| with_budget(&folder, 1 << 30)).unwrap()
        };
        let expected = run(1);
        for threads in [2, 5] {
            assert_same(&format!("{}, {threads} threads", folder.display()), &run(threads), &expected);
        }
    }
}
