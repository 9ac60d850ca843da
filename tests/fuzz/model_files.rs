//! Folders of models with one damaged file: config.json, headers and values of safetensors files, the index, the tokenizer.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{TEXT, TRAINED, Workshop, link, read, read_json, write};

/// An analysis of the model in `m`, or what it would need.
pub fn script(folder: &Path, chance: &mut Chance) -> Start {
    let dtype = chance.pick(&["f32", "bf16"]);
    let run = format!(
        "let model = load_model(\"m\", #{{ dtype: \"{dtype}\" }});\n\
         let tokens = load_tokens(#{{ ids: [[1, 2, 3, 4], [5, 6, 7, 8]] }});\n\
         let acts = model.extract_layernorms(tokens, #{{ logits: true, memory_budget: \"256MiB\" }});\n\
         print(acts.detect_outliers(#{{ magnitude_threshold: 3.0 }}).num_features);\n"
    );
    let estimate = "print(estimate_vram(\"m\", #{ num_sequences: 2, sequence_length: 8 }).total_bytes);\n";
    write(folder.join("s.rhai"), if chance.one_in(4) { estimate } else { &run });
    Start::of(&["run", "s.rhai"])
}

pub fn config(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.models)), &model);
    let path = model.join("config.json");
    let mut config = read_json(&path);
    let damaged = match chance.below(3) {
        0 => {
            numbers(&mut config, chance);
            mutate::text(&config).into_bytes()
        }
        _ => mutate::json_bytes(&config, chance),
    };
    write(path, damaged);
    script(folder, chance)
}

/// One or two numbers of the config become others, at limits mostly.
fn numbers(config: &mut Value, chance: &mut Chance) {
    let Value::Object(map) = config else { return };
    let keys: Vec<String> = map.iter().filter(|(_, value)| value.is_number()).map(|(key, _)| key.clone()).collect();
    for _ in 0..1 + chance.below(2) {
        let key = chance.pick(&keys);
        let known = map[key].as_i64().unwrap_or(1);
        map[key] = match chance.below(4) {
            0 => json!(known.wrapping_mul(*chance.pick(&[2, 3, 16, 1 << 20]))),
            1 => json!(known.wrapping_add(*chance.pick(&[-1, 1]))),
            _ => mutate::weird_number(chance),
        };
    }
}

/// The header of a safetensors file, and what comes behind it.
pub fn split(data: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&data[8..8 + length]).unwrap(), data[8 + length..].to_vec())
}

pub fn joined(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A safetensors file that does not say what is in it.
pub fn damaged_header(file: &[u8], chance: &mut Chance) -> Vec<u8> {
    let (mut header, data) = split(file);
    match chance.below(5) {
        0 => mutate::bytes(file.to_vec(), 0..16, chance),
        1 => mutate::bytes(file.to_vec(), 0..file.len(), chance),
        2 => joined(&mutate::json_bytes(&header, chance), &data),
        _ => {
            let Value::Object(map) = &mut header else { return Vec::new() };
            disagree(map, chance);
            joined(header.to_string().as_bytes(), &data)
        }
    }
}

/// Each entry is fine by itself; together they are not.
fn disagree(map: &mut Map<String, Value>, chance: &mut Chance) {
    const TYPES: &[&str] = &[
        "F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "I8",
        "U64", "X",
    ];
    let names: Vec<String> = map.keys().filter(|name| *name != "__metadata__").cloned().collect();
    let (one, two) = (chance.pick(&names).clone(), chance.pick(&names).clone());
    let other = map[&two].clone();
    let mut shape: Vec<Value> = map[&one]["shape"].as_array().cloned().unwrap_or_default();
    let mut offsets: Vec<Value> = map[&one]["data_offsets"].as_array().cloned().unwrap_or_default();
    let entry = map.get_mut(&one).expect("listed");
    match chance.below(4) {
        0 => entry["dtype"] = json!(chance.pick(TYPES)),
        1 => {
            shape.reverse();
            let twisted = Value::Array(shape.clone());
            shape.push(json!(1));
            entry["shape"] = match chance.below(8) {
                0 => json!([]),
                1 => json!([0]),
                2 => json!([1u64 << 32, 1u64 << 32]),
                3 => json!([1u64 << 63, 2]),
                4 => json!(vec![1; 10_000]),
                5 => json!([u64::MAX]),
                6 => json!(shape),
                _ => twisted,
            }
        }
        2 => *entry = other,
        _ => {
            offsets.reverse();
            entry["data_offsets"] = match chance.below(5) {
                0 => json!([0, 0]),
                1 => json!([0, u64::MAX]),
                2 => json!([u64::MAX - 7, u64::MAX]),
                3 => other["data_offsets"].clone(),
                _ => json!(offsets),
            }
        }
    }
}

/// The name of one of the model's weight files.
pub fn weights(model: &Path, chance: &mut Chance) -> String {
    let mut names = crate::names(model);
    names.retain(|name| name.ends_with(".safetensors"));
    names.sort();
    chance.pick(&names).clone()
}

pub fn header(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.models)), &model);
    let path = model.join(weights(&model, chance));
    write(&path, damaged_header(&read(&path), chance));
    script(folder, chance)
}

