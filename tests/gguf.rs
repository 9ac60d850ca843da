//! Models in GGUF files: read as their safetensors form is, whatever llama.cpp's converter has done to them; each type of ggml to the bit;
//! tokenizers; and files that are damaged, or hold what is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use outlier::error::Result;
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, ExtractArgs, TextArgs, TokenSource, Windows};
use outlier::text::load_tokens;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array, Arrays};
use crate::gguf_file::{Gguf, text_bytes, tokenizer};
use crate::oracle::{self, load_args, relative_error, run_with};
use crate::project::{Project, repository};
use crate::quantised::{decoded, opened};

const FILE: &str = "model/model.gguf";
const F32: u32 = 0;
const F16: u32 = 1;
const BF16: u32 = 30;
const MXFP4: u32 = 39;
/// The largest relative difference where a norm or a rope is stored otherwise.
const TOLERANCE: f64 = 1e-5;

fn numbers(array: &Array) -> Vec<f32> {
    match array.dtype {
        Dtype::F32 => array.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::BF16 => {
            array.data.as_chunks::<2>().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect()
        }
        other => panic!("{other:?} holds no numbers here"),
    }
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The rows of queries or keys as llama.cpp has them: first halves and second halves of heads in turn.
fn paired(data: &[u8], rows: usize, head: usize) -> Vec<u8> {
    let row = data.len() / rows;
    let place = |r: usize| r / head * head + (r % head) / 2 + (r % 2) * (head / 2);
    (0..rows).flat_map(|r| data[place(r) * row..][..row].to_vec()).collect()
}

/// Names in a layer, in transformers and in GGUF.
const NAMES: [(&str, &str); 17] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks.weight"),
    ("post_attention_layernorm", "ffn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.experts.down_proj_bias", "ffn_down_exps.bias"),
];

fn gguf_name(arch: &str, name: &str) -> String {
    let outside = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    if let Some((_, gguf)) = outside.iter().find(|(known, _)| *known == name) {
        return gguf.to_string();
    }
    let rest = name.strip_prefix("model.layers.").unwrap();
    let (layer, rest) = rest.split_once('.').unwrap();
    let (module, ending) = match NAMES.iter().find(|(known, _)| *known == rest) {
        Some(_) => (rest, String::new()),
        None => rest.rsplit_once('.').map(|(module, ending)| (module, format!(".{ending}"))).unwrap(),
    };
    let mut found = NAMES.iter().find(|(known, _)| *known == module).unwrap_or_else(|| panic!("{name}")).1;
    if module == "post_attention_layernorm" && ["gemma3", "gpt-oss"].contains(&arch) {
        found = "post_attention_norm";
    }
    format!("blk.{layer}.{found}{ending}")
}

