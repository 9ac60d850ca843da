//! Tests of quantised checkpoints: the weights are those of the format to the bit, and the results
//! agree with transformers on the decoded weights. Checkpoints that contradict themselves are
//! refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use outlier::error::Result;
use outlier::hub::{self, Access};
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, ExtractArgs};
use outlier::spec::inventory::{self, Part};
use outlier::spec::{Role, TensorSpec};
use outlier::tensor::{Device, Tensor};
use outlier::weights::load::Loader;
use outlier::weights::{OpenModel, open};
use safetensors::Dtype;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Array, Arrays};
use crate::oracle::{self, load_args, run_with};
use crate::project::Project;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures_quantised")
}

/// The fixtures of the suite, or of a folder of more.
fn folders() -> Vec<PathBuf> {
    let more = std::env::var_os("OUTLIER_QUANTISED").map(PathBuf::from);
    oracle::references(&more.unwrap_or_else(fixtures))
}

pub fn opened(folder: &Path) -> Result<OpenModel> {
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent)?;
    open(files, &load_args(folder, ComputeDtype::F32))
}

/// Every weight of the model, each part of a stack or of rows separately.
pub fn parts(model: &OpenModel) -> Vec<Part> {
    let spec = &model.spec;
    let alone = |weight: &TensorSpec| Part { weight: weight.clone(), role: Role::ToResidual };
    let mut parts = vec![alone(&spec.embedding), alone(&spec.head)];
    for layer in &spec.layers {
        parts.extend(inventory::core(layer, true));
        if let Some(moe) = layer.moe() {
            (0..moe.num_experts).for_each(|e| parts.extend(inventory::expert(&moe.experts, e)));
        }
    }
    parts
}

/// The values of the quantised weights under the names of whole tensors, with stacks and rows put
/// together.
pub fn decoded(model: &OpenModel) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let loader = Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
    let mut all = BTreeMap::new();
    for part in parts(model).iter().filter(|part| part.weight.coding.is_some()) {
        let TensorSpec { name, shape, slice, rows, .. } = &part.weight;
        let values = loader.part(part).unwrap().remove(0).to_f32_vec().unwrap();
        let (_, whole) =
            all.entry(name.clone()).or_insert_with(|| (shape.clone(), vec![f32::NAN; shape.iter().product::<usize>()]));
        let [.., height, width] = shape[..] else { panic!("{name} is no matrix") };
        let first = slice.unwrap_or(0) * height + rows.map_or(0, |rows| rows.first);
        whole[first * width..][..values.len()].copy_from_slice(&values);
    }
    all
}

