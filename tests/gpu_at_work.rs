//! What a GPU computes and the CPU does not: no activation of any fixture comes back from the emulated GPU before the end, and weights
//! in codes go there as they are stored and become numbers there, the same to the bit.

use std::collections::HashSet;
use std::path::Path;

use outlier::cuda::Context;
use outlier::engine::extract;
use outlier::hub::{self, Access};
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, ExtractArgs, Keep, TokenSource};
use outlier::spec::inventory::Part;
use outlier::tensor::{Device, Tensor, write_timeline};
use outlier::text::load_tokens;
use outlier::weights::load::{Loader, resident_bytes};
use outlier::weights::open;
use safetensors::Dtype;
use serde_json::Value;

use crate::gpu::pass_with;
use crate::oracle::{fixtures, load_args, references};
use crate::quantised;

/// The file of the timeline, in the process that has an emulated GPU. Elsewhere the test runs itself in such a process.
fn timeline_of(test: &str) -> Option<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("OUTLIER_TIMELINE") {
        return Some(path.into());
    }
    let folder = tempfile::tempdir().unwrap();
    pass_with("cuda:0", &[test], &[("OUTLIER_TIMELINE", folder.path().join("timeline.json").as_path())]);
    None
}

/// Name, stream and bytes of what was put on the streams, in that order.
fn events(timeline: &Path) -> Vec<(String, String, u64)> {
    let text = std::fs::read_to_string(timeline).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let word = |event: &Value, key: &str| event[key].as_str().unwrap().to_string();
    let event = |event: &Value| (word(event, "name"), word(event, "tid"), event["args"]["bytes"].as_u64().unwrap_or(0));
    trace["traceEvents"].as_array().unwrap().iter().map(event).collect()
}

/// The bytes that come back beside the records of norm outputs, and the most of them that may: router logits, by which the CPU
/// chooses experts, and some single numbers of each layer.
fn back_and_allowed(folder: &Path, timeline: &Path) -> (u64, u64) {
    let ids = TokenSource::IdsSafetensors {
        path: folder.join("reference.safetensors").display().to_string(),
        tensor: "input_ids".into(),
    };
    let tokens = load_tokens(&ids, &Silent).unwrap();
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model = open(files, &load_args(folder, ComputeDtype::F32)).unwrap();
    let args = ExtractArgs { keep: Keep::Stats, logits: false, ..ExtractArgs::default() };
    extract(&model, &tokens, &args, &Silent).unwrap();
    let events = events(timeline);
    let taps = events.iter().filter(|(name, ..)| name == "tap").count();
    let back: Vec<u64> = events
        .iter()
        .filter(|(name, stream, _)| name == "from the GPU" && stream == "compute")
        .map(|(.., bytes)| *bytes)
        .collect();
    assert!(taps > 0 && back.len() > taps, "{}: {taps} norm outputs, and {} copies", folder.display(), back.len());
    // The levels and a record for each norm output are fetched at the end.
    let before_the_end = &back[..back.len() - taps - 1];
    let count = tokens.ids.iter().map(Vec::len).sum::<usize>();
    let allowed = model.spec.layers.iter().map(|layer| {
        let experts = layer.moe().map_or(0, |moe| moe.num_experts);
        4 * (count * experts + experts) + 256
    });
    (before_the_end.iter().sum(), allowed.sum::<usize>() as u64)
}

#[test]
fn no_activation_of_any_model_comes_back_before_the_end() {
    let Some(timeline) = timeline_of("gpu_at_work::no_activation_of_any_model_comes_back_before_the_end") else {
        return;
    };
    let mut wrong = Vec::new();
    for folder in references(&fixtures()).iter().chain(&references(&quantised::fixtures())) {
        let (back, allowed) = back_and_allowed(folder, &timeline);
        if back > allowed {
            wrong.push(format!("{}: {back} bytes come back, and {allowed} may", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kernels that make numbers of codes.
const UNPACKING: [&str; 5] = ["fp8", "nvfp4", "integers", "four_bits", "mxfp4"];

#[test]
fn codes_cross_the_bus_and_become_the_same_numbers_there() {
    let Some(timeline) = timeline_of("gpu_at_work::codes_cross_the_bus_and_become_the_same_numbers_there") else {
        return;
    };
    let mut kernels = HashSet::new();
    for folder in references(&quantised::fixtures()) {
        let model = quantised::opened(&folder).unwrap();
        let all = quantised::parts(&model);
        let coded: Vec<&Part> = all.iter().filter(|part| part.weight.coding.is_some()).collect();
        let (here, there) = ([Device::Cpu], [Device::Cuda(Context::open(0).unwrap())]);
        let on = |devices| Loader { checkpoint: &model.checkpoint, devices };
        for part in &coded {
            let (cpu, gpu) = (on(&here).part(part).unwrap().remove(0), on(&there).part(part).unwrap().remove(0));
            assert_eq!(cpu.dims(), gpu.dims());
            let bits = |tensor: &Tensor| as_f32(tensor).iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&cpu), bits(&gpu), "{}: {}", folder.display(), part.weight.name);
        }
        write_timeline(&there).unwrap();
        let events = events(&timeline);
        let unpacked = events.iter().filter(|(name, ..)| UNPACKING.contains(&name.as_str())).count();
        assert_eq!(unpacked, coded.len(), "{}", folder.display());
        kernels.extend(events.iter().map(|(name, ..)| name.clone()).filter(|name| UNPACKING.contains(&name.as_str())));
        let across: u64 = events.iter().filter(|(name, ..)| name == "to the GPU").map(|(.., bytes)| bytes).sum();
        let stored: usize = coded.iter().map(|part| resident_bytes(part, Dtype::F32, false)).sum();
        assert!(across as f64 <= 1.3 * stored as f64, "{}: {across} bytes of {stored} stored", folder.display());
    }
    assert_eq!(kernels.len(), UNPACKING.len(), "{kernels:?}");
}

/// Values of a tensor on any device; those in bf16 widened.
fn as_f32(tensor: &Tensor) -> Vec<f32> {
    let Tensor::Cuda(array) = tensor else { return tensor.to_f32_vec().unwrap() };
    let mut bytes = vec![0; array.len() * array.element().bytes()];
    array.download(&mut bytes).unwrap();
    match array.element().bytes() {
        2 => bytes.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    }
}
