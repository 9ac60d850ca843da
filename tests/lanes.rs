//! Tests of lanes: every intervention against what transformers computes with the same change
//! (`tests/fixtures_lanes`), and that lanes do not depend on each other.

use std::sync::Mutex;

use outlier::engine::extract;
use outlier::error::{Error, Kind};
use outlier::hub::{self, Access};
use outlier::progress::{Event, Progress, Silent};
use outlier::record::{
    ActivationFormat, Activations, Change, CheckpointArgs, ComputeDtype, Dims, ExtractArgs, Lane, LaneArgs,
    LaneOutcome, MeasureArgs, Measurements, NewValue, Places, Site, TokenSource, Tokens, WeightFormat, WeightPlace,
};
use outlier::results::encode_stats;
use outlier::text::load_tokens;
use outlier::weights::open;
use serde_json::Value;

use crate::oracle::{fixtures, load_args};

/// The models that are compared: on an emulated GPU, which is slow, some of them.
fn models() -> Vec<&'static str> {
    match std::env::var_os("OUTLIER_TEST_DEVICE") {
        Some(_) => vec!["llama", "olmoe"],
        None => vec!["llama", "gpt2", "opt", "olmoe", "gpt_oss", "glm4_moe", "qwen3_next"],
    }
}

fn tokens(model: &str) -> Tokens {
    let path = fixtures().join(model).join("reference.safetensors").display().to_string();
    load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap()
}

fn try_run(model: &str, args: &ExtractArgs, progress: &dyn Progress) -> Result<Activations, Error> {
    let folder = fixtures().join(model);
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model_open = open(files, &load_args(&folder, ComputeDtype::F32)).unwrap();
    extract(&model_open, &tokens(model), args, progress)
}

fn with_lanes(lanes: Vec<Lane>) -> ExtractArgs {
    let lanes = LaneArgs { lanes, attention_top1: false };
    ExtractArgs { logits: true, lanes, ..ExtractArgs::default() }
}

fn run(model: &str, lanes: Vec<Lane>) -> Vec<LaneOutcome> {
    try_run(model, &with_lanes(lanes), &Silent).unwrap().lanes
}

