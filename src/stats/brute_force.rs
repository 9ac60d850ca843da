//! Tests against a brute-force implementation: loops over a dense X[n][s][t][d], directly from the
//! definitions.
//!
//! It shares no code with the implementation except the record types. The arrays are small and
//! random, with a few hundred criteria. Values often equal a rung, shares often equal a limit, and
//! some values are not finite.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dense::Dense;
use super::draws::Draws;
use super::{Replicates, ThresholdIndex, bootstrap, detect, interval};
use crate::record::{
    BootstrapArgs, Classification, Criterion, Detection, Feature, LayerUnit, Method, Scope, Sidedness,
};

const CASES: u64 = 400;
const LADDER: [f32; 5] = [2.0, 3.0, 4.5, 6.0, 8.0];

fn random_dense(random: &mut ChaCha8Rng, sequences: usize) -> Dense {
    let shape = [random.random_range(1..5), sequences, random.random_range(2..9), random.random_range(1..7)];
    // Features have different scales, so that some pass and some do not.
    let scale: Vec<f32> = (0..shape[3]).map(|_| random.random_range(0.5..8.0)).collect();
    Dense::drawn(shape, |[_, _, _, d]| match random.random_range(0..40) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2..6 => LADDER[random.random_range(0..5)] * if random.random() { 1.0 } else { -1.0 },
        _ => scale[d] * random.random_range(-1.0..1.2) * random.random_range(0.0..1.5),
    })
}

fn random_criterion(random: &mut ChaCha8Rng) -> Criterion {
    let limits = [0.0, 0.06, 0.125, 0.25, 1.0 / 3.0, 0.5, 0.6, 0.75, 0.9, 1.0];
    let mut limit = || *limits.choose(random).expect("there are limits");
    Criterion {
        min_layer_percentage: limit(),
        min_seq_percentage: limit(),
        systematic_layers: limit(),
        magnitude_threshold: LADDER[random.random_range(0..5)],
        layer_unit: if random.random() { LayerUnit::Norm } else { LayerUnit::Block },
        scope: if random.random() { Scope::Pooled } else { Scope::PerSequence },
        skip_positions: random.random_range(0..2),
        own: None,
    }
}

/// All features that pass over the sequences `chosen`, in the documented order.
fn naive_features(x: &Dense, criterion: &Criterion, sequence: Option<usize>, chosen: &[usize]) -> Vec<Feature> {
    let skip = criterion.skip_positions;
    let hit = |n, s, t, d| x[[n, s, t, d]].is_finite() && x[[n, s, t, d]].abs() >= criterion.magnitude_threshold;
    let mut features = vec![];
    for d in 0..x.hidden {
        let mut norm_hit = vec![false; 2 * x.layers];
        let (mut hits, mut values, mut seq_positions) = (vec![], vec![], 0);
        for &s in chosen {
            for t in skip..x.length {
                let mut any = false;
                for (n, norm_hit) in norm_hit.iter_mut().enumerate() {
                    let value = x[[n, s, t, d]];
                    if value.is_finite() {
                        values.push(value);
                    }
                    if hit(n, s, t, d) {
                        hits.push(value);
                        any = true;
                        *norm_hit = true;
                    }
                }
                seq_positions += u64::from(any);
            }
        }
        let norms_hit = norm_hit.iter().filter(|&&hit| hit).count();
        let blocks_hit = norm_hit.chunks(2).filter(|block| block[0] || block[1]).count();
        let layer_percentage = norms_hit as f64 / (2 * x.layers) as f64;
        let layer_percentage_blocks = blocks_hit as f64 / x.layers as f64;
        let seq_percentage = seq_positions as f64 / (chosen.len() * (x.length - skip)) as f64;
        let judged = if criterion.layer_unit == LayerUnit::Norm { layer_percentage } else { layer_percentage_blocks };
        if hits.is_empty() || judged < criterion.min_layer_percentage || seq_percentage < criterion.min_seq_percentage {
            continue;
        }
        hits.sort_by(f32::total_cmp);
        values.sort_by(f32::total_cmp);
        let (min_value, max_value) = (values[0], values[values.len() - 1]);
        let name = |n: usize| format!("layers.{}.{}", n / 2, ["input_layernorm", "post_attention_layernorm"][n % 2]);
        features.push(Feature {
            feature_dim: d,
            sequence,
            layer_percentage,
            layer_percentage_blocks,
            norms_hit,
            blocks_hit,
            seq_percentage,
            seq_positions,
            max_magnitude: max_value.abs().max(min_value.abs()),
            max_value,
            min_value,
            sidedness: match (hits[0] < 0.0, hits[hits.len() - 1] > 0.0) {
                (true, true) => Sidedness::TwoSided,
                (true, false) => Sidedness::Negative,
                _ => Sidedness::Positive,
            },
            total_occurrences: hits.len() as u64,
            quartiles: [0.25, 0.5, 0.75].map(|p| naive_quantile(&hits, p)),
            layers_affected: (0..2 * x.layers).filter(|&n| norm_hit[n]).map(name).collect(),
            classification: match judged >= criterion.systematic_layers {
                true => Classification::Systematic,
                false => Classification::Probabilistic,
            },
        });
    }
    features.sort_by(|a, b| b.max_magnitude.total_cmp(&a.max_magnitude).then(a.feature_dim.cmp(&b.feature_dim)));
    features
}

