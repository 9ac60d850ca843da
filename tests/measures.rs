//! Tests of every measurement against references that Hugging Face transformers and NumPy made of
//! the same fixtures (`tests/fixtures_measures`): sites, moments, largest values, massive
//! activations, attention sinks and experts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use outlier::engine::extract;
use outlier::hub::{self, Access};
use outlier::progress::Silent;
use outlier::record::{
    Activations, ComputeDtype, ExtractArgs, MassiveRule, MeasureArgs, MedianOver, Moments, Site, TokenSource, Tokens,
};
use outlier::stats;
use outlier::text::load_tokens;
use outlier::weights::open;
use serde_json::Value;

use crate::oracle::{fixtures, load_args, tensors};

pub(crate) const MODELS: [&str; 9] =
    ["llama", "gpt2", "opt", "olmoe", "mixtral", "qwen3_moe", "gpt_oss", "glm4_moe", "qwen3_next"];

/// Relative difference that is allowed, as the norm outputs of f32 engines differ by 1e-6.
const TOLERANCE: f64 = 1e-4;

/// The folder of models and the folder of references: those of the project, or others that the same
/// generators made.
pub(crate) fn folders() -> [PathBuf; 2] {
    match std::env::var_os("OUTLIER_MEASURES") {
        Some(folder) => ["fixtures", "measures"].map(|name| PathBuf::from(&folder).join(name)),
        None => [fixtures(), fixtures().with_file_name("fixtures_measures")],
    }
}

pub(crate) fn reference(model: &str, file: &str) -> Value {
    let path = folders()[1].join(model).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn everything() -> MeasureArgs {
    let rule = |above, ratio| MassiveRule { above, ratio };
    MeasureArgs {
        sites: vec![],
        observe: vec![],
        massive_rules: vec![rule(100.0, 1000.0), rule(10.0, 100.0), rule(3.0, 10.0)],
        ..MeasureArgs::default()
    }
}

pub(crate) fn measured(model: &str, args: ExtractArgs) -> Activations {
    let path = folders()[0].join(model).join("reference.safetensors").display().to_string();
    let tokens = load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap();
    measured_on(model, &tokens, args)
}

pub(crate) fn measured_on(model: &str, tokens: &Tokens, args: ExtractArgs) -> Activations {
    let folder = folders()[0].join(model);
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model = open(files, &load_args(&folder, ComputeDtype::F32)).unwrap();
    extract(&model, tokens, &args, &Silent).unwrap()
}

/// Everything that is measured of a model, computed once for all tests.
fn whole(model: &str) -> Arc<Activations> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Activations>>> = Mutex::new(BTreeMap::new());
    if let Some(acts) = KNOWN.lock().unwrap().get(model) {
        return acts.clone();
    }
    let args = ExtractArgs { thresholds: vec![100.0], measure: everything(), ..ExtractArgs::default() };
    let acts = Arc::new(measured(model, args));
    KNOWN.lock().unwrap().entry(model.to_string()).or_insert(acts).clone()
}

/// The models that are compared: on an emulated GPU, which is slow, some of them.
fn models() -> Vec<&'static str> {
    match std::env::var_os("OUTLIER_TEST_DEVICE") {
        Some(_) => vec!["llama", "olmoe", "qwen3_next"],
        None => MODELS.to_vec(),
    }
}

#[track_caller]
pub(crate) fn near(got: f64, expected: &Value, what: &str) {
    let Some(expected) = expected.as_f64() else {
        assert!(got.is_nan(), "{what}: {got}, and the reference has none");
        return;
    };
    let allowed = TOLERANCE * expected.abs().max(1.0);
    assert!((got - expected).abs() <= allowed, "{what}: {got}, expected {expected}");
}

/// The site that the reference calls `name`.
fn site(name: &str) -> Site {
    Site::of_name(name).unwrap_or_else(|| panic!("site {name}"))
}