/// What llama.cpp's converter makes of a folder of transformers; matrices in F32 or as they are.
pub fn converted(arch: &str, config: &Value, arrays: &Arrays, wide: bool) -> Gguf {
    let mut file = Gguf::of(arch);
    let key = |name: &str| format!("{arch}.{name}");
    let heads = config["num_attention_heads"].as_u64().unwrap();
    let head = config["head_dim"].as_u64().unwrap_or(config["hidden_size"].as_u64().unwrap() / heads);
    for (from, to) in [
        ("num_hidden_layers", "block_count"),
        ("hidden_size", "embedding_length"),
        ("intermediate_size", "feed_forward_length"),
        ("max_position_embeddings", "context_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("num_experts", "expert_count"),
        ("num_local_experts", "expert_count"),
        ("num_experts_per_tok", "expert_used_count"),
        ("moe_intermediate_size", "expert_feed_forward_length"),
    ] {
        if let Some(value) = config[from].as_u64() {
            file.set(&key(to), json!(value));
        }
    }
    let base = config["rope_theta"].as_f64().unwrap();
    file.set(&key("attention.layer_norm_rms_epsilon"), config["rms_norm_eps"].clone());
    file.set(&key("rope.freq_base"), json!(base));
    file.set(&key("attention.key_length"), json!(head)).set(&key("attention.value_length"), json!(head));
    let scaling = &config["rope_scaling"];
    match scaling["rope_type"].as_str() {
        Some("llama3") => {
            let of = |name: &str| scaling[name].as_f64().unwrap();
            let (low, high) = (of("low_freq_factor"), of("high_freq_factor"));
            let original = of("original_max_position_embeddings");
            let factor = |i: u64| {
                let wave = std::f64::consts::TAU * base.powf(2.0 * i as f64 / head as f64);
                let smooth = (original / wave - low) / (high - low);
                match () {
                    _ if wave < original / high => 1.0,
                    _ if wave > original / low => of("factor"),
                    _ => 1.0 / ((1.0 - smooth) / of("factor") + smooth),
                }
            };
            let factors: Vec<f32> = (0..head / 2).map(|i| factor(i) as f32).collect();
            file.tensor("rope_freqs.weight", &[factors.len()], F32, f32_bytes(&factors));
        }
        Some("yarn") => {
            file.set(&key("rope.scaling.type"), json!("yarn"));
            file.set(&key("rope.scaling.factor"), json!(scaling["factor"].as_f64().unwrap()));
            let original = scaling["original_max_position_embeddings"].clone();
            file.set(&key("rope.scaling.original_context_length"), original);
        }
        _ => {}
    }
    if ["gemma3", "gpt-oss"].contains(&arch) {
        file.set(&key("attention.sliding_window"), config["sliding_window"].clone());
    }
    if let Some(pattern) = config["sliding_window_pattern"].as_u64() {
        file.set(&key("attention.sliding_window_pattern"), json!(pattern));
    }
    let mut stacks: BTreeMap<String, BTreeMap<usize, &Array>> = BTreeMap::new();
    for (name, array) in arrays {
        if let Some((layer, rest)) = name.split_once(".mlp.experts.") {
            if let Some((expert, projection)) = rest.split_once('.') {
                let layer = layer.strip_prefix("model.layers.").unwrap();
                let called = match projection {
                    "gate_proj.weight" => "ffn_gate_exps",
                    "up_proj.weight" => "ffn_up_exps",
                    _ => "ffn_down_exps",
                };
                let stack = stacks.entry(format!("blk.{layer}.{called}.weight")).or_default();
                stack.insert(expert.parse().unwrap(), array);
                continue;
            }
            if rest != "down_proj_bias" {
                mxfp4(&mut file, layer, rest, arrays, array);
                continue;
            }
        }
        let mut data = array.data.clone();
        let rows = array.shape[0];
        let is_norm = name.contains("norm");
        if arch == "llama" && (name.contains("q_proj") || name.contains("k_proj")) {
            data = paired(&data, rows, head as usize);
        }
        let values = || numbers(&Array::new(array.dtype, &array.shape, data.clone()));
        let (kind, data) = match () {
            _ if is_norm && arch == "gemma3" => (F32, f32_bytes(&values().iter().map(|v| v + 1.0).collect::<Vec<_>>())),
            _ if wide || array.shape.len() == 1 || name.contains("bias") || name.contains("router") => {
                (F32, f32_bytes(&values()))
            }
            _ => (BF16, data),
        };
        file.tensor(&gguf_name(arch, name), &array.shape, kind, data);
    }
    for (name, stack) in stacks {
        let shape = [&[stack.len()], &stack[&0].shape[..]].concat();
        let data = stack.values().flat_map(|array| array.data.clone()).collect();
        file.tensor(&name, &shape, BF16, data);
    }
    file
}

/// Experts of gpt-oss: gates and ups apart, and blocks with their scale in front and the halves of 32 columns in their nibbles.
fn mxfp4(file: &mut Gguf, layer: &str, rest: &str, arrays: &Arrays, array: &Array) {
    let layer = layer.strip_prefix("model.layers.").unwrap();
    let name = |part: &str| format!("blk.{layer}.ffn_{part}");
    if rest == "gate_up_proj_bias" {
        let values = numbers(array);
        let half = |odd: usize| f32_bytes(&values.iter().skip(odd).step_by(2).copied().collect::<Vec<_>>());
        let shape = [array.shape[0], array.shape[1] / 2];
        file.tensor(&name("gate_exps.bias"), &shape, F32, half(0));
        file.tensor(&name("up_exps.bias"), &shape, F32, half(1));
        return;
    }
    let Some(stem) = rest.strip_suffix("_blocks") else { return };
    let scales = &arrays[&format!("model.layers.{layer}.mlp.experts.{stem}_scales")];
    let code = |block: &[u8], column: usize| block[column / 2] >> (column % 2 * 4) & 15;
    let block = |(block, scale): (&[u8], &u8)| {
        let pairs = (0..16).map(|j| code(block, j) | code(block, j + 16) << 4);
        std::iter::once(*scale).chain(pairs).collect::<Vec<u8>>()
    };
    let blocks: Vec<u8> = array.data.chunks_exact(16).zip(&scales.data).flat_map(block).collect();
    let (experts, out, columns) = (array.shape[0], array.shape[1], array.shape[2] * 32);
    if stem == "down_proj" {
        file.tensor(&name("down_exps.weight"), &[experts, out, columns], MXFP4, blocks);
        return;
    }
    let row = array.shape[2] * 17;
    let half = |odd: usize| blocks.chunks_exact(row).skip(odd).step_by(2).flatten().copied().collect();
    // The later half is written first: nothing says in which order they come.
    file.tensor(&name("up_exps.weight"), &[experts, out / 2, columns], MXFP4, half(1));
    file.tensor(&name("gate_exps.weight"), &[experts, out / 2, columns], MXFP4, half(0));
}

/// Config and tensors of a fixture.
pub fn fixture(name: &str) -> (Value, Arrays) {
    let folder = repository().join("tests/fixtures").join(name);
    let config = serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    let mut arrays = Arrays::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.starts_with("model") && file.ends_with(".safetensors") {
            arrays.extend(checkpoint::read(&path));
        }
    }
    (config, arrays)
}