/// The linear quantile of sorted values, as NumPy defines it.
fn naive_quantile(sorted: &[f32], p: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * p;
    let (low, high) = (f64::from(sorted[at.floor() as usize]), f64::from(sorted[at.ceil() as usize]));
    low + (high - low) * at.fract()
}

/// Asserts equality. Quartiles may differ by the width of their bin.
fn assert_same(got: &[Feature], want: &[Feature]) {
    let without_quartiles = |features: &[Feature]| -> Vec<Feature> {
        features.iter().map(|feature| Feature { quartiles: [0.0; 3], ..feature.clone() }).collect()
    };
    assert_eq!(without_quartiles(got), without_quartiles(want));
    for (got, want) in got.iter().zip(want) {
        let widest = f64::from(got.max_magnitude - 8.0).max(2.0);
        for (a, b) in got.quartiles.iter().zip(want.quartiles) {
            assert!((a - b).abs() <= widest, "quartiles {:?} are not {:?}", got.quartiles, want.quartiles);
        }
    }
}

fn detection(x: &Dense, criterion: &Criterion) -> Detection {
    detect(&x.activations(&LADDER), criterion).expect("a sound criterion and record")
}

/// At rungs and between them, the index agrees with a new detection for every criterion, or returns
/// an error because the answer is undecided.
#[test]
fn the_index_passes_what_detection_passes() {
    let (mut found, mut undecided) = (0, 0);
    for case in 0..CASES {
        let mut random = ChaCha8Rng::seed_from_u64(3000 + case);
        let sequences = random.random_range(1..5);
        let acts = random_dense(&mut random, sequences).activations(&LADDER);
        let base = random_criterion(&mut random);
        let index = ThresholdIndex::new(&acts, &base).unwrap();
        for _ in 0..8 {
            let drawn = random_criterion(&mut random);
            let magnitude_threshold = match random.random_range(0..3) {
                0 => random.random_range(0.5..10.0),
                _ => drawn.magnitude_threshold,
            };
            let (layers, positions) = (drawn.min_layer_percentage, drawn.min_seq_percentage);
            let criterion = Criterion {
                magnitude_threshold,
                min_layer_percentage: layers,
                min_seq_percentage: positions,
                ..base.clone()
            };
            let sorted = |dims: &mut dyn Iterator<Item = usize>| {
                let mut dims: Vec<usize> = dims.collect();
                dims.sort_unstable();
                dims
            };
            let detection = detect(&acts, &criterion).unwrap();
            let open = detection.bracket.as_ref().map_or(0, |bracket| bracket.possible_features.len());
            match index.passing(magnitude_threshold, layers, positions) {
                Ok(mut passing) => {
                    let want = sorted(&mut detection.features.iter().map(|f| f.feature_dim));
                    assert_eq!((sorted(&mut passing), open), (want, 0), "case {case}: {criterion:?}");
                    found += detection.num_features;
                }
                Err(error) => {
                    let (certain, possible) = (detection.num_features, detection.num_features + open);
                    assert!(
                        open > 0 && error.message.ends_with(&format!(", and {possible} may")),
                        "{certain}: {error}"
                    );
                    undecided += 1;
                }
            }
        }
    }
    assert!(found > CASES as usize, "the cases are too poor: {found} features");
    assert!(undecided > CASES as usize / 10, "the cases are too poor: {undecided} are undecided");
}