fn of_layer<'a>(moments: &'a [Moments], site: Site, layer: usize, what: &str) -> &'a Moments {
    let found = moments.iter().find(|of| of.at.site == site && of.at.layer == layer);
    found.unwrap_or_else(|| panic!("{what}: no moments"))
}

#[test]
fn moments_of_every_site_agree_with_transformers() {
    for model in models() {
        let acts = whole(model);
        let expected = reference(model, "measures.json");
        let sites = expected["sites"].as_object().unwrap();
        for (name, of_site) in sites {
            for layer in of_site["layers"].as_array().unwrap() {
                let number = layer["layer"].as_u64().unwrap() as usize;
                let what = format!("{model}, {name}, layer {number}");
                let moments = of_layer(&acts.measures.moments, site(name), number, &what);
                let got = stats::site_moments(moments);
                assert_eq!(got.rows, layer["n"].as_u64().unwrap(), "{what}");
                near(got.absmax, &layer["linf"], &format!("{what}: largest |x|"));
                near(got.rms, &layer["rms"], &format!("{what}: rms"));
                near(got.excess_kurtosis, &layer["excess_kurtosis"], &format!("{what}: excess kurtosis"));
                near(got.channel_kurtosis, &layer["he_kurtosis"], &format!("{what}: channel kurtosis"));
                near(f64::from(got.max_median_mean), &layer["mmr_mean"], &format!("{what}: max over median, mean"));
                // Where the median is almost 0, as behind a ReLU, one row is as inexact as its median.
                let (largest, expected) =
                    (f64::from(got.max_median_max), layer["mmr_max"].as_f64().unwrap_or(f64::NAN));
                let close = (largest / expected - 1.0).abs() < 1e-3 || largest.is_nan() && expected.is_nan();
                assert!(close, "{what}: max over median: {largest}, expected {expected}");
            }
        }
        // Nothing is measured that the reference does not have, but for logits of routers.
        let known = |site: Site| sites.keys().any(|name| self::site(name) == site);
        let others: Vec<_> =
            acts.measures.moments.iter().filter(|of| !known(of.at.site)).map(|of| of.at.site).collect();
        assert!(others.iter().all(|site| *site == Site::RouterLogits), "{model}: {others:?}");
    }
}

#[test]
fn channels_agree_with_transformers() {
    for model in ["llama", "olmoe", "qwen3_next"] {
        let acts = whole(model);
        let vectors = tensors(&folders()[1].join(model).join("vectors.safetensors"));
        let mut compared = 0;
        for (name, expected) in &vectors {
            let parts: Vec<&str> = name.split('.').collect();
            let [first, layer, statistic] = parts[..] else { panic!("{name}") };
            let layer: usize = layer.parse().unwrap();
            let got: Vec<f64> = if first == "ffn_in_exps" {
                let experts = acts.measures.experts.iter().find(|of| of.layer == layer).unwrap();
                experts.input_sum2.iter().map(|x| f64::from(*x)).collect()
            } else {
                let channels = &of_layer(&acts.measures.moments, site(first), layer, name).channels;
                let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect();
                match statistic {
                    "max" => wide(&channels.max),
                    "min" => wide(&channels.min),
                    "sum" => channels.sum.clone(),
                    "sum2" => channels.sum2.clone(),
                    "sumabs" => channels.sumabs.clone(),
                    "sum3" => channels.sum3.clone(),
                    "sum4" => channels.sum4.clone(),
                    _ => continue,
                }
            };
            assert_eq!(got.len(), expected.len(), "{model}: {name}");
            let largest = expected.iter().fold(0f64, |most, x| most.max(f64::from(x.abs())));
            for (channel, (got, expected)) in got.iter().zip(expected).enumerate() {
                let difference = (got - f64::from(*expected)).abs();
                assert!(difference <= TOLERANCE * largest, "{model}: {name}[{channel}]: {got}, expected {expected}");
            }
            compared += 1;
        }
        assert!(compared > 100, "{model}: {compared} vectors");
    }
}