/// A folder with the reference of a fixture, and a model.
pub fn project(name: &str) -> Project {
    let project = Project::new();
    for file in ["config.json", "expected.json", "reference.safetensors"] {
        project.copy(&format!("tests/fixtures/{name}/{file}"), &format!("model/{file}"));
    }
    project
}

pub fn small() -> Gguf {
    let (config, arrays) = fixture("llama");
    converted("llama", &config, &arrays, false)
}

#[test]
fn gguf_files_give_what_transformers_gives() {
    for (arch, name) in
        [("llama", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("qwen3moe", "qwen3_moe"), ("gpt-oss", "gpt_oss")]
    {
        let (config, arrays) = fixture(name);
        for wide in [true, false] {
            let project = project(name);
            project.file(FILE, converted(arch, &config, &arrays, wide).bytes());
            oracle::check(&project.path("model"));
        }
    }
}

/// Of Gemma 3 a file does not say by what queries are scaled: where that is the size of a head, as in all but the largest, both forms
/// agree.
#[test]
fn gemma_3_gives_what_its_safetensors_give() {
    let (mut config, arrays) = fixture("gemma3_text");
    config["query_pre_attn_scalar"] = config["head_dim"].clone();
    let [plain, gguf] = [project("gemma3_text"), project("gemma3_text")];
    plain.file("model/config.json", config.to_string());
    checkpoint::write(&plain.path("model/model.safetensors"), &arrays);
    gguf.file(FILE, converted("gemma3", &config, &arrays, false).bytes());
    same(&gguf.path("model"), &plain.path("model"), TOLERANCE);
}

/// What two folders give of every norm output and the logits differs by no more than `most`.
fn same(one: &Path, other: &Path, most: f64) {
    let [one, other] = [one, other]
        .map(|folder| run_with(folder, &load_args(folder, ComputeDtype::F32), ExtractArgs::default()).unwrap().1);
    assert_eq!(one.keys().collect::<BTreeSet<_>>(), other.keys().collect::<BTreeSet<_>>());
    for (name, values) in &one {
        let error = relative_error(values, &other[name]);
        println!("{name}: {error:.2e}");
        assert!(error <= most, "{name}: {error:.2e}");
    }
}

/// Numbers of about the size of weights, always the same.
fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| 0.2 * next() + 0.1 * next()).collect()
}