fn reference(model: &str) -> Value {
    let path = fixtures().with_file_name("fixtures_lanes").join(format!("{model}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn wholes(of: &Value) -> Vec<usize> {
    of.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn everywhere(sites: &[Site]) -> Places {
    Places { sites: sites.to_vec(), layers: vec![], positions: vec![] }
}

/// The changes of a variant as the generator describes them.
fn changes(spec: &Value) -> Vec<Change> {
    let sites = |of: &Value| -> Vec<Site> {
        of["sites"].as_array().unwrap().iter().map(|name| Site::of_name(name.as_str().unwrap()).unwrap()).collect()
    };
    let to = |of: &Value| match of["op"].as_str().unwrap() {
        "zero" => NewValue::Zero,
        "scale" => NewValue::Scale(of["value"].as_f64().unwrap() as f32),
        _ => NewValue::Mean,
    };
    let mut all = Vec::new();
    let of = |key: &str| spec.get(key).filter(|of| !of.is_null());
    if let Some(edit) = of("edit") {
        let dims = Dims::Given(wholes(&edit["dims"]));
        all.push(Change::Features { to: to(edit), dims, at: everywhere(&sites(edit)) });
    }
    if let Some(beyond) = of("beyond") {
        let threshold = beyond["threshold"].as_f64().unwrap() as f32;
        all.push(Change::ZeroBeyond { threshold, at: everywhere(&sites(beyond)) });
    }
    if let Some(resid) = of("resid") {
        let elements = resid["elements"].as_array().unwrap().iter().map(|e| wholes(e).try_into().unwrap()).collect();
        all.push(Change::Elements { to: to(resid), layer: resid["layer"].as_u64().unwrap() as usize, elements });
    }
    if let Some(off) = of("experts") {
        let layer = off["layer"].as_u64().unwrap() as usize;
        all.push(Change::ExpertsOff { layer, experts: wholes(&off["experts"]) });
    }
    if let Some(act) = of("act") {
        let format = match act.as_str().unwrap() {
            "int8" => ActivationFormat::Int8,
            "int8_decomp" => ActivationFormat::Int8Decomposed,
            "fp8" => ActivationFormat::Fp8,
            "mxfp4" => ActivationFormat::Mxfp4,
            _ => ActivationFormat::Nvfp4,
        };
        all.push(Change::RoundActivations { format, layers: vec![] });
    }
    if let Some(weight) = of("weight") {
        let format = match weight.as_str().unwrap() {
            "int8" => WeightFormat::Int8,
            "int4_g128" => WeightFormat::Int4,
            "fp8" => WeightFormat::Fp8,
            _ => WeightFormat::Nvfp4,
        };
        all.push(Change::RoundWeights { format, layers: vec![] });
    }
    all
}

/// All variants of a reference but the model as it is.
fn lanes_of(reference: &Value) -> Vec<Lane> {
    let variants = reference["variants"].as_object().unwrap();
    let lane = |(name, of): (&String, &Value)| Lane { name: name.clone(), changes: changes(&of["spec"]) };
    variants.iter().filter(|(name, _)| *name != "baseline").map(lane).collect()
}

/// Numbers within a relative and an absolute difference.
#[track_caller]
fn near(got: &[f32], expected: &Value, (relative, absolute): (f64, f64), what: &str) {
    let expected = expected.as_array().unwrap();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let (got, expected) = (f64::from(*got), expected.as_f64().unwrap());
        let allowed = absolute + relative * expected.abs();
        assert!((got - expected).abs() <= allowed, "{what}: {got}, expected {expected}");
    }
}

fn total(hits: &[u32]) -> f64 {
    hits.iter().map(|count| f64::from(*count)).sum()
}

#[test]
fn every_intervention_agrees_with_transformers() {
    for model in models() {
        let expected = reference(model);
        let lanes = run(model, lanes_of(&expected));
        for lane in &lanes {
            let (what, of) = (format!("{model}, {}", lane.name), &expected["variants"][&lane.name]);
            let rounds = of["spec"].get("act").is_some_and(|of| !of.is_null());
            // Where inputs are rounded, a value between two codes goes either way.
            let (nll, kl) = if rounds { ((0.0, 2e-2), (0.2, 2e-3)) } else { ((1e-4, 0.0), (1e-3, 2e-6)) };
            near(&lane.mean_nll, &of["mean_nll"], nll, &format!("{what}: loss"));
            near(&lane.kl, &of["kl"], kl, &format!("{what}: divergence"));
            let one = 1.0 / 24.0 + 1e-3;
            near(&lane.top1_agreement, &of["top1_agreement"], (0.0, if rounds { 3.0 * one } else { 1e-6 }), &what);
            near(&lane.top1_probability, &of["top1_prob"], (if rounds { 6e-2 } else { 1e-4 }, 0.0), &what);
            for hits in &lane.norm_hits {
                let site = usize::from(hits.at.site == Site::FfnIn);
                for (got, key) in [(&hits.at_least_3, "hits_3"), (&hits.at_least_6, "hits_6")] {
                    let expected = of[key][hits.at.layer][site].as_f64().unwrap();
                    let allowed = if rounds { 2.0 + 0.05 * expected } else { 0.0 };
                    let got = total(got);
                    assert!((got - expected).abs() <= allowed, "{what}, {:?}: {got} {key}, not {expected}", hits.at);
                }
            }
        }
    }
}

#[test]
fn the_attention_of_changed_inputs_agrees_with_transformers() {
    for model in models() {
        let expected = reference(model);
        let mut args = with_lanes(lanes_of(&expected));
        args.lanes.lanes.retain(|lane| lane.name == "zero_attn_in" || lane.name == "mean_both");
        args.lanes.attention_top1 = true;
        let lanes = try_run(model, &args, &Silent).unwrap().lanes;
        let rows = expected["attention_top1"].as_array().unwrap();
        assert!(!rows.is_empty());
        let zeroed = lanes.iter().find(|lane| lane.name == "zero_attn_in").unwrap();
        assert_eq!(zeroed.attention_top1.len(), rows.len(), "{model}");
        for (row, (before, after)) in rows.iter().zip(lanes[0].attention_top1.iter().zip(&zeroed.attention_top1)) {
            let mean = |of: &[f32]| of.iter().map(|p| f64::from(*p)).sum::<f64>() / of.len() as f64;
            for (got, expected) in [(before, &row[1]), (after, &row[2])] {
                assert_eq!(Some(got.layer as u64), row[0].as_u64());
                let (got, expected) = (mean(&got.probability), expected.as_f64().unwrap());
                assert!((got - expected).abs() < 1e-4 * expected, "{model}, {row}: {got}");
            }
        }
    }
}

/// Every kind of change, some of them from a later layer on.
fn mixed(model: &str) -> Vec<Lane> {
    let at =
        |sites: &[Site], layers: &[usize]| Places { sites: sites.to_vec(), layers: layers.to_vec(), positions: vec![] };
    let lane = |name: &str, changes| Lane { name: name.into(), changes };
    let features = |to, at| Change::Features { to, dims: Dims::Given(vec![5, 11]), at };
    let mut lanes = vec![
        lane("late", vec![features(NewValue::Zero, at(&[Site::AttnIn], &[2]))]),
        lane("mean", vec![features(NewValue::Mean, everywhere(&[Site::AttnIn, Site::FfnIn]))]),
        lane("stream", vec![features(NewValue::Scale(0.5), at(&[Site::ResidPost], &[1]))]),
        lane(
            "random",
            vec![Change::Features {
                to: NewValue::Zero,
                dims: Dims::Random { count: 2, seed: 3, except: vec![5] },
                at: Places { positions: vec![1, 4], ..at(&[Site::FfnIn], &[0, 2]) },
            }],
        ),
        lane("element", vec![Change::Elements { to: NewValue::Mean, layer: 0, elements: vec![[1, 0, 5], [0, 2, 7]] }]),
        lane(
            "int8",
            vec![
                Change::RoundActivations { format: ActivationFormat::Int8Decomposed, layers: vec![1, 2] },
                Change::RoundWeights { format: WeightFormat::Int8, layers: vec![1] },
            ],
        ),
        lane("nvfp4", vec![Change::RoundActivations { format: ActivationFormat::Nvfp4, layers: vec![] }]),
    ];
    if model == "olmoe" {
        lanes.push(lane("off", vec![Change::ExpertsOff { layer: 1, experts: vec![0, 1, 5] }]));
        let weight = |expert| WeightPlace { layer: 1, module: "down_proj".into(), expert, row: 3, column: 2 };
        lanes.push(lane("weight", vec![Change::ZeroWeight(weight(Some(4)))]));
    } else {
        let place = WeightPlace { layer: 2, module: "down_proj".into(), expert: None, row: 3, column: 2 };
        lanes.push(lane("weight", vec![Change::ZeroWeight(place)]));
    }
    lanes
}

/// The bytes of a record without its lanes.
fn bytes(acts: &Activations) -> Vec<u8> {
    encode_stats(&Activations { lanes: vec![], measurements: Measurements::default(), ..acts.clone() }).unwrap()
}

#[test]
fn lanes_depend_neither_on_each_other_nor_on_batches_and_leave_the_model_as_it_is() {
    for model in ["llama", "olmoe"] {
        let lanes = mixed(model);
        let all = try_run(model, &with_lanes(lanes.clone()), &Silent).unwrap();
        let without = ExtractArgs { logits: true, ..ExtractArgs::default() };
        assert!(bytes(&all) == bytes(&try_run(model, &without, &Silent).unwrap()), "{model}: lane 0");
        assert!(all.lanes[1..].iter().all(|lane| lane.kl.iter().any(|kl| *kl > 0.0)), "{model}: {:?}", all.lanes);
        for (i, lane) in lanes.iter().enumerate() {
            let alone = run(model, vec![lane.clone()]);
            assert_eq!(alone[1], all.lanes[i + 1], "{model}, {} alone", lane.name);
            assert_eq!(alone[0], all.lanes[0], "{model}: the baseline beside {}", lane.name);
        }
        // Each sequence in a batch of its own, and products of few rows.
        let small = ExtractArgs { memory_budget: 70_000, ..with_lanes(lanes) };
        assert_eq!(try_run(model, &small, &Silent).unwrap().lanes, all.lanes, "{model}: a small budget");
    }
}

/// Asks to stop when so many layers are done.
struct StopAfter(u64, Mutex<u64>);

impl Progress for StopAfter {
    fn event(&self, event: Event) {
        if let Event::Step { done, .. } = event {
            *self.1.lock().unwrap() = done;
        }
    }

    fn interrupted(&self) -> bool {
        *self.1.lock().unwrap() >= self.0
    }
}

#[test]
fn lanes_go_on_where_a_pass_was_cut_off() {
    for (model, layers) in [("llama", 4), ("olmoe", 3)] {
        let mut whole = with_lanes(mixed(model));
        whole.lanes.attention_top1 = true;
        let expected = try_run(model, &whole, &Silent).unwrap();
        for stop in 1..=layers {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoint").display().to_string();
            let args = ExtractArgs { checkpoint: Some(CheckpointArgs { path, layers: None }), ..whole.clone() };
            let stopped = try_run(model, &args, &StopAfter(stop, Mutex::new(0))).unwrap_err();
            assert_eq!(stopped.kind, Kind::Interrupted);
            let resumed = try_run(model, &args, &Silent).unwrap();
            assert_eq!(resumed.measurements.resumed_at_layer, Some(stop as usize), "{model} after {stop}");
            assert_eq!(resumed.lanes, expected.lanes, "{model} after {stop}");
            // The finished record has them too.
            assert_eq!(try_run(model, &args, &Silent).unwrap().lanes, expected.lanes);
            // The same without lanes is other work.
            let other = ExtractArgs { lanes: LaneArgs::default(), ..args };
            let other = try_run(model, &other, &Silent).unwrap();
            assert_eq!((other.measurements.resumed_at_layer, other.lanes.len()), (None, 0));
        }
    }
}

#[test]
fn a_finished_pass_that_measured_more_is_other_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint").display().to_string();
    let plain = ExtractArgs { checkpoint: Some(CheckpointArgs { path, layers: None }), ..ExtractArgs::default() };
    let measure = MeasureArgs { sites: vec![Site::AttnIn, Site::ResidPost], ..MeasureArgs::default() };
    let more = try_run("llama", &ExtractArgs { measure, ..plain.clone() }, &Silent).unwrap();
    assert_eq!(more.sites.len(), 1);
    assert_eq!(try_run("llama", &plain, &Silent).unwrap().sites.len(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() {
    let features = |dims: Vec<usize>, at: Places| Change::Features { to: NewValue::Zero, dims: Dims::Given(dims), at };
    let attn = || everywhere(&[Site::AttnIn]);
    let weight = |module: &str, row, expert| {
        Change::ZeroWeight(WeightPlace { layer: 0, module: module.into(), expert, row, column: 0 })
    };
    let layers = |layers: Vec<usize>| Places { layers, ..attn() };
    let positions = |positions: Vec<usize>| Places { positions, ..attn() };
    let int8 = || Change::RoundActivations { format: ActivationFormat::Int8, layers: vec![] };
    let draw = |count| Change::Features {
        to: NewValue::Zero,
        dims: Dims::Random { count, seed: 0, except: vec![1] },
        at: attn(),
    };
    let cases: Vec<(Vec<Change>, &str)> = vec![
        (vec![], "changes nothing"),
        (vec![features(vec![], attn())], "changes nothing"),
        (
            vec![Change::Features { to: NewValue::Scale(1.0), dims: Dims::Given(vec![1]), at: attn() }],
            "changes nothing",
        ),
        (vec![features(vec![32], attn())], "has dimension 32, and the model has 32"),
        (vec![features(vec![1, 1], attn())], "names dimension 1 twice"),
        (vec![features(vec![1], layers(vec![4]))], "has layer 4, and the model has 4"),
        (vec![features(vec![1], positions(vec![24]))], "has position 24, and a sequence has 24"),
        (vec![features(vec![1], everywhere(&[Site::FfnMid]))], "changes ffn_mid"),
        (vec![features(vec![1], everywhere(&[]))], "names no site"),
        (vec![draw(32)], "draws 32 features of 31"),
        (
            vec![features(vec![1, 2], attn()), features(vec![2], layers(vec![3]))],
            "dimension 2 in attn_in of layer 3 twice",
        ),
        (vec![Change::ZeroBeyond { threshold: 0.0, at: attn() }], "has a threshold of 0"),
        (
            vec![Change::Elements { to: NewValue::Zero, layer: 0, elements: vec![[3, 0, 0]] }],
            "has the element [3, 0, 0]",
        ),
        (
            vec![Change::Elements { to: NewValue::Zero, layer: 0, elements: vec![[1, 0, 2], [1, 0, 2]] }],
            "names the element [1, 0, 2] twice",
        ),
        (vec![Change::ZeroBeyond { threshold: 6.0, at: layers(vec![2, 2]) }], "names layer 2 twice"),
        (vec![features(vec![1], positions(vec![3, 0, 3]))], "names position 3 twice"),
        (vec![Change::RoundActivations { format: ActivationFormat::Fp8, layers: vec![0, 0] }], "names layer 0 twice"),
        (vec![Change::ExpertsOff { layer: 1, experts: vec![0] }], "which has none"),
        (vec![weight("no_proj", 0, None)], "names 0 linear layers"),
        (vec![weight("down_proj", 32, None)], "zeroes [32, 0] of model.layers.0.mlp.down_proj"),
        (vec![weight("down_proj", 0, Some(0))], "zeroes a weight of expert 0"),
        (vec![int8(), int8()], "rounds the activations of layer 0 twice"),
    ];
    for (changes, expected) in cases {
        let lanes = vec![Lane { name: "a".into(), changes }];
        let error = try_run("llama", &with_lanes(lanes), &Silent).unwrap_err();
        assert!(error.kind == Kind::BadArgument && error.message.contains(expected), "{error:?}, not {expected}");
        assert!(error.hint.is_some(), "{error:?}");
    }
    let off = vec![Change::ExpertsOff { layer: 1, experts: vec![2, 5, 2] }];
    let off = with_lanes(vec![Lane { name: "off".into(), changes: off }]);
    assert!(try_run("olmoe", &off, &Silent).unwrap_err().message.contains("names expert 2 twice"));
    let one = |name: &str| Lane { name: name.into(), changes: vec![int8()] };
    for (names, expected) in
        [(["a", "a"], "called \"a\""), (["a", "baseline"], "\"baseline\""), (["a", " "], "no name")]
    {
        let error = try_run("llama", &with_lanes(names.map(one).to_vec()), &Silent).unwrap_err();
        assert!(error.message.contains(expected), "{error:?}");
    }
    let apart = vec![features(vec![1], layers(vec![1])), features(vec![1], layers(vec![2]))];
    run("llama", vec![Lane { name: "apart".into(), changes: apart }]);
    let headless = ExtractArgs { logits: false, ..with_lanes(vec![one("a")]) };
    assert!(try_run("llama", &headless, &Silent).unwrap_err().message.contains("head"));
    let mut looking = with_lanes(vec![one("a")]);
    looking.lanes.attention_top1 = true;
    assert!(try_run("llama", &looking, &Silent).unwrap_err().message.contains("attn_in"));
}