fn sha256(values: &[f32]) -> String {
    let mut digest = Sha256::new();
    values.iter().for_each(|value| digest.update((value + 0.0).to_le_bytes()));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_quantised_weight_is_decoded_to_the_bit() {
    for folder in folders() {
        let decoded = decoded(&opened(&folder).unwrap());
        let text = std::fs::read_to_string(folder.join("decoded.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let expected = expected["tensors"].as_object().unwrap();
        // Files of larger models call the language model's tensors otherwise than the language model does.
        let name =
            |name: &str| name.replace("model.language_model.", "model.").replace("language_model.model.", "model.");
        let mut names: Vec<_> = expected.keys().map(|stored| name(stored)).collect();
        names.sort();
        assert_eq!(decoded.keys().cloned().collect::<Vec<_>>(), names, "{}", folder.display());
        for (stored, of) in expected {
            let (shape, values) = &decoded[&name(stored)];
            assert_eq!(json!(shape), of["shape"], "{}: {stored}", folder.display());
            let hash = json!(sha256(values));
            let known = [&of["sha256"], &of["sha256_once"]];
            assert!(known.contains(&&hash), "{}: {stored} begins with {:?}", folder.display(), &values[..4]);
        }
    }
}

#[test]
fn quantised_models_agree_with_transformers_on_the_decoded_weights() {
    let root = std::env::var_os("OUTLIER_QUANTISED").map(PathBuf::from).unwrap_or_else(fixtures);
    oracle::check_all(&root, None, oracle::check);
}

#[test]
fn quantised_models_compute_what_their_description_says() {
    oracle::check_all(&fixtures(), None, oracle::check_second_opinion);
}

/// Rounded operands are allowed there, but other weights are not.
#[test]
fn quantised_models_in_bf16_stay_near_the_reference() {
    for folder in folders() {
        let run = run_with(&folder, &load_args(&folder, ComputeDtype::Bf16), ExtractArgs::default());
        let (acts, full) = run.unwrap();
        let (worst, at) = oracle::compare_rounded(&folder, &full, (acts.hidden_size, acts.model.vocab_size));
        assert!(worst <= 5e-2, "{}: relative error {worst:.2e} at {at}", folder.display());
    }
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

/// A fixture in a folder of its own, with one change.
pub fn damaged(fixture: &str, tensors: impl Fn(&mut Arrays), config: impl Fn(&mut Value)) -> Project {
    let project = Project::new();
    project.copy(&format!("tests/fixtures_quantised/{fixture}"), "model");
    let mut settings = project.json("model/config.json");
    config(&mut settings);
    project.file("model/config.json", settings.to_string());
    for file in std::fs::read_dir(project.path("model")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("model")
            && path.extension().unwrap() == "safetensors"
        {
            checkpoint::change(&path, &tensors);
        }
    }
    project
}

/// The error of opening and running a model.
#[track_caller]
pub fn refused(project: &Project, words: &[&str]) {
    let folder = project.path("model");
    let outcome = run_with(&folder, &load_args(&folder, ComputeDtype::F32), ExtractArgs::default());
    let Err(error) = outcome else { panic!("no error") };
    for word in words {
        assert!(error.message.contains(word), "{word:?} in {error}");
    }
}

pub fn unchanged(_: &mut Arrays) {}
pub fn as_it_is(_: &mut Value) {}

/// Changes the tensor of this name in place.
pub fn at(name: &str, change: impl Fn(&mut Array)) -> impl Fn(&mut Arrays) {
    let name = name.to_string();
    move |arrays| {
        if let Some(array) = arrays.get_mut(&name) {
            change(array);
        }
    }
}

pub fn without(name: &str) -> impl Fn(&mut Arrays) {
    let name = name.to_string();
    move |arrays| drop(arrays.remove(&name))
}

#[test]
fn codes_without_a_scale_are_refused_by_the_name_of_the_weight() {
    let fp8 = "fp8_tensor_modelopt_llama";
    refused(&damaged(fp8, without(&format!("{Q}_scale")), as_it_is), &[Q, "is missing"]);
    let nvfp4 = "nvfp4_modelopt_llama";
    refused(&damaged(nvfp4, without(&format!("{DOWN}_scale_2")), as_it_is), &[DOWN, &format!("{DOWN}_scale_2")]);
    refused(&damaged(nvfp4, without(&format!("{DOWN}_scale")), as_it_is), &[DOWN, "U8"]);
    let mxfp4 = "mxfp4_ct_qwen3_moe";
    let expert = "model.layers.0.mlp.experts.1.up_proj.weight";
    refused(&damaged(mxfp4, without(&format!("{expert}_scale")), as_it_is), &[expert]);
}

#[test]
fn scales_of_another_shape_are_refused_and_never_broadcast() {
    let minimax = "fp8_block_minimax_m2";
    let scale = format!("{Q}_scale_inv");
    // 96 × 72 in blocks of 32 × 32 have 3 × 3.
    for shape in [[1, 3], [3, 1], [1, 1], [6, 3], [96, 1]] {
        let count: usize = shape.iter().product();
        let other = at(&scale, |array| *array = Array::new(Dtype::F32, &shape, vec![0x3f; 4 * count]));
        refused(&damaged(minimax, other, as_it_is), &[&scale, "[3, 3]"]);
    }
    // A block that the ratio of shapes suggests, where the config has another.
    let other = |config: &mut Value| config["quantization_config"]["weight_block_size"] = json!([48, 32]);
    refused(&damaged(minimax, unchanged, other), &["weight_scale_inv", "48 × 32"]);
    let nvfp4 = "nvfp4_modelopt_llama";
    let scale = format!("{DOWN}_scale");
    let other = at(&scale, |array| *array = Array::new(Dtype::F8_E4M3, &[112, 12], vec![0x38; 112 * 12]));
    refused(&damaged(nvfp4, other, as_it_is), &[&scale, "[112, 11]"]);
}

#[test]
fn codes_and_scales_that_are_no_numbers_are_refused_by_name() {
    let nan = |array: &mut Array| array.data[5] = 0x7f;
    refused(&damaged("fp8_tensor_modelopt_llama", at(Q, nan), as_it_is), &[Q, "element 5 is NaN"]);
    let scale = format!("{Q}_scale");
    let nan = |array: &mut Array| array.data.copy_from_slice(&f32::NAN.to_le_bytes());
    refused(&damaged("fp8_tensor_modelopt_llama", at(&scale, nan), as_it_is), &[&scale, "NaN"]);
    let nan = |array: &mut Array| array.data[3] = 0xff;
    refused(&damaged("mxfp8_ct_llama", at(&scale, nan), as_it_is), &[&scale, "index 3 is NaN"]);
    let scale = "model.layers.0.mlp.experts.0.down_proj.weight_scale";
    refused(&damaged("mxfp4_ct_qwen3_moe", at(scale, nan), as_it_is), &[scale, "index 3 is NaN"]);
    let global = "model.layers.0.mlp.experts.0.down_proj.weight_global_scale";
    let zero = |array: &mut Array| array.data.fill(0);
    refused(&damaged("nvfp4_ct_qwen3_moe", at(global, zero), as_it_is), &[global, "is 0"]);
}

#[test]
fn settings_that_contradict_or_are_not_read_are_refused_by_name() {
    let minimax = "fp8_block_minimax_m2";
    let with = |key: &'static str, value: Value| {
        damaged(minimax, unchanged, move |config| config["quantization_config"][key] = value.clone())
    };
    refused(&with("fmt", json!("e5m2")), &["fmt", "e5m2"]);
    refused(&with("quant_method", json!("aqlm")), &["quant_method", "aqlm"]);
    refused(&with("weight_block_size", json!([0, 32])), &["weight_block_size"]);
    refused(
        &with("transform_config", json!({ "config_groups": { "u": { "type": "hadamard" } } })),
        &["transform_config"],
    );
    let other = |config: &mut Value| config["quantization_config"]["format"] = json!("marlin-24");
    refused(&damaged("mxfp8_ct_llama", unchanged, other), &["format", "marlin-24"]);
    let other = |config: &mut Value| config["quantization_config"]["quant_algo"] = json!("W4A16_AWQ");
    refused(&damaged("nvfp4_modelopt_llama", unchanged, other), &["quant_algo", "W4A16_AWQ"]);
}

#[test]
fn a_scale_for_what_a_projection_reads_is_refused() {
    let name = "model.layers.0.mlp.down_proj.pre_quant_scale";
    let add = |arrays: &mut Arrays| {
        if arrays.contains_key(DOWN) {
            arrays.insert(name.to_string(), Array::bf16(&[176], vec![0x3f80; 176]));
        }
    };
    refused(&damaged("nvfp4_modelopt_llama", add, as_it_is), &[name]);
}

#[test]
fn a_scale_that_belongs_to_no_codes_is_told() {
    let name = "model.norm.weight_scale";
    let add = |arrays: &mut Arrays| {
        if arrays.contains_key("model.norm.weight") {
            arrays.insert(name.to_string(), Array::bf16(&[1], vec![0x3f80]));
        }
    };
    let project = damaged("fp8_tensor_modelopt_llama", add, as_it_is);
    let notes = opened(&project.path("model")).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains(name)), "{notes:?}");
}

/// A projection takes as much memory as in the file, and only the needed bytes of the files are
/// read.
#[test]
fn codes_stay_in_memory_as_they_are_in_the_files() {
    for folder in folders() {
        let model = opened(&folder).unwrap();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
        let in_codes = |part: &Part| part.weight.coding.is_some();
        let projections = parts(&model).into_iter().filter(|part| in_codes(part) && !part.role.in_f32());
        let (mut resident, mut elements) = (0, 0);
        for part in projections {
            resident += loader.resident_bytes(&part).unwrap();
            elements += part.elements();
            assert_eq!(
                loader.resident_bytes(&part).unwrap() as u64,
                model.stored_bytes(&part).unwrap(),
                "{:?}",
                part.weight
            );
            // Loaded, it holds no more either.
            assert!(matches!(loader.part(&part).unwrap()[..], [Tensor::Codes(_)]), "{:?}", part.weight);
        }
        // Against the two bytes of bf16; small blocks take more than large ones.
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let most = if name.contains("fp4") { 0.3 } else { 0.55 };
        let share = resident as f64 / (2 * elements) as f64;
        assert!(share <= most, "{name}: {share:.3} of bf16");
        let formats: u64 = model.info.weights_stored_as.iter().map(|stored| stored.parameters).sum();
        assert_eq!(formats, model.info.parameters, "{name}");
    }
}

#[test]
fn what_a_model_is_stored_as_is_said_by_kind() {
    let said = |name: &str| {
        let stored = opened(&fixtures().join(name)).unwrap().info.weights_stored_as;
        stored.into_iter().map(|stored| stored.format).collect::<Vec<_>>()
    };
    let blocks = said("fp8_block_minimax_m2");
    assert_eq!(blocks, ["FP8 E4M3, one scale for each 32 × 32", "BF16", "F32"]);
    let nvfp4 = said("nvfp4_modelopt_llama");
    assert_eq!(nvfp4, ["NVFP4, one scale for each 16 columns and one for each tensor", "BF16"]);
}

/// Scales of activations and of the cache are not weights of the model.
#[test]
fn scales_of_activations_are_passed_in_silence() {
    for name in ["fp8_tensor_modelopt_llama", "nvfp4_modelopt_llama", "fp8_tensor_stacked_mistral4"] {
        let notes = opened(&fixtures().join(name)).unwrap().notes;
        assert!(notes.is_empty(), "{name}: {notes:?}");
    }
}

/// Every tensor of a project's model, and the place of each file.
fn all_arrays(project: &Project) -> (Vec<PathBuf>, Arrays) {
    let entries = std::fs::read_dir(project.path("model")).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("model") && name.ends_with(".safetensors")
    };
    let files: Vec<PathBuf> = entries.filter(is_model).collect();
    let arrays = files.iter().flat_map(|file| checkpoint::read(file)).collect();
    (files, arrays)
}