/// The bytes of a matrix in a type, and the numbers that they stand for, by candle.
fn quantised(values: &[f32], shape: &[usize], kind: GgmlDType) -> (Vec<u8>, Vec<f32>) {
    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let quantised = QTensor::quantize(&tensor, kind).unwrap();
    let values = quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (quantised.data().unwrap().into_owned(), values)
}

#[test]
fn every_type_of_ggml_is_decoded_to_the_bit() {
    const HIDDEN: usize = 256;
    let config = json!({
        "model_type": "llama", "vocab_size": 128, "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 64, "tie_word_embeddings": true,
    });
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let matrices = [
        ("model.embed_tokens.weight".to_string(), [128, HIDDEN]),
        (layer("self_attn.q_proj"), [HIDDEN, HIDDEN]),
        (layer("self_attn.k_proj"), [128, HIDDEN]),
        (layer("self_attn.v_proj"), [128, HIDDEN]),
        (layer("self_attn.o_proj"), [HIDDEN, HIDDEN]),
        (layer("mlp.gate_proj"), [512, HIDDEN]),
        (layer("mlp.up_proj"), [512, HIDDEN]),
        (layer("mlp.down_proj"), [HIDDEN, 512]),
    ];
    let kinds = [
        (2, GgmlDType::Q4_0),
        (3, GgmlDType::Q4_1),
        (6, GgmlDType::Q5_0),
        (7, GgmlDType::Q5_1),
        (8, GgmlDType::Q8_0),
        (10, GgmlDType::Q2K),
        (11, GgmlDType::Q3K),
        (12, GgmlDType::Q4K),
        (13, GgmlDType::Q5K),
        (14, GgmlDType::Q6K),
    ];
    for (number, kind) in kinds {
        let (mut arrays, mut coded) = (Arrays::new(), BTreeMap::new());
        for name in [layer("input_layernorm"), layer("post_attention_layernorm"), "model.norm.weight".to_string()] {
            arrays.insert(name, Array::new(Dtype::F32, &[HIDDEN], f32_bytes(&random(HIDDEN, 9))));
        }
        for (seed, (name, shape)) in matrices.iter().enumerate() {
            let (bytes, values) = quantised(&random(shape[0] * shape[1], seed as u32), shape, kind);
            coded.insert(name.clone(), bytes);
            arrays.insert(name.clone(), Array::new(Dtype::F32, shape, f32_bytes(&values)));
        }
        let mut file = converted("llama", &config, &arrays, true);
        for (name, bytes) in &coded {
            let rows = arrays[name].shape[0];
            let paired = |bytes: &[u8]| paired(bytes, rows, 64);
            let bytes = if name.contains("q_proj") || name.contains("k_proj") { paired(bytes) } else { bytes.clone() };
            let called = gguf_name("llama", name);
            let tensor = file.tensors.iter_mut().find(|(known, ..)| *known == called).unwrap();
            (tensor.2, tensor.3) = (number, bytes);
        }
        let [plain, gguf] = [project("llama"), project("llama")];
        plain.file("model/config.json", config.to_string());
        checkpoint::write(&plain.path("model/model.safetensors"), &arrays);
        gguf.file(FILE, file.bytes());
        let found = decoded(&opened(&gguf.path(FILE)).unwrap());
        assert_eq!(found.len(), matrices.len());
        for (name, (shape, values)) in found {
            assert_eq!(shape, arrays[&name].shape);
            let expected = numbers(&arrays[&name]);
            let differs = values.iter().zip(&expected).position(|(one, other)| one.to_bits() != other.to_bits());
            assert_eq!(differs, None, "{kind:?}: {name}");
        }
        same(&gguf.path("model"), &plain.path("model"), TOLERANCE);
    }
}