#[test]
fn detection_is_that_of_the_definitions() {
    let mut found = 0;
    for case in 0..CASES {
        let mut random = ChaCha8Rng::seed_from_u64(case);
        let sequences = random.random_range(1..5);
        let x = random_dense(&mut random, sequences);
        let criterion = random_criterion(&mut random);
        let all: Vec<usize> = (0..x.sequences).collect();
        let want = match criterion.scope {
            Scope::Pooled => naive_features(&x, &criterion, None, &all),
            Scope::PerSequence => all.iter().flat_map(|&s| naive_features(&x, &criterion, Some(s), &[s])).collect(),
        };
        let got = detection(&x, &criterion);
        assert_same(&got.features, &want);
        let systematic = want.iter().any(|feature| feature.classification == Classification::Systematic);
        let class = match (want.is_empty(), systematic) {
            (true, _) => Classification::None,
            (_, true) => Classification::Systematic,
            _ => Classification::Probabilistic,
        };
        assert_eq!((got.classification, got.num_features), (class, want.len()));
        assert_eq!(got.num_positions, (x.sequences * (x.length - criterion.skip_positions)) as u64);
        found += want.len();
    }
    assert!(found > CASES as usize, "the cases are too poor: {found} features");
}

#[test]
fn layer_stats_and_totals_are_those_of_the_definitions() {
    for case in 0..CASES {
        let mut random = ChaCha8Rng::seed_from_u64(1000 + case);
        let x = random_dense(&mut random, 3);
        let criterion = random_criterion(&mut random);
        let got = detection(&x, &criterion);
        let positions = criterion.skip_positions..x.length;
        let mut dims_hit = vec![false; x.hidden];
        for (n, stats) in got.layer_stats.iter().enumerate() {
            let (mut hits, mut largest, mut values) = (0u64, 0f32, 0u64);
            let mut features = vec![false; x.hidden];
            for s in 0..x.sequences {
                for t in positions.clone() {
                    for d in 0..x.hidden {
                        values += 1;
                        let magnitude = x[[n, s, t, d]].abs();
                        if magnitude.is_finite() {
                            largest = largest.max(magnitude);
                            let hit = magnitude >= criterion.magnitude_threshold;
                            hits += u64::from(hit);
                            features[d] |= hit;
                            dims_hit[d] |= hit;
                        }
                    }
                }
            }
            let num_features = features.iter().filter(|&&hit| hit).count();
            assert_eq!((stats.num_outliers, stats.num_features), (hits, num_features));
            assert_eq!(stats.max_magnitude, largest);
            assert!((stats.outlier_percentage - 100.0 * hits as f64 / values as f64).abs() < 1e-12);
        }
        assert_eq!(got.layer_stats.len(), 2 * x.layers);
        assert_eq!(got.num_features_hit, dims_hit.iter().filter(|&&hit| hit).count());
        let largest = got.layer_stats.iter().map(|norm| norm.max_magnitude).fold(0.0, f32::max);
        assert_eq!(got.max_magnitude, largest);
    }
}

