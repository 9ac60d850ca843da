//! Folders of models whose weights are quantised, one of each format: settings, headers, and numbers that do not belong together.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

use crate::chance::Chance;
use crate::model_files::{damaged_header, joined, script, split, weights};
use crate::mutate;
use crate::process::Start;
use crate::workshop::{Workshop, link, read, read_json, write};

/// Files that say how weights are quantised, beside config.json.
const BESIDE: [&str; 2] = ["hf_quant_config.json", "quantize_config.json"];
/// Values of the settings by which formats are told apart and laid out.
const SETTINGS: &[&str] = &[
    "awq",
    "bitsandbytes",
    "compressed-tensors",
    "fbgemm_fp8",
    "fp8",
    "gptq",
    "gptq_v2",
    "modelopt",
    "mxfp4",
    "auto-round",
    "FP8",
    "NVFP4",
    "e4m3",
    "e5m2",
    "float-quantized",
    "int-quantized",
    "mxfp4-pack-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "pack-quantized",
    "block",
    "channel",
    "group",
    "tensor",
    "tensor_group",
    "float",
    "int",
    "nf4",
    "fp4",
];

pub fn quantised(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.quantised)), &model);
    match chance.below(4) {
        0 => settings(&model, chance),
        1 => {
            let path = model.join(weights(&model, chance));
            write(&path, damaged_header(&read(&path), chance));
        }
        2 => pieces(&model, chance),
        _ => numbers(&model, chance),
    }
    Start { may_write: vec!["results"], ..script(folder, chance) }
}

/// The settings say something else, in config.json or beside it.
fn settings(model: &Path, chance: &mut Chance) {
    let mut paths: Vec<PathBuf> = BESIDE.iter().map(|name| model.join(name)).filter(|path| path.exists()).collect();
    let config = model.join("config.json");
    if read_json(&config).to_string().contains("quantization_config") {
        paths.push(config);
    }
    let path = chance.pick(&paths);
    let mut file = read_json(path);
    let whole = path.ends_with("config.json");
    let places = ["/quantization_config", "/text_config/quantization_config", ""];
    let place = places.into_iter().find(|place| file.pointer(place).is_some_and(|_| !(whole && place.is_empty())));
    let Some(settings) = place.and_then(|place| file.pointer_mut(place)) else { return };
    *settings = match chance.below(3) {
        0 => mutate::structure(settings.take(), chance),
        1 => {
            for _ in 0..1 + chance.below(2) {
                one_setting(settings, chance);
            }
            settings.take()
        }
        _ => {
            let word = json!(chance.pick(SETTINGS));
            settings[*chance.pick(&["quant_method", "format", "fmt", "checkpoint_format", "quant_algo", "version"])] =
                word;
            settings.take()
        }
    };
    write(path, mutate::text(&file));
}

/// One number or word somewhere in the settings becomes another.
fn one_setting(settings: &mut Value, chance: &mut Chance) {
    match settings {
        Value::Object(map) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            one_setting(&mut map[chance.pick(&keys)], chance);
        }
        Value::Array(list) if !list.is_empty() => {
            let at = chance.below(list.len());
            one_setting(&mut list[at], chance);
        }
        Value::String(_) => *settings = json!(chance.pick(SETTINGS)),
        Value::Bool(set) => *set = !*set,
        _ => {
            let usual = [
                json!(2),
                json!(3),
                json!(4),
                json!(8),
                json!(16),
                json!(32),
                json!(128),
                json!([1, 1]),
                json!([128, 7]),
            ];
            *settings = if chance.one_in(2) { chance.pick(&usual).clone() } else { mutate::weird_number(chance) };
        }
    }
}