#[test]
fn weights_in_f16_give_what_f16_gives() {
    let (config, arrays) = fixture("qwen3");
    let narrowed = |array: &Array| {
        let narrow = |value: &f32| half::f16::from_f32(*value).to_le_bytes();
        numbers(array).iter().flat_map(narrow).collect::<Vec<u8>>()
    };
    let mut file = converted("qwen3", &config, &arrays, false);
    let mut plain_arrays = arrays.clone();
    for (name, array) in arrays.iter().filter(|(_, array)| array.shape.len() == 2) {
        let called = gguf_name("qwen3", name);
        let tensor = file.tensors.iter_mut().find(|(known, ..)| *known == called).unwrap();
        (tensor.2, tensor.3) = (F16, narrowed(array));
        plain_arrays.insert(name.clone(), Array::new(Dtype::F16, &array.shape, narrowed(array)));
    }
    let [plain, gguf] = [project("qwen3"), project("qwen3")];
    checkpoint::write(&plain.path("model/model.safetensors"), &plain_arrays);
    gguf.file(FILE, file.bytes());
    same(&gguf.path("model"), &plain.path("model"), 0.0);
}

/// The file by its name, alone in a folder, and beside what turns images into embeddings.
#[test]
fn a_gguf_file_is_found_by_its_name_and_in_its_folder() {
    let project = Project::new();
    project.file("lone/small.gguf", small().bytes()).file("lone/mmproj-small.gguf", b"GGUF\x03\0\0\0");
    for place in ["lone", "lone/small.gguf"] {
        let script = format!(
            "let m = load_model(\"{place}\"); print(m.model_type); print(m.num_layers); print(m.files[0].name);"
        );
        assert_eq!(project.script(&script).ok(), "llama\n4\nsmall.gguf\n");
    }
    project.file("lone/other.gguf", small().bytes());
    project.refuses("load_model(\"lone\");", 3, "lone: it has 2 models in GGUF files", "name the one that is meant");
}

/// What is told of a file that is not read.
#[track_caller]
fn told(bytes: &[u8], message: &str) {
    let project = Project::new();
    project.file("m.gguf", bytes);
    let error = opened(&project.path("m.gguf")).err().expect("it is refused");
    assert!(error.message.contains(message), "{}", error.message);
    assert!(error.message.contains("m.gguf"), "{}", error.message);
    assert!(error.hint.is_some());
}

#[test]
fn what_is_not_read_of_gguf_is_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut file = small();
        file.set(key, value);
        file.bytes()
    };
    told(&with("general.architecture", json!("mamba")), "of the architecture \"mamba\"; read are llama, qwen2");
    told(&with("general.type", json!("adapter")), "its type is \"adapter\"");
    told(&with("split.count", json!(3)), "it is one of 3 parts of a model, and by its name one of 1");
    told(&with("llama.logit_scale", json!(0.5)), "`llama.logit_scale` in its metadata is not known");
    told(&with("llama.expert_count", json!(8)), "`llama.expert_count` in its metadata is 8");
    told(&with("llama.attention.value_length", json!(8)), "`llama.attention.value_length` is 8 beside heads of 16");
    told(&with("llama.attention.head_count_kv", json!([2, 2, 1, 2])), "`llama.attention.head_count_kv` differs");
    told(&with("llama.rope.scaling.type", json!("yarn")), "beside scaling of the type \"yarn\"");
    told(&small().without("llama.block_count").bytes(), "`llama.block_count` in its metadata is missing");
    told(&small().without("general.architecture").bytes(), "`general.architecture` is missing");
    let mut file = small();
    file.tensor("blk.0.ssm_a", &[4], F32, vec![0; 16]);
    told(&file.bytes(), "tensor `blk.0.ssm_a` in it has no place");
    let mut file = small();
    file.tensors[1].2 = 16;
    told(&file.bytes(), "is of ggml's type 16, which is not read");
    let bytes = small().bytes();
    told(&[&b"GGUF\x01\0\0\0"[..], &bytes[8..]].concat(), "version 1 of GGUF");
    told(&[&b"GGUF\0\0\0\x03"[..], &bytes[8..]].concat(), "big endian");
}