#[test]
fn the_largest_values_are_those_of_transformers() {
    for model in models() {
        let acts = whole(model);
        for (name, of_site) in reference(model, "measures.json")["sites"].as_object().unwrap() {
            for layer in of_site["layers"].as_array().unwrap() {
                let number = layer["layer"].as_u64().unwrap() as usize;
                let what = format!("{model}, {name}, layer {number}");
                let top = acts.measures.top.iter().find(|top| top.at.site == site(name) && top.at.layer == number);
                let got = &top.unwrap_or_else(|| panic!("{what}")).values;
                let expected = layer["top"].as_array().unwrap();
                let size = |i: usize| expected.get(i).map(|of| of[5].as_f64().unwrap().abs());
                for (i, expected) in expected.iter().enumerate() {
                    near(f64::from(got[i].value).abs(), &expected[5].as_f64().unwrap().abs().into(), &what);
                    // Among values as large as their neighbours the last bit decides.
                    let apart =
                        |other: Option<f64>| other.is_none_or(|other| (other / size(i).unwrap() - 1.0).abs() > 1e-5);
                    if i + 1 < 4 && apart(i.checked_sub(1).and_then(size)) && apart(size(i + 1)) {
                        let place = [got[i].sequence, got[i].position, got[i].token_id as usize, got[i].dim];
                        let there: Vec<usize> = (0..4).map(|k| expected[k].as_u64().unwrap() as usize).collect();
                        // Equal tokens have equal values in the first layers.
                        if place[2..] != there[2..] {
                            panic!("{what}, number {i}: {place:?}, expected {there:?}");
                        }
                        let expert = expected[4].as_i64().unwrap();
                        assert_eq!(got[i].expert.map_or(-1, |expert| expert as i64), expert, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn hits_at_every_site_agree_with_transformers() {
    for model in models() {
        let acts = whole(model);
        let expected = reference(model, "measures.json");
        for ladders in &acts.sites {
            let of_site = acts.at(ladders.site).unwrap();
            let Some(reference) = expected["sites"].get(ladders.site.name()) else {
                assert_eq!(ladders.site, Site::RouterLogits, "{model}");
                continue;
            };
            for layer in reference["layers"].as_array().unwrap() {
                let number = layer["layer"].as_u64().unwrap() as usize;
                let Some(unit) = ladders.layers.iter().position(|layer| *layer == number) else {
                    // In a mixture the rows are those of experts.
                    assert_eq!(ladders.site, Site::FfnMid, "{model}");
                    continue;
                };
                for theta in ["3", "4", "5", "6", "8", "10", "16", "32", "64", "100"] {
                    let what = format!("{model}, {}, layer {number}, {theta}", ladders.site.name());
                    let rung = of_site.rung(theta.parse().unwrap()).unwrap();
                    let sides = of_site.all.norms[unit].iter().flat_map(|cell| [&cell.positive, &cell.negative]);
                    let mut channels = BTreeSet::new();
                    let mut hits = 0;
                    for ladder in sides.flat_map(|side| side.iter()).filter(|ladder| ladder.at(rung) > 0) {
                        channels.insert(ladder.feature);
                        hits += u64::from(ladder.at(rung));
                    }
                    let expected = &layer["hits"][theta];
                    let of = |i: usize| expected[i].as_u64().unwrap_or(0);
                    assert!(hits.abs_diff(of(0)) <= of(3), "{what}: {hits} hits, expected {expected}");
                    assert!((channels.len() as u64).abs_diff(of(1)) <= of(3), "{what}: {expected}");
                }
            }
        }
    }
}

#[test]
fn massive_activations_and_residual_sinks_are_those_of_the_papers() {
    let mut found = 0;
    for model in models() {
        let acts = whole(model);
        let expected = reference(model, "phenomena.json");
        for of in &acts.measures.massive {
            let what = format!("{model}, layer {}", of.layer);
            let rules = &expected["massive"][of.layer.to_string()];
            let count =
                rules.as_object().map_or(0, |rules| rules.values().map(|of| of.as_object().unwrap().len()).sum());
            assert_eq!(of.activations.len(), count, "{what}");
            for got in &of.activations {
                let over = match got.median_over {
                    MedianOver::Token => "token",
                    MedianOver::Sequence => "sequence",
                };
                let expected = &rules[format!("{},{}", got.rule.above, got.rule.ratio)][over];
                assert_eq!(
                    (got.count, got.tokens),
                    (expected["count"].as_u64().unwrap(), expected["tokens"].as_u64().unwrap()),
                    "{what}"
                );
                let dims: Vec<_> = got.dims.iter().map(|of| serde_json::json!([of.dim, of.count])).collect();
                assert_eq!(Value::from(dims), expected["dims"], "{what}");
                assert_eq!(serde_json::json!(got.positions), expected["positions"], "{what}");
                for (got, expected) in got.top.iter().zip(expected["top"].as_array().unwrap()) {
                    near(f64::from(got.at.value).abs(), &expected[4].as_f64().unwrap().abs().into(), &what);
                    near(f64::from(got.ratio), &expected[5], &what);
                }
                found += 1;
            }
            let sinks = &expected["residual_sinks"][of.layer.to_string()];
            assert_eq!(of.sinks.len(), sinks.as_object().map_or(0, |sinks| sinks.len()), "{what}");
            for got in &of.sinks {
                let expected = sinks[got.factor.to_string()].as_array().unwrap();
                assert_eq!(got.dims.len(), expected.len(), "{what}");
                for (got, expected) in got.dims.iter().zip(expected) {
                    assert_eq!(got.dim as u64, expected[0].as_u64().unwrap(), "{what}");
                    near(f64::from(got.share), &expected[1], &what);
                    near(f64::from(got.median), &expected[2], &what);
                    near(f64::from(got.max), &expected[3], &what);
                }
            }
        }
    }
    assert!(found > 0 || models().len() < MODELS.len(), "no rule named a value");
}

#[test]
fn attention_sinks_are_those_of_gu_et_al() {
    for model in models() {
        let acts = whole(model);
        let expected = reference(model, "phenomena.json")["attention_sinks"].clone();
        let mut by_length: HashMap<String, Vec<_>> = HashMap::new();
        for of in &acts.measures.attention_sinks {
            by_length.entry(of.positions.to_string()).or_default().push(of);
        }
        assert_eq!(by_length.len(), expected.as_object().unwrap().len(), "{model}");
        for (length, layers) in by_length {
            let expected = &expected[&length];
            let what = format!("{model}, {length} positions");
            let cells: usize = layers.iter().map(|of| of.sequences * of.heads).sum();
            let allowed = expected["near"].as_u64().unwrap() as f64 / cells as f64;
            let close = |got: f64, expected: &Value, what: &str| {
                let expected = expected.as_f64().unwrap();
                assert!((got - expected).abs() <= allowed + 1e-6, "{what}: {got}, expected {expected}");
            };
            let share = |of: &dyn Fn(&outlier::record::AttentionSinks) -> u64| {
                layers.iter().map(|layer| of(layer)).sum::<u64>() as f64 / cells as f64
            };
            close(share(&|of| of.above[0]), &expected["sink_rate_first"], &what);
            close(share(&|of| of.any_above), &expected["sink_rate_any"], &what);
            for (k, rate) in expected["sink_rate_by_position"].as_array().unwrap().iter().enumerate() {
                close(share(&|of| of.above[k]), rate, &format!("{what}, position {k}"));
            }
            for (i, of) in layers.iter().enumerate() {
                let what = format!("{what}, layer {}", of.layer);
                let alphas = &expected["alpha_first"][i];
                assert_eq!(alphas[0].as_u64().unwrap() as usize, of.layer, "{what}");
                for (head, alpha) in of.alpha_first.iter().enumerate() {
                    near(f64::from(*alpha), &alphas[1][head], &format!("{what}, head {head}"));
                }
                near(f64::from(of.top1_mean), &expected["top1_mean"][i][1], &what);
            }
        }
    }
}

#[test]
fn experts_are_measured_as_their_papers_say() {
    for model in ["olmoe", "mixtral", "qwen3_moe", "gpt_oss", "glm4_moe", "qwen3_next"] {
        let acts = whole(model);
        let expected = reference(model, "moe.json");
        let layers = expected["layers"].as_array().unwrap();
        assert_eq!(acts.measures.experts.len(), layers.len(), "{model}");
        for (got, expected) in acts.measures.experts.iter().zip(layers) {
            let what = format!("{model}, layer {}", got.layer);
            assert_eq!(got.layer as u64, expected["layer"].as_u64().unwrap(), "{what}");
            assert_eq!(serde_json::json!(got.tokens), expected["tokens"], "{what}");
            let count = got.tokens.len();
            for (expert, tokens) in got.tokens.iter().enumerate() {
                let what = format!("{what}, expert {expert}");
                assert_eq!(u64::from(got.coactivation[expert * count + expert]), *tokens, "{what}");
                near(f64::from(got.gate_mass[expert]), &expected["gate_mass"][expert], &what);
                if *tokens > 0 {
                    near(f64::from(got.output_absmax[expert]), &expected["out_absmax"][expert], &what);
                    near(f64::from(got.reap[expert]), &expected["reap"][expert], &what);
                    near(f64::from(got.reap_softmax[expert]), &expected["reap_softmax"][expert], &what);
                }
            }
            for pair in expected["coactivation_top"].as_array().unwrap() {
                let [a, b, both] = [0, 1, 2].map(|i| pair[i].as_u64().unwrap() as usize);
                assert_eq!(got.coactivation[a * count + b] as usize, both, "{what}: {a}, {b}");
                assert_eq!(got.coactivation[b * count + a] as usize, both, "{what}: {a}, {b}");
            }
        }
        let super_experts = stats::super_experts(&acts);
        let reference = expected["super_experts"].as_array().unwrap();
        assert_eq!(super_experts.len(), reference.len(), "{model}");
        for (got, expected) in super_experts.iter().zip(reference) {
            assert_eq!(
                (got.layer as u64, got.expert as u64),
                (expected[0].as_u64().unwrap(), expected[1].as_u64().unwrap())
            );
        }
    }
}

#[test]
fn super_weights_are_where_the_largest_values_meet() {
    for model in models() {
        let found = stats::super_weights(&whole(model));
        let expected = reference(model, "phenomena.json")["super_weights"]["layers"].clone();
        let expected = expected.as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{model}");
        for (got, expected) in found.iter().zip(expected) {
            let what = format!("{model}, layer {}: {got:?}, expected {expected}", got.of.layer);
            assert_eq!(
                got.of.expert.map_or(-1, |expert| expert as i64),
                expected["expert"].as_i64().unwrap(),
                "{what}"
            );
            assert_eq!(
                (got.of.output.dim, got.of.input.dim),
                (expected["row"].as_u64().unwrap() as usize, expected["column"].as_u64().unwrap() as usize),
                "{what}"
            );
            near(f64::from(got.of.input.value), &expected["mid"][3], &what);
            near(f64::from(got.of.output.value), &expected["out"][3], &what);
            near(f64::from(got.of.weight), &expected["weight"], &what);
            near(f64::from(got.of.share), &expected["share"], &what);
            assert_eq!(got.candidate, expected["candidate"].as_bool().unwrap(), "{what}");
        }
    }
}

#[test]
fn quantisation_errors_are_those_of_the_reference() {
    /// Where the scale of one block flips, the error of a small tensor changes by this.
    const FLIP: f64 = 5e-3;
    for model in models() {
        let expected = reference(model, "quant.json");
        let dims = expected["dims"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
        let measure = MeasureArgs { dims, ..everything() };
        let acts = measured(model, ExtractArgs { measure, ..ExtractArgs::default() });
        for (name, layers) in expected["sites"].as_object().unwrap() {
            for expected in layers.as_array().unwrap() {
                let layer = expected["layer"].as_u64().unwrap() as usize;
                let what = format!("{model}, {name}, layer {layer}");
                let all = &acts.measures.quantisation_error;
                let got = all.iter().find(|of| of.at.site == site(name) && of.at.layer == layer);
                let got = got.unwrap_or_else(|| panic!("{what}"));
                assert_eq!(got.columns, expected["cols"].as_u64().unwrap(), "{what}");
                near(f64::from(got.dims_energy), &expected["dims_energy"], &what);
                near(f64::from(got.columns_energy), &expected["cols_energy"], &what);
                let squares = expected["sum_x2"].as_f64().unwrap();
                assert!((f64::from(got.sum_squares) / squares - 1.0).abs() < TOLERANCE, "{what}");
                for of in &got.formats {
                    let format = serde_json::to_value(of.format).unwrap();
                    let expected = &expected[format.as_str().unwrap()];
                    for (i, got) in [Some(of.all), of.without_dims, of.without_columns].into_iter().enumerate() {
                        let what = format!("{what}, {format}, number {i}: {got:?}, expected {}", expected[i]);
                        match (got, expected[i].as_f64()) {
                            (Some(got), Some(expected)) => {
                                assert!((f64::from(got) - expected).abs() <= FLIP * expected, "{what}");
                            }
                            (got, expected) => assert_eq!(got.map(f64::from), expected, "{what}"),
                        }
                    }
                }
            }
        }
    }
}

/// The vector of the reference that a site has in a layer, as [channels] or [experts * channels].
fn vector<'a>(vectors: &'a crate::oracle::Tensors, site: &str, layer: u64, statistic: &str) -> &'a [f32] {
    let name = format!("{site}.{layer}.{statistic}");
    vectors.get(&name).unwrap_or_else(|| panic!("{name}"))
}

#[track_caller]
fn close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= TOLERANCE as f32 * largest, "{what}: {got}, expected {expected}");
    }
}

#[test]
fn importance_matrices_have_the_names_and_numbers_that_llama_cpp_reads() {
    use candle_core::quantized::gguf_file::Content;

    for model in ["llama", "olmoe", "qwen3_next"] {
        let bytes = outlier::results::imatrix(&whole(model)).unwrap();
        let mut file = std::io::Cursor::new(&bytes);
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.metadata["general.type"].to_string().unwrap(), "imatrix");
        let vectors = tensors(&folders()[1].join(model).join("vectors.safetensors"));
        let reference = reference(model, "exports.json");
        let expected = reference["imatrix"].as_array().unwrap();
        assert_eq!(content.tensor_infos.len(), 2 * expected.len(), "{model}");
        let mut read = |name: String| -> Vec<f32> {
            let device = candle_core::Device::Cpu;
            let tensor = content.tensor(&mut file, &name, &device).unwrap_or_else(|e| panic!("{model}: {name}: {e}"));
            tensor.dequantize(&device).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        for of in expected {
            let (name, site, layer) = (of[0].as_str().unwrap(), of[1].as_str().unwrap(), of[2].as_u64().unwrap());
            let sums = vector(&vectors, site, layer, "sum2");
            close(&read(format!("{name}.in_sum2")), sums, &format!("{model}: {name}"));
            let counts: Vec<f64> = match &of[3] {
                Value::Array(counts) => counts.iter().map(|count| count.as_f64().unwrap()).collect(),
                count => vec![count.as_f64().unwrap()],
            };
            let got: Vec<f64> = read(format!("{name}.counts")).into_iter().map(f64::from).collect();
            assert_eq!(got, counts, "{model}: {name}");
        }
    }
}

#[test]
fn scales_of_activations_are_those_of_smoothquant_and_awq() {
    use outlier::results::{ScaleKind, act_scales};

    for model in ["llama", "olmoe", "qwen3_next"] {
        let acts = whole(model);
        let vectors = tensors(&folders()[1].join(model).join("vectors.safetensors"));
        let reference = reference(model, "exports.json");
        for kind in [ScaleKind::Absmax, ScaleKind::AbsMean] {
            let bytes = act_scales(&acts, kind).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let expected = reference["modules"].as_array().unwrap();
            assert_eq!(file.len(), expected.len(), "{model}: {:?}", file.names());
            for of in expected {
                let (name, site, layer) = (of[0].as_str().unwrap(), of[1].as_str().unwrap(), of[2].as_u64().unwrap());
                let view = file.tensor(name).unwrap_or_else(|e| panic!("{model}: {name}: {e}"));
                let got: Vec<f32> =
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                let of = |statistic| vector(&vectors, site, layer, statistic);
                let rows = (acts.num_sequences * acts.sequence_length) as f32;
                let expected: Vec<f32> = match kind {
                    ScaleKind::Absmax => of("max").iter().zip(of("min")).map(|(max, min)| max.max(-min)).collect(),
                    ScaleKind::AbsMean => of("sumabs").iter().map(|sum| sum / rows).collect(),
                };
                close(&got, &expected, &format!("{model}: {name}"));
            }
        }
    }
}

#[test]
fn measuring_changes_no_bit_of_the_record_of_norms() {
    for model in models() {
        let plain = measured(model, ExtractArgs { logits: true, ..ExtractArgs::default() });
        let all = measured(model, ExtractArgs { logits: true, measure: everything(), ..ExtractArgs::default() });
        assert_eq!(plain.all, all.all, "{model}");
        assert_eq!(plain.without_first, all.without_first, "{model}");
        assert_eq!(plain.mean_nll, all.mean_nll, "{model}");
    }
}

#[test]
fn measurements_do_not_depend_on_how_work_is_divided() {
    for model in ["gpt2", "olmoe", "qwen3_next"] {
        let of = |memory_budget| {
            let args = ExtractArgs { memory_budget, measure: everything(), ..ExtractArgs::default() };
            measured(model, args)
        };
        let (large, small) = (of(1 << 30), of(400 << 10));
        assert_eq!(large.measures, small.measures, "{model}");
        assert_eq!(large.sites, small.sites, "{model}");
    }
}

#[test]
fn a_record_with_measurements_is_stored_and_read_as_it_is() {
    let acts = Activations { measurements: Default::default(), ..(*whole("olmoe")).clone() };
    let bytes = outlier::results::encode_stats(&acts).unwrap();
    let back = outlier::results::decode_stats(&bytes, "reading it").unwrap();
    assert_eq!(back, acts);
    stats::check_whole(&back).unwrap();
}

/// The first 64 positions of a longer text are looked at by themselves, too.
#[test]
fn texts_of_more_than_64_positions_have_everything_measured() {
    let project = crate::project::Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let ids: Vec<Vec<usize>> = (0..2).map(|s| (0..80).map(|t| 4 + (7 * s + 5 * t) % 90).collect()).collect();
    let script = format!(
        r#"let tokens = load_tokens(#{{ ids: {ids:?} }});
        let acts = load_model("model").extract(tokens, #{{ sites: "all", observe: "all" }});
        let sinks = acts.measures().attention_sinks.map(|of| of.positions);
        print(sinks.filter(|n| n == 64).len() == sinks.filter(|n| n == 80).len() && sinks.len() > 0);"#
    );
    assert_eq!(project.script(&script).ok().trim(), "true");
}
