//! Measures the cost of the statistics on a record of real size, and how often intervals hold the
//! truth. It prints tables; docs/statistics.md has the numbers.
//!
//! cargo bench --bench statistics -- record       size of a record, seconds for other criteria and a sweep
//! cargo bench --bench statistics -- coverage     simulated coverage of the intervals, 16 sequences
//! cargo bench --bench statistics -- coverage 200 the same, with fewer repetitions

use std::time::Instant;

use outlier::record::*;
use outlier::{results, stats};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution, Normal};

const SEQUENCES: usize = 16;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |i: usize, default: usize| words.get(i).and_then(|word| word.parse().ok()).unwrap_or(default);
    match words.first().map(String::as_str) {
        Some("record") => record(),
        Some("coverage") => coverage(number(1, 1000)),
        _ => eprintln!("say which: record, or coverage [repetitions]"),
    }
}

fn empty(layers: usize, hidden: usize, length: usize, ladder: &[f32]) -> Activations {
    let norms = SiteId::norms(layers);
    Activations {
        model: ModelInfo {
            id: "simulated".into(),
            revision: None,
            model_type: "simulated".into(),
            num_layers: layers,
            hidden_size: hidden,
            vocab_size: 0,
            num_experts: 0,
            num_experts_per_tok: 0,
            parameters: 0,
            active_parameters: 0,
            weights_stored_as: Vec::new(),
            weight_bytes: 0,
            dtype: ComputeDtype::F32,
            device: "cpu".into(),
            chunk_layers: 1,
            synthetic: true,
            files: vec![],
        },
        tokens: TokensInfo {
            source: "simulated".into(),
            revision: None,
            num_sequences: SEQUENCES,
            sequence_length: length,
            sha256: String::new(),
            parts: vec![],
        },
        norms,
        num_layers: layers,
        hidden_size: hidden,
        num_sequences: SEQUENCES,
        sequence_length: length,
        ladder: ladder.to_vec(),
        all: Fold::default(),
        without_first: Fold::default(),
        non_finite: vec![],
        expert_coverage: vec![],
        mean_nll: None,
        full_activations: None,
        measurements: Measurements::default(),
        sites: Vec::new(),
        measures: Default::default(),
        lanes: Vec::new(),
    }
}

/// The sparse values of one cell beyond the lowest rung: (position, value).
type Tail = Vec<(usize, f32)>;

/// Fills the record with folds of cells. `tail(norm, sequence, feature)` draws the values of a cell
/// beyond the lowest rung.
fn fold(acts: &mut Activations, inner: f32, mut tail: impl FnMut(usize, usize, usize) -> Tail) {
    let (norms, hidden, length) = (acts.norms.len(), acts.hidden_size, acts.sequence_length);
    let ladder = acts.ladder.clone();
    let level = |value: f32| ladder.partition_point(|rung| *rung <= value.abs());
    let ladders = |levels: &[usize]| -> Vec<u32> {
        let count = |rung: usize| levels.iter().filter(|level| **level > rung).count() as u32;
        (0..ladder.len()).map(count).take_while(|count| *count > 0).collect()
    };
    let mut folds = [Fold::default(), Fold::default()];
    for fold in &mut folds {
        fold.norms = vec![vec![NormFold::default(); SEQUENCES]; norms];
        fold.any_norm = vec![Ladders::default(); SEQUENCES];
    }
    // Every value has a mantissa of its own, as in a model.
    let mut noise = ChaCha8Rng::seed_from_u64(9);
    let mut within = || inner * noise.random_range(0.6..1.0f32);
    for s in 0..SEQUENCES {
        for d in 0..hidden {
            let mut union = vec![0usize; length];
            for n in 0..norms {
                // The tail has one value per position.
                let mut tail = tail(n, s, d);
                tail.sort_by_key(|(t, _)| *t);
                tail.dedup_by_key(|(t, _)| *t);
                let (highest, lowest) = (within(), -within());
                for (skip, fold) in folds.iter_mut().enumerate() {
                    let cell = &mut fold.norms[n][s];
                    let values = || tail.iter().filter(move |(t, _)| *t >= skip).map(|(_, value)| *value);
                    cell.max.push(values().fold(highest, f32::max));
                    cell.min.push(values().fold(lowest, f32::min));
                    for (positive, side) in [(true, &mut cell.positive), (false, &mut cell.negative)] {
                        let levels: Vec<usize> = values().filter(|v| (*v > 0.0) == positive).map(level).collect();
                        let counts = ladders(&levels);
                        if !counts.is_empty() {
                            side.push(d as u32, &counts);
                        }
                    }
                }
                tail.iter().for_each(|(t, value)| union[*t] = union[*t].max(level(*value)));
            }
            for (skip, fold) in folds.iter_mut().enumerate() {
                let counts = ladders(&union[skip..]);
                if !counts.is_empty() {
                    fold.any_norm[s].push(d as u32, &counts);
                }
            }
        }
    }
    [acts.all, acts.without_first] = folds;
}