#[test]
fn what_a_damaged_gguf_file_says_is_not_believed() {
    let good = small();
    let bytes = good.bytes();
    let huge = u64::MAX.to_le_bytes();
    let put = |at: usize, with: &[u8]| [&bytes[..at], with, &bytes[at + with.len()..]].concat();
    told(&put(8, &huge), "tensors and");
    told(&put(16, &huge), "entries of metadata are more than models have");
    told(&put(24, &huge), "it ends within its header");
    told(&bytes[..bytes.len() - 64], "ends behind the");
    told(&bytes[..100], "it ends within its header");
    let head = |rest: &[u8]| {
        let entry = [&text_bytes("a")[..], rest].concat();
        [&b"GGUF\x03\0\0\0"[..], &[0; 8], &1u64.to_le_bytes(), &entry].concat()
    };
    let list = |kind: u32, count: u64| [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat();
    told(&head(&list(0, u64::MAX)), "values");
    told(&head(&list(8, 1 << 40)), "values");
    told(&head(&list(9, 1)), "lists of lists");
    told(&head(&77u32.to_le_bytes()), "a type 77 that does not exist");
    let alignment = |value: u32| {
        let mut file = small();
        file.set("general.alignment", json!(value));
        file.bytes()
    };
    told(&alignment(0), "`general.alignment`");
    told(&alignment(48), "`general.alignment`");
    let mut file = good.clone();
    let twice = file.tensors[1].clone();
    file.tensors.push(twice);
    told(&file.bytes(), "is in the model twice");
    let mut file = good.clone();
    file.tensors[1].1 = vec![usize::MAX / 2, 4, 4];
    told(&file.bytes(), "has sizes that no");
    let mut file = good;
    file.tensors.retain(|(name, ..)| name != "token_embd.weight");
    told(&file.bytes(), "`token_embd.weight` is missing");
}

/// Bytes of the header of several good files are changed, cut off and put in: each is read or refused, and nothing panics.
#[test]
fn mutated_gguf_headers_are_read_or_refused() {
    let (config, arrays) = fixture("gpt_oss");
    let mut with_tokens = small();
    tokenizer(&mut with_tokens);
    let files = [with_tokens.bytes(), converted("gpt-oss", &config, &arrays, false).bytes()];
    let project = Project::new();
    let path = project.path("m.gguf");
    let mut state = 7u32;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 4) as usize % bound
    };
    let mut refused = 0;
    for round in 0..1500 {
        let mut bytes = files[round % 2].clone();
        let header = 6000.min(bytes.len());
        for _ in 0..1 + below(3) {
            let at = 4 + below(header - 16);
            match below(5) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at..at + 8].fill(0xff),
                2 => bytes[at] = below(256) as u8,
                3 => drop(bytes.splice(at..at + 1, [])),
                _ => bytes[at..at + 8].copy_from_slice(&(1u64 << below(64)).to_le_bytes()),
            }
        }
        project.file("m.gguf", &bytes);
        match opened(&path) {
            Ok(model) => drop(model),
            Err(error) => {
                assert!(!error.message.is_empty());
                refused += 1;
            }
        }
        let _ = tokens(&project, "a b", 1);
    }
    assert!(refused > 500, "{refused} were refused");
}