/// The model of a fixture with other tensors, in one file.
fn rewritten(fixture: &str, change: impl Fn(&mut Arrays)) -> Project {
    let project = damaged(fixture, unchanged, as_it_is);
    let (files, mut arrays) = all_arrays(&project);
    change(&mut arrays);
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let _ = std::fs::remove_file(project.path("model/model.safetensors.index.json"));
    checkpoint::write(&project.path("model/model.safetensors"), &arrays);
    project
}

#[track_caller]
fn runs_like(fixture: &str, project: &Project) {
    let (_, expected) = oracle::run(&fixtures().join(fixture), ComputeDtype::F32);
    let (_, got) = oracle::run(&project.path("model"), ComputeDtype::F32);
    assert_eq!(got, expected, "{fixture}");
}

/// Rows `rows` of matrix `e` of a stack [experts, height, width] of one-byte codes.
fn matrix(stack: &Array, e: usize, rows: std::ops::Range<usize>) -> Array {
    let [_, height, width] = stack.shape[..] else { panic!("a stack") };
    let data = &stack.data[(e * height + rows.start) * width..(e * height + rows.end) * width];
    Array::new(stack.dtype, &[rows.len(), width], data.to_vec())
}

/// The architecture's release stacks its experts.
#[test]
fn experts_one_by_one_in_place_of_a_stack_give_the_same_results() {
    let fixture = "fp8_tensor_stacked_mistral4";
    let apart = rewritten(fixture, |arrays| {
        let stacks: Vec<String> =
            arrays.keys().filter(|name| name.ends_with(".experts.gate_up_proj")).cloned().collect();
        for both in stacks {
            let prefix = both.strip_suffix("gate_up_proj").unwrap().to_string();
            let down = format!("{prefix}down_proj");
            for (name, parts) in [(&both, &["gate_proj", "up_proj"][..]), (&down, &["down_proj"])] {
                let (codes, scales) =
                    (arrays.remove(name).unwrap(), arrays.remove(&format!("{name}_scale_inv")).unwrap());
                arrays.remove(&format!("{name}_activation_scale"));
                let rows = codes.shape[1] / parts.len();
                for e in 0..codes.shape[0] {
                    for (i, part) in parts.iter().enumerate() {
                        let weight = format!("{prefix}{e}.{part}.weight");
                        let scale = scales.data[4 * e..4 * e + 4].to_vec();
                        arrays.insert(format!("{weight}_scale_inv"), Array::new(Dtype::F32, &[], scale));
                        arrays.insert(weight, matrix(&codes, e, i * rows..(i + 1) * rows));
                    }
                }
            }
        }
    });
    runs_like(fixture, &apart);
}