/// Weights that are not numbers, or too large ones.
pub fn values(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.models)), &model);
    let path = model.join(weights(&model, chance));
    let (header, mut data) = split(&read(&path));
    let random = chance.bytes(4).try_into().unwrap();
    let values = [
        f32::NAN.to_le_bytes(),
        f32::INFINITY.to_le_bytes(),
        f32::MAX.to_le_bytes(),
        f32::MIN_POSITIVE.to_le_bytes(),
        [0; 4],
        random,
    ];
    let value = *chance.pick(&values);
    for _ in 0..*chance.pick(&[1, 10, 1_000, data.len() / 4]) {
        let at = chance.below(data.len() / 4) * 4;
        data[at..at + 4].copy_from_slice(&value);
    }
    write(path, joined(header.to_string().as_bytes(), &data));
    script(folder, chance)
}

pub fn index(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.indexed)), &model);
    let path = model.join("model.safetensors.index.json");
    let mut index = read_json(&path);
    let damaged = match chance.below(2) {
        0 => mutate::json_bytes(&index, chance),
        _ => {
            let names: Vec<String> =
                index["weight_map"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
            index["weight_map"][chance.pick(&names)] = json!(chance.pick(mutate::TEXTS));
            index.to_string().into_bytes()
        }
    };
    write(path, damaged);
    script(folder, chance)
}

pub fn tokenizer(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(TRAINED), &model);
    let path = model.join("tokenizer.json");
    let damaged = match chance.below(6) {
        0 => {
            let whole = read(&path);
            let end = *chance.pick(&[2_000, whole.len()]);
            mutate::bytes(whole, 0..end, chance)
        }
        1 => vocabulary(workshop.tokenizer.clone(), chance).to_string().into_bytes(),
        2 => {
            let mut tokenizer = workshop.tokenizer.clone();
            tokenizer["model"] = mutate::structure(tokenizer["model"].clone(), chance);
            mutate::text(&tokenizer).into_bytes()
        }
        _ => {
            // The vocabulary is nine tenths of the file: without it, changes meet the rest.
            let mut small = workshop.tokenizer.clone();
            let (vocabulary, merges) = (small["model"]["vocab"].take(), small["model"]["merges"].take());
            let mut changed = mutate::structure(small, chance);
            if let Some(model) = changed.get_mut("model").and_then(Value::as_object_mut) {
                for (key, value) in [("vocab", vocabulary), ("merges", merges)] {
                    if model.get(key).is_some_and(Value::is_null) {
                        model.insert(key.to_string(), value);
                    }
                }
            }
            mutate::text(&changed).into_bytes()
        }
    };
    write(path, damaged);
    write(folder.join("t.txt"), format!("{}\u{2019}\0 🎉 {}", TEXT, TEXT.repeat(8)));
    let special = chance.pick(&["true", "false"]);
    let windows = chance.pick(&["tokens", "documents", "text"]);
    let text = format!(
        "let model = load_model(\"m\");\n\
         let tokens = load_tokens(#{{ text: \"t.txt\", model: model, num_sequences: 2, sequence_length: 8, windows: \"{windows}\", format: \"text\", separator: \"\\n\", add_special_tokens: {special} }});\n\
         print(model.extract_layernorms(tokens).norms.len());\n"
    );
    let without = text.replace("separator: \"\\n\", ", "");
    write(folder.join("s.rhai"), if *windows == "documents" { text } else { without });
    Start::of(&["run", "s.rhai"])
}

/// Ids that repeat, are missing or far away; merges of what is not there.
fn vocabulary(mut tokenizer: Value, chance: &mut Chance) -> Value {
    let model = &mut tokenizer["model"];
    if let Some(map) = model["vocab"].as_object_mut() {
        let keys: Vec<String> = map.keys().cloned().collect();
        for _ in 0..*chance.pick(&[1, 5, 100, keys.len()]) {
            let key = chance.pick(&keys);
            match chance.below(3) {
                0 => drop(map.remove(key)),
                1 => drop(map.insert(key.clone(), json!(chance.pick(&[0, 1, 500, u32::MAX, u32::MAX - 1, 1 << 20])))),
                _ => drop(map.insert(format!("{key}x"), json!(chance.below(600)))),
            }
        }
    }
    if let Some(list) = model["merges"].as_array_mut().filter(|list| !list.is_empty()) {
        let at = chance.below(list.len());
        list[at] = chance
            .pick(&[json!(["zz", "qq"]), json!("a"), json!(""), json!("a b c"), json!(["", ""]), json!([])])
            .clone();
    }
    tokenizer
}