/// Ids of a text by the tokenizer of `m.gguf`, `count` of them.
fn tokens(project: &Project, text: &str, count: usize) -> Result<Vec<u32>> {
    project.file("text.txt", text);
    let args = TextArgs {
        path: project.path("text.txt").display().to_string(),
        dataset: None,
        documents: None,
        format: None,
        column: None,
        tokenizer: project.path("m.gguf").display().to_string(),
        num_sequences: 1,
        sequence_length: count,
        skip_sequences: 0,
        shuffle: None,
        overlap: 0.0,
        separator: None,
        windows: Some(Windows::Tokens),
        straight_quotes: false,
        add_special_tokens: true,
    };
    load_tokens(&TokenSource::Text(Box::new(args)), &Silent).map(|tokens| tokens.ids.concat())
}

#[test]
fn the_tokenizer_of_a_gguf_file_is_that_of_its_pairs() {
    let text = "ab 12 ab";
    for (pre, ids) in [
        ("smollm", &[256, 32, 49, 50, 257][..]),
        ("gpt-2", &[256, 32, 258, 257]),
        ("qwen2", &[256, 32, 49, 50, 257]),
        ("llama-bpe", &[259, 256, 32, 258, 257]),
        ("gpt-4o", &[256, 32, 258, 257]),
        ("tekken", &[259, 256, 32, 49, 50, 257]),
    ] {
        let mut file = small();
        tokenizer(&mut file);
        file.set("tokenizer.ggml.pre", json!(pre));
        let project = Project::new();
        project.file("m.gguf", file.bytes());
        assert_eq!(tokens(&project, text, ids.len()).unwrap(), ids, "{pre}");
    }
    let mut file = small();
    tokenizer(&mut file);
    file.set("tokenizer.ggml.pre", json!("another"));
    let project = Project::new();
    project.file("m.gguf", file.bytes());
    let error = tokens(&project, text, 4).unwrap_err();
    assert!(error.message.contains("a way \"another\" that is not known"), "{}", error.message);
    assert!(error.hint.unwrap().contains("put the tokenizer.json"));
    // A tokenizer.json beside it comes first.
    project.copy("examples/shakespeare-olmoe/tokenizer.json", "tokenizer.json");
    assert!(tokens(&project, text, 2).is_ok());
}

/// SentencePiece joins the pair whose token has the highest score, and writes what it does not know byte by byte.
#[test]
fn the_tokenizer_of_a_gguf_file_is_that_of_its_scores() {
    let mut words: Vec<(String, f64, u32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    words.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    // Ids 259 on: "bc" is joined before "ab", so that "abc" is "a" and "bc".
    for (token, score) in
        [("▁", -10.0), ("a", -11.0), ("b", -12.0), ("c", -13.0), ("ab", -2.0), ("bc", -1.0), ("▁a", -3.0)]
    {
        words.push((token.into(), score, 1));
    }
    let mut file = small();
    file.set("tokenizer.ggml.model", json!("llama")).set("tokenizer.ggml.bos_token_id", json!(1));
    file.set("tokenizer.ggml.tokens", words.iter().map(|(token, ..)| json!(token)).collect());
    file.set("tokenizer.ggml.scores", words.iter().map(|(_, score, _)| json!(score)).collect());
    file.set("tokenizer.ggml.token_type", words.iter().map(|(.., kind)| json!(kind)).collect());
    let project = Project::new();
    project.file("m.gguf", file.bytes());
    let ids = tokens(&project, "abc ab é", 8).unwrap();
    // The word's beginning, joined with the a; then b and c; a blank, a, b; a blank and the two bytes of é.
    assert_eq!(ids, [1, 265, 264, 259, 263, 259, 3 + 0xc3, 3 + 0xa9]);
    file.set("tokenizer.ggml.add_bos_token", json!(false)).set("tokenizer.ggml.add_space_prefix", json!(false));
    project.file("m.gguf", file.bytes());
    assert_eq!(tokens(&project, "abc ab é", 7).unwrap(), [260, 264, 259, 263, 259, 3 + 0xc3, 3 + 0xa9]);
}