/// The architecture's release has separate experts.
#[test]
fn a_stack_in_place_of_experts_one_by_one_gives_the_same_results() {
    let fixture = "fp8_channel_ct_qwen3_moe";
    let together = rewritten(fixture, |arrays| {
        for layer in 0..2 {
            let prefix = format!("model.layers.{layer}.mlp.experts.");
            for (stack, parts) in [("gate_up_proj", &["gate_proj", "up_proj"][..]), ("down_proj", &["down_proj"])] {
                for (ending, behind) in [("weight", ""), ("weight_scale", "_scale")] {
                    let names = (0..4).flat_map(|e| parts.iter().map(move |part| (e, part)));
                    let all: Vec<Array> = names
                        .map(|(e, part)| arrays.remove(&format!("{prefix}{e}.{part}.{ending}")).unwrap())
                        .collect();
                    let (dtype, shape) = (all[0].dtype, [4, parts.len() * all[0].shape[0], all[0].shape[1]]);
                    let data = all.iter().flat_map(|array| array.data.clone()).collect();
                    arrays.insert(format!("{prefix}{stack}{behind}"), Array::new(dtype, &shape, data));
                }
            }
        }
    });
    runs_like(fixture, &together);
}

/// Arrays one behind the other along dimension `axis`.
fn joined(arrays: &[Array], axis: usize) -> Array {
    let mut shape = arrays[0].shape.clone();
    shape[axis] = arrays.iter().map(|array| array.shape[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let rows = (0..outer).flat_map(|row| {
        arrays.iter().flat_map(move |array| {
            let bytes = array.data.len() / outer;
            &array.data[row * bytes..(row + 1) * bytes]
        })
    });
    let data = rows.copied().collect();
    Array::new(arrays[0].dtype, &shape, data)
}

/// Integers, which lie along the rows of a matrix or along its columns.
#[test]
fn a_stack_of_integers_in_place_of_experts_one_by_one_gives_the_same_results() {
    for (fixture, prefix, axis) in [
        ("awq_qwen3_moe", "model.layers.", 1),
        ("gptq_v2_qwen3_moe", "model.layers.", 1),
        ("int4_ct_kimi_k25", "language_model.model.layers.", 0),
    ] {
        let together = rewritten(fixture, |arrays| {
            let first = ".mlp.experts.0.down_proj.";
            let layers: Vec<(String, String)> = arrays
                .keys()
                .filter_map(|name| name.strip_prefix(prefix)?.split_once(first))
                .map(|(layer, ending)| (format!("{prefix}{layer}.mlp.experts."), ending.to_string()))
                .collect();
            assert!(layers.len() > 2, "{fixture}");
            for (experts, ending) in layers {
                let count =
                    (0..).take_while(|e| arrays.contains_key(&format!("{experts}{e}.down_proj.{ending}"))).count();
                for (stack, parts) in [("gate_up_proj", &["gate_proj", "up_proj"][..]), ("down_proj", &["down_proj"])] {
                    let mut matrices = Vec::new();
                    for e in 0..count {
                        let mut own =
                            parts.iter().map(|part| arrays.remove(&format!("{experts}{e}.{part}.{ending}")).unwrap());
                        let mut matrix = match ending.as_str() {
                            // Both have the same groups.
                            "g_idx" => own.next_back().unwrap(),
                            "weight_shape" => {
                                let mut shape = own.next_back().unwrap();
                                let rows = i32::from_le_bytes(shape.data[..4].try_into().unwrap()) * parts.len() as i32;
                                shape.data[..4].copy_from_slice(&rows.to_le_bytes());
                                shape
                            }
                            _ => joined(&own.by_ref().collect::<Vec<_>>(), axis),
                        };
                        drop(own);
                        matrix.shape.insert(0, 1);
                        matrices.push(matrix);
                    }
                    let ending = ending.strip_prefix("weight").map_or(format!(".{ending}"), str::to_string);
                    arrays.insert(format!("{experts}{stack}{ending}"), joined(&matrices, 0));
                }
            }
        });
        runs_like(fixture, &together);
        // Of gate and up, which are read together, each keeps its own rows.
        let model = opened(&together.path("model")).unwrap();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
        let halves =
            parts(&model).into_iter().filter(|part| part.weight.rows.is_some() && part.weight.slice == Some(1));
        for part in halves {
            let whole = Part { weight: TensorSpec { rows: None, ..part.weight.clone() }, role: part.role };
            let [half, both] = [&part, &whole].map(|part| loader.resident_bytes(part).unwrap());
            assert!(half <= both / 2 + 256, "{}: {half} of {both}", part.weight.name);
        }
    }
}

/// This is ModelOpt's spelling for families whose release stacks experts.
#[test]
fn experts_numbered_behind_their_projections_give_the_same_results() {
    let fixture = "nvfp4_ct_qwen3_moe";
    let other = rewritten(fixture, |arrays| {
        let renamed = std::mem::take(arrays).into_iter().map(|(name, array)| {
            let Some((prefix, rest)) = name.split_once(".experts.") else { return (name, array) };
            let [number, projection, ending] = rest.splitn(3, '.').collect::<Vec<_>>()[..] else { panic!("{name}") };
            (format!("{prefix}.experts.{projection}.{number}.{ending}"), array)
        });
        *arrays = renamed.collect();
    });
    runs_like(fixture, &other);
}
