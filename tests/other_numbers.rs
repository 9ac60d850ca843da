//! Tests of weights in types and layouts that are rare: floats of eight bits without scales, F64,
//! and tensors of PyTorch files that do not lie together. Results are those of the same numbers
//! stored as usual, bit by bit.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::checkpoint::{self, Array, Arrays};
use crate::fake_hub::{Hub, Model};
use crate::project::{FULL, Outcome, Project, repository};
use crate::pytorch::{State, View};

const FAILED: i32 = 3;
const ID: &str = "lab/model";

/// The tensors of a fixture in f32, from all of its files.
fn numbers(fixture: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut all = Arrays::new();
    for entry in std::fs::read_dir(repository().join("tests/fixtures").join(fixture)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            all.extend(checkpoint::read(&path));
        }
    }
    let values = |array: &Array| -> Vec<f32> {
        match array.dtype {
            Dtype::F32 => array.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::BF16 => array.data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            other => panic!("{other:?}"),
        }
    };
    all.into_iter().map(|(name, array)| (name, array.shape.clone(), values(&array))).collect()
}

/// A fixture without its weights.
fn without_weights(fixture: &str) -> Project {
    let project = Project::new();
    for file in ["config.json", "reference.safetensors"] {
        project.copy(&format!("tests/fixtures/{fixture}/{file}"), &format!("model/{file}"));
    }
    project
}

/// A fixture whose numbers are stored as `store` makes them.
fn stored(fixture: &str, dtype: Dtype, store: impl Fn(f32) -> Vec<u8>) -> Project {
    let project = without_weights(fixture);
    let array = |(name, shape, values): (String, Vec<usize>, Vec<f32>)| {
        (name, Array::new(dtype, &shape, values.into_iter().flat_map(&store).collect()))
    };
    checkpoint::write(&project.path("model/model.safetensors"), &numbers(fixture).into_iter().map(array).collect());
    project
}