/// Compares with a bootstrap that runs a detection on every resampled array.
#[test]
fn bootstrap_is_detection_on_every_resample() {
    let mut found = 0;
    for case in 0..CASES / 10 {
        let mut random = ChaCha8Rng::seed_from_u64(2000 + case);
        let sequences = random.random_range(2..7);
        let x = random_dense(&mut random, sequences);
        let criterion = Criterion { scope: Scope::Pooled, ..random_criterion(&mut random) };
        let method = if random.random() { Method::Bca } else { Method::Percentile };
        let args = BootstrapArgs { n_resamples: 60, confidence_level: 0.9, method, seed: case };
        let got = bootstrap(&x.activations(&LADDER), &criterion, &args).expect("a sound bootstrap");

        let draws = Draws::new(sequences, args.n_resamples, args.seed);
        let each: Vec<Detection> = draws.samples().map(|one| detection(&x.resampled(one), &criterion)).collect();
        let of = |statistic: &dyn Fn(&Detection) -> f64| -> Replicates {
            draws.replicates(each.iter().map(statistic).collect())
        };
        let interval = |replicates| interval(&replicates, args.confidence_level, method);
        let count = |such: &dyn Fn(&Detection) -> bool| {
            let held = each[1 + sequences..].iter().filter(|one| such(one)).count();
            held as f64 / args.n_resamples as f64
        };
        let full = &each[0];
        let feature = |one: &Detection, dim| one.features.iter().find(|f| f.feature_dim == dim).cloned();

        assert_eq!(got.num_features, interval(of(&|one| one.num_features as f64)));
        assert_eq!(got.max_magnitude, interval(of(&|one| f64::from(one.max_magnitude))));
        assert_eq!(got.classification, full.classification);
        assert_eq!(got.classification_held, count(&|one| one.classification == full.classification));
        assert_eq!(got.mean_layer_percentage.is_some(), !full.features.is_empty());
        assert_eq!(got.features.len(), full.num_features);

        // A feature that fails in a resample is not in its result. This second detection lists
        // every feature with a hit.
        let lenient = Criterion { min_layer_percentage: 0.0, min_seq_percentage: 0.0, ..criterion.clone() };
        let every: Vec<Detection> = draws.samples().map(|one| detection(&x.resampled(one), &lenient)).collect();
        for (got, want) in got.features.iter().zip(&full.features) {
            let dim = want.feature_dim;
            assert_eq!((got.feature_dim, got.classification), (dim, want.classification));
            let shares = |share: &dyn Fn(&Feature) -> f64| {
                let values = every.iter().map(|one| feature(one, dim).map_or(0.0, |found| share(&found)));
                interval(draws.replicates(values.collect()))
            };
            let unit = |found: &Feature| match criterion.layer_unit {
                LayerUnit::Norm => found.layer_percentage,
                LayerUnit::Block => found.layer_percentage_blocks,
            };
            assert_eq!(got.layer_percentage, shares(&unit));
            assert_eq!(got.seq_percentage, shares(&|found| found.seq_percentage));
            assert_eq!(got.max_magnitude.value, f64::from(want.max_magnitude));
            assert_eq!(got.passed, count(&|one| feature(one, dim).is_some()));
            let same_class =
                |one: &Detection| feature(one, dim).is_some_and(|f| f.classification == want.classification);
            assert_eq!(got.classification_held, count(&same_class));
        }
        let mean = |share: &dyn Fn(&Feature) -> f64| {
            let fixed = |one: &Detection| -> f64 {
                let found = full.features.iter().filter_map(|f| feature(one, f.feature_dim));
                found.map(|f| share(&f)).sum::<f64>() / full.num_features as f64
            };
            interval(draws.replicates(every.iter().map(fixed).collect()))
        };
        let norms = |found: &Feature| found.layer_percentage;
        let blocks = |found: &Feature| found.layer_percentage_blocks;
        let layers = if criterion.layer_unit == LayerUnit::Norm { mean(&norms) } else { mean(&blocks) };
        for (got, want) in
            [(got.mean_layer_percentage, layers), (got.mean_seq_percentage, mean(&|found| found.seq_percentage))]
        {
            let Some(got) = got else { continue };
            assert!((got.value - want.value).abs() < 1e-12);
            // BCa counts ties, and the mean of rounded shares may differ from the rounded mean.
            // Only percentile intervals are compared exactly.
            let exact = method == Method::Percentile;
            assert!(!exact || (got.low - want.low).abs() + (got.high - want.high).abs() < 1e-12);
        }
        found += full.num_features;
    }
    assert!(found > 30, "the cases are too poor: {found} features");
}