/// Measures a record of 48 layers, 4096 features and 16 x 2,048 tokens: normal values, with one
/// deviation in a share of the features.
fn record() {
    println!("{:<44} {:>9} {:>8} {:>8} {:>9} {:>10}", "record", "MB", "write s", "read s", "detect s", "interval s");
    for (name, share) in [("1 % of features reach 3.0 in every norm", 0.01), ("10 %", 0.1), ("all", 1.0)] {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut acts = empty(48, 4096, 2048, &DEFAULT_LADDER);
        let beyond = 2.0 * (1.0 - stats::normal_cdf(3.0));
        // A few dozen features are outliers proper.
        fold(&mut acts, 2.5, |n, _, d| {
            if d % 128 == 0 && n % 3 != 0 {
                return (0..400).map(|_| (random.random_range(0..2048), random.random_range(5.0..40.0))).collect();
            }
            if d as f64 >= share * 4096.0 {
                return Vec::new();
            }
            let count = (0..6).filter(|_| random.random::<f64>() < 2048.0 * beyond / 6.0).count();
            let value = |random: &mut ChaCha8Rng| {
                let size = stats::normal_quantile(1.0 - beyond / 2.0 * random.random::<f64>().max(1e-9)) as f32;
                if random.random() { size } else { -size }
            };
            (0..count).map(|_| (random.random_range(0..2048), value(&mut random))).collect()
        });
        let (bytes, write) = timed(|| results::encode_stats(&acts).expect("a sound record"));
        let folder = std::env::temp_dir().join("outlier-bench-statistics");
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("activations.stats");
        std::fs::write(&path, &bytes).expect("room for a record");
        let (back, read) = timed(|| results::read_stats(&path).expect("just written"));
        assert!(back == acts, "a record must come back as it was");
        let criterion = Criterion { magnitude_threshold: 7.0, ..Criterion::default() };
        let (found, detect) = timed(|| stats::detect(&acts, &criterion).expect("a sound criterion"));
        let (_, interval) = timed(|| stats::bootstrap(&acts, &criterion, &BootstrapArgs::default()));
        println!(
            "{name:<44} {:>9.1} {write:>8.2} {read:>8.2} {detect:>9.2} {interval:>10.2}   {} features",
            bytes.len() as f64 / 1e6,
            found.num_features
        );
        let mut criteria = Vec::new();
        for magnitude_threshold in DEFAULT_LADDER.into_iter().take(10) {
            for layer in 0..10 {
                for position in 0..10 {
                    criteria.push(Criterion {
                        magnitude_threshold,
                        min_layer_percentage: f64::from(layer) / 10.0,
                        min_seq_percentage: f64::from(position) / 50.0,
                        ..Criterion::default()
                    });
                }
            }
        }
        let args = BootstrapArgs { n_resamples: 1000, ..BootstrapArgs::default() };
        let (rows, sweep) = timed(|| stats::sweep(&acts, &criteria, &args).expect("a sound sweep"));
        println!("{:<44} {} criteria x 1,000 resamples: {sweep:.2} s", "", rows.len());
        let _ = std::fs::remove_dir_all(&folder);
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

/// How often a 95 % interval held the truth.
#[derive(Default)]
struct Held {
    inside: usize,
    below: usize,
    above: usize,
    width: f64,
    bca: usize,
}

impl Held {
    fn see(&mut self, interval: &Interval, truth: f64) {
        self.inside += usize::from(interval.low <= truth && truth <= interval.high);
        self.below += usize::from(truth < interval.low);
        self.above += usize::from(truth > interval.high);
        self.width += interval.high - interval.low;
        self.bca += usize::from(interval.method == Method::Bca);
    }

    fn show(&self, name: &str, method: Method) {
        let n = (self.inside + self.below + self.above).max(1) as f64;
        let error = (self.inside as f64 / n * (1.0 - self.inside as f64 / n) / n).sqrt();
        println!(
            "{name:<52} {:<10} {:>6.1} % ± {:.1}   truth below {:>4.1} %, above {:>4.1} %   mean width {:.4}   BCa defined {:.0} %",
            if method == Method::Bca { "BCa" } else { "percentile" },
            100.0 * self.inside as f64 / n,
            100.0 * error,
            100.0 * self.below as f64 / n,
            100.0 * self.above as f64 / n,
            self.width / n,
            100.0 * self.bca as f64 / n,
        );
    }
}

const METHODS: [Method; 2] = [Method::Percentile, Method::Bca];

fn coverage(repetitions: usize) {
    println!(
        "{SEQUENCES} sequences, 2,000 resamples, {repetitions} repetitions, nominal 95 %; ± is one standard error"
    );
    let mut random = ChaCha8Rng::seed_from_u64(16);
    let args = |method| BootstrapArgs { n_resamples: 2000, method, ..BootstrapArgs::default() };
    // The quantities are means over sequences: the position share of one feature, and the loss.
    let shares: [(&str, Beta<f64>, f64); 3] = [
        ("position share, mean 0.40, even", Beta::new(8.0, 12.0).expect("positive"), 0.4),
        ("position share, mean 0.10, uneven", Beta::new(1.0, 9.0).expect("positive"), 0.1),
        ("position share, mean 0.02, very uneven", Beta::new(0.2, 9.8).expect("positive"), 0.02),
    ];
    for (name, beta, truth) in shares {
        for method in METHODS {
            let mut held = Held::default();
            for _ in 0..repetitions {
                let values: Vec<f64> = (0..SEQUENCES).map(|_| beta.sample(&mut random)).collect();
                held.see(&stats::mean_interval(&values, &args(method), |mean| mean).expect("finite values"), truth);
            }
            held.show(name, method);
        }
    }
    let losses = Normal::new(2.5, 0.35).expect("a positive deviation");
    for method in METHODS {
        let mut held = Held::default();
        for _ in 0..repetitions {
            let values: Vec<f64> = (0..SEQUENCES).map(|_| losses.sample(&mut random)).collect();
            held.see(&stats::mean_interval(&values, &args(method), f64::exp).expect("finite values"), 2.5f64.exp());
        }
        held.show("perplexity, losses 2.5 ± 0.35", method);
    }
    records(repetitions);
}

/// Simulates bootstrap intervals of the number of features, and of unions.
fn records(repetitions: usize) {
    const FEATURES: usize = 24;
    const LENGTH: usize = 200;
    // From far below the limit of 6 % to far above it.
    let means: Vec<f64> = (0..FEATURES).map(|d| 0.02 + 0.005 * d as f64).collect();
    let truly_passing = means.iter().filter(|mean| **mean >= 0.06).count() as f64;
    let draw = |random: &mut ChaCha8Rng| {
        let mut acts = empty(4, FEATURES, LENGTH, &[6.0]);
        let mut rates = vec![0.0; SEQUENCES * FEATURES];
        for (i, rate) in rates.iter_mut().enumerate() {
            let mean = means[i % FEATURES];
            *rate = Beta::new(5.0 * mean, 5.0 * (1.0 - mean)).expect("positive").sample(random);
        }
        // A feature hits norm n in one of so many sequences, so layer shares grow with the number
        // of sequences.
        fold(&mut acts, 1.0, |n, s, d| {
            let hit = n < 3 || random.random::<f64>() < 0.05;
            let here = |t: usize, random: &mut ChaCha8Rng| {
                hit && (n == 0 || t == 0) && random.random::<f64>() < rates[s * FEATURES + d]
            };
            (0..LENGTH).filter(|t| here(*t, random)).map(|t| (t, 7.0)).collect()
        });
        acts
    };
    let criterion = Criterion { min_layer_percentage: 0.0, ..Criterion::default() };
    let mut random = ChaCha8Rng::seed_from_u64(17);
    // The expected union over 16 other sequences.
    let union: f64 = (0..repetitions)
        .map(|_| {
            let found = stats::detect(&draw(&mut random), &Criterion { min_seq_percentage: 0.0, ..criterion.clone() });
            let found = found.expect("a sound record");
            found.features.iter().find(|f| f.feature_dim == FEATURES - 1).map_or(0.0, |f| f.layer_percentage)
        })
        .sum::<f64>()
        / repetitions as f64;
    for method in METHODS {
        let (mut count, mut share) = (Held::default(), Held::default());
        let args = BootstrapArgs { n_resamples: 2000, method, ..BootstrapArgs::default() };
        for _ in 0..repetitions {
            let acts = draw(&mut random);
            let ci = stats::bootstrap(&acts, &criterion, &args).expect("a sound record");
            count.see(&ci.num_features, truly_passing);
            if let Some(last) = ci.features.iter().find(|f| f.feature_dim == FEATURES - 1) {
                share.see(&last.layer_percentage, union);
            }
        }
        count.show("number of features that pass", method);
        share.show("layer share (a union) of 16 new sequences", method);
    }
}