/// Tensors that together are a weight do not fit each other: one is gone, has another name, the shape of another, or a type of the
/// same size.
fn pieces(model: &Path, chance: &mut Chance) {
    const ENDINGS: &[&str] = &[
        "weight",
        "weight_scale",
        "weight_scale_inv",
        "weight_scale_2",
        "weight_global_scale",
        "weight_packed",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "SCB",
        "weight_format",
        "weight.absmax",
        "weight.quant_map",
        "weight.quant_state.bitsandbytes__nf4",
        "bias",
        "input_scale",
        "pre_quant_scale",
    ];
    let path = model.join(weights(model, chance));
    let (mut header, data) = split(&read(&path));
    let Value::Object(map) = &mut header else { return };
    for _ in 0..1 + chance.below(3) {
        let names: Vec<String> = map.keys().filter(|name| *name != "__metadata__").cloned().collect();
        let Some((module, ending)) = chance.pick(&names).rsplit_once('.').map(|(m, e)| (m.to_string(), e.to_string()))
        else {
            continue;
        };
        let name = format!("{module}.{ending}");
        match chance.below(5) {
            0 => drop(map.remove(&name)),
            1 => {
                let entry = map.remove(&name).expect("listed");
                map.insert(format!("{module}.{}", chance.pick(ENDINGS)), entry);
            }
            2 => {
                let other = map[chance.pick(&names)].clone();
                map.insert(format!("{module}.{}", chance.pick(ENDINGS)), other);
            }
            3 => reshaped(map, &name, chance),
            _ => retyped(map, &name, chance),
        }
        if map.is_empty() {
            break;
        }
    }
    write(&path, joined(header.to_string().as_bytes(), &data));
}

/// The same bytes in another shape.
fn reshaped(map: &mut Map<String, Value>, name: &str, chance: &mut Chance) {
    let mut shape: Vec<u64> = map[name]["shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let count: u64 = shape.iter().product();
    match chance.below(4) {
        0 => shape.reverse(),
        1 => shape = vec![count],
        2 => shape = vec![1, count, 1],
        _ => {
            let step = *chance.pick(&[2, 3, 4, 8, 16]);
            if count.is_multiple_of(step) {
                shape = vec![count / step, step];
            }
        }
    }
    map[name]["shape"] = json!(shape);
}

/// The same bytes as another type of the same size.
fn retyped(map: &mut Map<String, Value>, name: &str, chance: &mut Chance) {
    const SIZES: [&[&str]; 4] = [
        &["U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL"],
        &["BF16", "F16", "I16", "U16"],
        &["F32", "I32", "U32"],
        &["F64", "I64", "U64"],
    ];
    let own = map[name]["dtype"].as_str().unwrap_or_default().to_string();
    if let Some(types) = SIZES.iter().find(|types| types.contains(&own.as_str())) {
        map[name]["dtype"] = json!(chance.pick(types));
    }
}

/// Codes and scales that stand for nothing, groups that do not exist, and statements about shapes that are not so.
fn numbers(model: &Path, chance: &mut Chance) {
    let path = model.join(weights(model, chance));
    let (header, mut data) = split(&read(&path));
    let Value::Object(map) = &header else { return };
    let names: Vec<&String> = map.keys().filter(|name| *name != "__metadata__").collect();
    for _ in 0..*chance.pick(&[1, 2, 8]) {
        let entry = &map[*chance.pick(&names)];
        let at = |index: usize| entry["data_offsets"][index].as_u64().unwrap_or_default() as usize;
        let own = &mut data[at(0)..at(1)];
        let value = *chance.pick(&[0x00, 0x7f, 0x80, 0x88, 0xff]);
        match chance.below(3) {
            0 => own.fill(value),
            1 if !own.is_empty() => {
                let first = chance.below(own.len());
                let last = (first + *chance.pick(&[1, 4, 64])).min(own.len());
                own[first..last].fill(value);
            }
            _ => {
                let random = chance.bytes(own.len());
                own.copy_from_slice(&random);
            }
        }
    }
    write(&path, joined(header.to_string().as_bytes(), &data));
}