fn script(id: &str, options: &str) -> String {
    let device = std::env::var("OUTLIER_TEST_DEVICE").unwrap_or("cpu".into());
    format!(
        "let model = load_model(\"{id}\", #{{ device: \"{device}\", {options} }});
         let tokens = load_tokens(#{{ ids: \"model/reference.safetensors\", tensor: \"input_ids\" }});
         model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"full\", logits: true }});"
    )
}

/// Every norm output, the logits and the losses of a run.
#[track_caller]
fn full(project: &Project, outcome: Outcome) -> Vec<u8> {
    outcome.ends(0);
    project.bytes(&format!("full/{FULL}"))
}

#[track_caller]
fn same(one: &Project, other: &Project, what: &str) {
    let [one, other] = [one, other].map(|project| full(project, project.script(&script("model", ""))));
    assert!(one == other, "{what}");
}

/// The value of a code of a type that has `mantissa` bits behind its exponent.
fn value(code: u8, mantissa: u32, bias: i32) -> f32 {
    let (exponent, rest) = ((code & 0x7f) >> mantissa, code & ((1 << mantissa) - 1));
    let fraction = f32::from(rest) / (1 << mantissa) as f32;
    let size = if exponent == 0 {
        fraction * 2f32.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f32.powi(i32::from(exponent) - bias)
    };
    if code & 0x80 == 0 { size } else { -size }
}

#[test]
fn a_model_that_was_cast_to_eight_bits_is_computed_as_it_is() {
    // The types, their mantissas, their biases, and the first code beyond the largest number.
    for (dtype, mantissa, bias, beyond) in [
        (Dtype::F8_E4M3, 3, 7, 0x7f),
        (Dtype::F8_E5M2, 2, 15, 0x7c),
        (Dtype::F8_E4M3FNUZ, 3, 8, 0x80),
        (Dtype::F8_E5M2FNUZ, 2, 16, 0x80),
    ] {
        let nearest = |number: f32| {
            let distance = |code: &u8| (value(*code, mantissa, bias) - number.abs()).abs();
            let code = (0..beyond).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
            if number < 0.0 && code > 0 { code | 0x80 } else { code }
        };
        for fixture in ["llama", "qwen3_moe"] {
            let cast = stored(fixture, dtype, |number| vec![nearest(number)]);
            let plain = stored(fixture, Dtype::BF16, |number| {
                bf16::from_f32(value(nearest(number), mantissa, bias)).to_le_bytes().to_vec()
            });
            same(&cast, &plain, &format!("{fixture} {dtype:?}"));
        }
    }
}

/// The experts of a layer may be one tensor, which without scales is no stack of codes.
#[test]
fn experts_that_were_cast_to_eight_bits_may_be_fused() {
    let cast = |number: f32| vec![if number < 0.0 { 0xa8 } else { 0x28 }];
    let plain = stored("qwen3_moe", Dtype::F8_E4M3, cast);
    let fused = stored("qwen3_moe", Dtype::F8_E4M3, cast);
    checkpoint::change(&fused.path("model/model.safetensors"), |arrays| {
        let experts: Vec<String> = arrays.keys().filter(|name| name.contains(".experts.")).cloned().collect();
        let mut stacks = Arrays::new();
        // In the order of experts, with the gate of each above its up.
        let place = |name: &str| {
            let (layer, rest) = name.split_once(".experts.").unwrap();
            let (expert, projection) = rest.split_once('.').unwrap();
            (layer.to_string(), expert.parse::<usize>().unwrap(), projection.to_string())
        };
        let mut in_order: Vec<_> = experts.iter().map(|name| (place(name), name)).collect();
        in_order.sort();
        for ((layer, _, projection), name) in in_order {
            let own = arrays.remove(name).unwrap();
            let both = if projection == "down_proj.weight" { "down_proj" } else { "gate_up_proj" };
            let stack = stacks
                .entry(format!("{layer}.experts.{both}"))
                .or_insert_with(|| Array::new(own.dtype, &[0, own.shape[0], own.shape[1]], Vec::new()));
            stack.data.extend(own.data);
            stack.shape[0] += 1;
        }
        for (name, stack) in &mut stacks {
            if name.ends_with("gate_up_proj") {
                stack.shape = vec![stack.shape[0] / 2, 2 * stack.shape[1], stack.shape[2]];
            }
        }
        arrays.extend(stacks);
    });
    same(&fused, &plain, "fused");
}

#[test]
fn codes_of_eight_bits_that_are_no_number_are_refused() {
    for (dtype, code) in [(Dtype::F8_E4M3, 0x7f), (Dtype::F8_E5M2, 0x7c), (Dtype::F8_E4M3FNUZ, 0x80)] {
        let project = stored("llama", dtype, |_| vec![code]);
        project.refuses(&script("model", ""), FAILED, "element 0 is", "the weights are damaged");
    }
}

/// A scale for one weight tells that all codes need one.
#[test]
fn codes_without_their_scale_beside_others_are_no_cast() {
    let project = stored("llama", Dtype::F8_E4M3, |_| vec![0x38]);
    let (project, other) = (&project, "model.layers.0.mlp.up_proj.weight");
    checkpoint::change(&project.path("model/model.safetensors"), |arrays| {
        arrays.insert(format!("{other}_scale"), Array::new(Dtype::F32, &[1], 1f32.to_le_bytes().to_vec()));
    });
    project.refuses("load_model(\"model\");", FAILED, "is FP8 (F8_E4M3), and", "the checkpoint is incomplete");
    let project = stored("llama", Dtype::F8_E4M3, |_| vec![0x38]);
    let mut config = project.json("model/config.json");
    config["quantization_config"] = serde_json::json!({ "quant_method": "fp8" });
    project.file("model/config.json", config.to_string());
    project.refuses("load_model(\"model\");", FAILED, "is FP8 (F8_E4M3), and", "the checkpoint is incomplete");
}

#[test]
fn numbers_of_64_bits_are_rounded_to_32() {
    for fixture in ["llama", "gpt2"] {
        // A part that no f32 has.
        let wide = stored(fixture, Dtype::F64, |number| (f64::from(number) * (1.0 + 1e-12)).to_le_bytes().to_vec());
        same(&wide, &stored(fixture, Dtype::F32, |number| number.to_le_bytes().to_vec()), fixture);
    }
    let project = stored("llama", Dtype::F64, |_| 1e300f64.to_le_bytes().to_vec());
    project.refuses(&script("model", ""), FAILED, "element 0 is inf", "the weights are damaged");
}

/// A PyTorch file in which every matrix is stored transposed, and every vector with gaps.
fn strided(fixture: &str) -> State {
    let mut state = State::default();
    for (name, shape, values) in numbers(fixture) {
        let (laid_out, strides) = match shape[..] {
            [rows, columns] => {
                let at = |i: usize| values[i % rows * columns + i / rows];
                ((0..values.len()).map(at).collect::<Vec<f32>>(), vec![1, rows as i64])
            }
            [_] => (values.iter().flat_map(|value| [*value, f32::NAN, f32::NAN]).collect(), vec![3]),
            // Masks, which nothing reads.
            _ => continue,
        };
        let shape = shape.iter().map(|size| *size as i64).collect();
        state.tensors.push(View { name, dtype: Dtype::F16, storage: state.storages.len(), offset: 0, shape, strides });
        let data = laid_out.into_iter().flat_map(|number| f16::from_f32(number).to_le_bytes()).collect();
        state.storages.push((Dtype::F16, data));
    }
    state
}

/// They were refused, and transformers reads them.
#[test]
fn tensors_that_do_not_lie_together_are_laid_out() {
    for fixture in ["llama", "gpt2"] {
        let plain = stored(fixture, Dtype::F16, |number| f16::from_f32(number).to_le_bytes().to_vec());
        let project = without_weights(fixture);
        project.file("model/pytorch_model.bin", strided(fixture).file());
        same(&project, &plain, fixture);
    }
}

#[test]
fn tensors_that_do_not_lie_together_are_read_from_the_hub() {
    let project = without_weights("llama");
    project.file("model/pytorch_model.bin", strided("llama").file());
    let expected = full(&project, project.script(&script("model", "")));
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    let outcome = hub.run(&project, &script(ID, "stream: true"), None);
    assert!(full(&project, outcome) == expected);
}

#[test]
fn groups_of_gptq_may_have_64_bits() {
    let project = Project::new();
    project.copy("tests/fixtures_quantised/gptq_desc_act_llama", "model");
    let expected = full(&project, project.script(&script("model", "")));
    let file = project.path("model/model.safetensors");
    checkpoint::change(&file, |arrays| {
        for (_, groups) in arrays.iter_mut().filter(|(name, _)| name.ends_with(".g_idx")) {
            assert_eq!(groups.dtype, Dtype::I32);
            let wide =
                groups.data.as_chunks().0.iter().flat_map(|group| i64::from(i32::from_le_bytes(*group)).to_le_bytes());
            *groups = Array::new(Dtype::I64, &groups.shape.clone(), wide.collect());
        }
    });
    assert!(full(&project, project.script(&script("model", ""))) == expected);
}
